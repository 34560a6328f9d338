//! The messages of one subscription, from the wire to its reader.
//!
//! The checks come in the order of `docs/wire.md`, so that the cheap ones are made first and nothing that is not verified
//! changes any state.

use std::collections::VecDeque;
use std::sync::Arc;

use async_nats::{Message, Subject};
use bus_crypto::compression::decompress;
use bus_crypto::sealing::{OpenEpoch, Part};
use bus_crypto::{
    KeyId, Member, PayloadView, Scan, Unverified, VerifiedPrefix, scan_content, scan_decompressed, trailer,
};
use bus_proto::prost::bytes::Bytes;
use bus_proto::{Destination, Payload, Principal};

use super::gate::{Gate, check_expiry, check_kind, open_any};
use super::keyring::KnownKey;
use super::open::Opener;
use super::parked::Parked;
use super::rejected::Rejected;
use super::routes::{Route, Routes};
use super::verified::{Head, Item, Verified};
use crate::time::unix_ms;

/// The most gaps that wait to be asked for.
const MAX_GAPS: usize = 1_024;

/// Envelopes that a subscription missed: their numbers were left out when a later one of the same key arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Who sent them.
    pub sender: Principal,
    /// The key that they are signed with.
    pub key_id: KeyId,
    /// Where they were published to.
    pub subject: String,
    /// The sequence of the first.
    pub first: u64,
    /// The sequence of the last, not below the first.
    pub last: u64,
}

impl Gap {
    /// How many envelopes they are. The sender chooses the numbers: up to 2⁶⁴ − 3.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// What comes of a message whose key is not known here.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The keys of its sender are being looked up.
    UnderWay,
    /// These are all that there are.
    Found(Vec<Arc<KnownKey>>),
}

/// Looks up the keys that a sender has published.
pub(crate) trait AskForKeys {
    /// Looks them up, unless that was done a moment ago.
    fn ask(&self, sender: &Principal, key_id: &KeyId) -> Asked;

    /// What came of it, if that was not forgotten; else looks them up again.
    fn answer(&self, sender: &Principal) -> Asked;
}

/// Why a message does not go on.
#[derive(Debug)]
enum Stop {
    Rejected(Rejected),
    /// Its key is not known.
    Unknown(KeyId, Principal),
}

impl<E: Into<Rejected>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Rejected(error.into())
    }
}

/// A refusal, and where the message had arrived.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) subject: Subject,
    pub(crate) rejected: Rejected,
}

/// Checks what arrives, and holds what is verified until it is read.
#[derive(Debug)]
pub(crate) struct Intake<T> {
    gate: Arc<Gate>,
    /// When the subscription began, in Unix milliseconds. Answers are matched to requests instead.
    since: Option<i64>,
    keep_evidence: bool,
    /// Whether what is sealed to others is shown as it is.
    show_sealed: bool,
    routes: Routes,
    verified: VecDeque<Result<Verified<T>, Refused>>,
    parked: Parked,
    /// What waits no more, with the keys that were found for it. It is examined one by one, as it is asked for: out of a few
    /// bytes that were compressed may come what a message may have at most.
    released: VecDeque<(Message, Arc<[Arc<KnownKey>]>)>,
    gaps: VecDeque<Gap>,
    /// How many gaps were found, whether they were asked for or not.
    new_gaps: usize,
}

impl<T: Payload> Intake<T> {
    pub(crate) fn new(gate: Arc<Gate>, since: Option<i64>) -> Self {
        Self {
            gate,
            since,
            keep_evidence: false,
            show_sealed: false,
            routes: Routes::default(),
            verified: VecDeque::new(),
            parked: Parked::default(),
            released: VecDeque::new(),
            gaps: VecDeque::new(),
            new_gaps: 0,
        }
    }

    pub(crate) fn keep_evidence(&mut self, keep: bool) {
        self.keep_evidence = keep;
    }

    pub(crate) fn show_sealed(&mut self, show: bool) {
        self.show_sealed = show;
    }

    /// The next message that was verified or refused. One that has expired meanwhile is refused now. Until there is none, no
    /// other is taken in.
    pub(crate) fn next(&mut self) -> Option<Result<Verified<T>, Refused>> {
        while self.verified.is_empty() {
            let Some((message, keys)) = self.released.pop_front() else { break };
            self.examine_again(&message, &keys);
        }
        let next = self.verified.pop_front()?;
        Some(next.and_then(|message| match message.item.expires_at {
            0 => Ok(message),
            expires_at => match check_expiry(expires_at, unix_ms()) {
                Ok(()) => Ok(message),
                Err(rejected) => Err(Refused { subject: message.subject().into(), rejected }),
            },
        }))
    }

    fn refuse(&mut self, message: &Message, rejected: Rejected) {
        self.verified.push_back(Err(Refused { subject: message.subject.clone(), rejected }));
    }

    /// The gaps that were found since it was asked last.
    pub(crate) fn take_gaps(&mut self) -> VecDeque<Gap> {
        std::mem::take(&mut self.gaps)
    }

    /// The latest gaps that nobody was told of yet.
    pub(crate) fn untold_gaps(&mut self) -> impl Iterator<Item = &Gap> {
        let untold = std::mem::take(&mut self.new_gaps);
        self.gaps.iter().skip(self.gaps.len().saturating_sub(untold))
    }

    /// Takes in a message that arrived.
    pub(crate) fn take(&mut self, message: Message, keys: &impl AskForKeys) {
        if let Some((key_id, sender)) = self.waits_behind_parked(&message) {
            return self.take_behind_parked(key_id, sender, message);
        }
        match self.examine(&message, &[]) {
            Ok(()) => {}
            Err(Stop::Rejected(rejected)) => self.refuse(&message, rejected),
            Err(Stop::Unknown(key_id, sender)) => match keys.ask(&sender, &key_id) {
                Asked::UnderWay => self.park(key_id, sender, message),
                Asked::Found(found) => self.examine_again(&message, &found),
            },
        }
    }

    /// The keys of `sender` were looked up: what waits for them goes on, or is refused.
    pub(crate) fn keys_found(&mut self, keys: &impl AskForKeys) {
        for sender in self.parked.senders() {
            if let Asked::Found(found) = keys.answer(&sender) {
                self.release(&sender, None, &found);
            }
        }
    }

    /// Nothing more comes: what waits is refused.
    pub(crate) fn end(&mut self) {
        for sender in self.parked.senders() {
            self.release(&sender, None, &[]);
        }
    }

    fn park(&mut self, key_id: KeyId, sender: Principal, message: Message) {
        if let Some(message) = self.parked.park(key_id, &sender, message) {
            self.refuse(&message, Rejected::WaitingFull { sender });
        }
    }

    /// The key and the sender of a message, if others of both wait. Whoever names another's key keeps nobody waiting by it.
    fn waits_behind_parked(&self, message: &Message) -> Option<(KeyId, Principal)> {
        if self.parked.is_empty() {
            return None;
        }
        let key_id = trailer::split(&message.payload).ok()?.key_id;
        let address = self.gate.root.parse(message.subject.as_str()).ok()?;
        self.parked.waits(&address.sender, &key_id).map(|sender| (key_id, sender.clone()))
    }

    /// Messages of its key wait: it goes behind them, or sets them free by the bundle that it brings.
    fn take_behind_parked(&mut self, key_id: KeyId, sender: Principal, message: Message) {
        let brought = Unverified::read(&message.payload).ok().and_then(|unverified| unverified.scan().bundle());
        let brought = brought.filter(|bundle| KeyId::of_bundle(bundle) == key_id);
        let brought = brought.filter(|_| self.gate.ring.has_patience(&sender));
        let (ring, clock) = (&self.gate.ring, self.gate.clock(unix_ms()));
        let verify =
            |bundle| ring.verify(bundle, &sender, &clock).inspect_err(|why| ring.note_bad_bundle(&sender, why));
        match brought.map(verify) {
            Some(Ok(key)) => {
                let key = Arc::new(key);
                self.release(&sender, Some(&key_id), std::slice::from_ref(&key));
                self.released.push_back((message, [key].into()));
            }
            _ => self.park(key_id, sender, message),
        }
    }

    /// Goes on with what waits of a sender, for this key or for any, in the order in which it came.
    fn release(&mut self, sender: &Principal, key_id: Option<&KeyId>, keys: &[Arc<KnownKey>]) {
        let keys: Arc<[Arc<KnownKey>]> = keys.into();
        let waited = self.parked.take(&sender.endpoint, key_id);
        self.released.extend(waited.into_iter().map(|message| (message, Arc::clone(&keys))));
    }

    /// Examines a message for the last time.
    fn examine_again(&mut self, message: &Message, keys: &[Arc<KnownKey>]) {
        let rejected = match self.examine(message, keys) {
            Ok(()) => return,
            Err(Stop::Rejected(rejected)) => rejected,
            Err(Stop::Unknown(_, sender)) if !self.gate.ring.has_patience(&sender) => {
                Rejected::TooManyBadBundles { sender }
            }
            Err(Stop::Unknown(key_id, sender)) => Rejected::UnknownKey { key_id, sender },
        };
        self.refuse(message, rejected);
    }

    /// Checks everything, and queues what the message carries.
    fn examine(&mut self, message: &Message, found: &[Arc<KnownKey>]) -> Result<(), Stop> {
        let gate = Arc::clone(&self.gate);
        let (size, max) = (message.payload.len(), gate.max_payload);
        if size > max {
            return Err(Rejected::TooLarge { size, max }.into());
        }
        // The broker does not look at reply subjects: anybody can have it publish here what he had put into a stream. What
        // comes out of one has headers that say so, unless headers of his own hide them. Messages of the bus have none.
        if has_headers(message) {
            return Err(Rejected::Headers.into());
        }
        let delivered = message.subject.as_str();
        if let Some((subject, route)) = self.routes.find(delivered) {
            let unverified = Unverified::read(&message.payload)?;
            gate.check_address(unverified.scan(), delivered, &route.message_type, route.directed)?;
            let gap = {
                let (since, show_sealed) = (self.since, self.show_sealed);
                let mut pass = Pass { gate: &gate, route, subject: &subject, since, show_sealed, found };
                pass.run(unverified, message, self.keep_evidence, &mut self.verified)?
            };
            self.note(gap);
            return Ok(());
        }
        let address = gate.root.parse(delivered)?;
        let directed = matches!(address.destination, Destination::Inbox(_));
        let unverified = Unverified::read(&message.payload)?;
        gate.check_address(unverified.scan(), delivered, &address.message_type, directed)?;
        let sender = gate.claimed(&address);
        gate.authorize(&sender, &address)?;
        let must_be_sealed = gate.must_be_sealed(&address.message_type, directed);
        let mut route = Route::new(sender, address.message_type, directed, must_be_sealed);
        let subject: Arc<str> = delivered.into();
        let (since, show_sealed) = (self.since, self.show_sealed);
        let mut pass = Pass { gate: &gate, route: &mut route, subject: &subject, since, show_sealed, found };
        let gap = pass.run(unverified, message, self.keep_evidence, &mut self.verified)?;
        self.note(gap);
        self.routes.keep(subject, route, unix_ms(), gate.skew_ms);
        Ok(())
    }

    fn note(&mut self, gap: Option<Gap>) {
        let Some(gap) = gap else { return };
        if self.gaps.len() >= MAX_GAPS {
            self.gaps.pop_front();
        }
        self.gaps.push_back(gap);
        self.new_gaps += 1;
    }
}

/// The checks that follow once it is known where a message belongs.
struct Pass<'a> {
    gate: &'a Gate,
    route: &'a mut Route,
    subject: &'a Arc<str>,
    since: Option<i64>,
    show_sealed: bool,
    found: &'a [Arc<KnownKey>],
}

impl Pass<'_> {
    fn run<T: Payload>(
        &mut self,
        unverified: Unverified<'_>,
        message: &Message,
        keep_evidence: bool,
        verified: &mut VecDeque<Result<Verified<T>, Refused>>,
    ) -> Result<Option<Gap>, Stop> {
        let now = unix_ms();
        if self.route.must_be_sealed && unverified.scan().sealed().is_none() {
            return Err(Rejected::NotSealed { message_type: self.route.message_type.clone() }.into());
        }
        self.check_freshness(&unverified, now)?;
        let (key, is_new) = self.key(&unverified, now)?;
        self.gate.ring.check_standing(&key, now)?;
        let clock = self.gate.clock(now);
        let proven = match unverified.verify(key.bundle(), &self.gate.receiver.trust_domain, &clock) {
            Ok(proven) => proven,
            Err(error) => {
                let why = Rejected::from(error);
                if is_new {
                    self.gate.ring.note_bad_bundle(&self.route.sender, &why);
                }
                return Err(why.into());
            }
        };
        if is_new {
            // Not before: whoever has a bundle can make up messages under its name, which nobody signed.
            self.gate.ring.remember(&key, now);
        }
        self.route.check(&proven)?;
        let evidence = keep_evidence.then(|| (message.payload.clone(), Arc::clone(&key)));
        let before = verified.len();
        let (epochs, is_batch) = self.open(&proven, evidence, now, verified)?;
        let taken = verified.range(before..).any(Result::is_ok);
        if !taken && !is_batch {
            // What cannot be decoded does not use up its number.
            return match verified.pop_back() {
                Some(Err(refused)) => Err(refused.rejected.into()),
                _ => Ok(None),
            };
        }
        let gap = match self.route.commit(&proven, &key, now, self.gate.skew_ms) {
            Ok(gap) => gap,
            Err(rejected) => {
                verified.truncate(before);
                return Err(rejected.into());
            }
        };
        if !epochs.is_empty() {
            self.route.keep_epochs(&key.key_id(), epochs);
        }
        Ok(gap.map(|gap| Gap {
            sender: self.route.sender.clone(),
            key_id: key.key_id(),
            subject: self.subject.to_string(),
            first: gap.first,
            last: gap.last,
        }))
    }

    fn check_freshness(&self, unverified: &Unverified<'_>, now: i64) -> Result<(), Rejected> {
        let scan = unverified.scan();
        self.gate.check_time(scan.timestamp(), scan.expires_at().unwrap_or(0), now)?;
        match self.since.map(|since| since.saturating_sub(scan.timestamp())) {
            Some(early_ms) if early_ms > 0 => Err(Rejected::PredatesSubscription { early_ms }),
            _ => Ok(()),
        }
    }

    /// The key that the message names, and whether it has yet to prove itself.
    fn key(&self, unverified: &Unverified<'_>, now: i64) -> Result<(Arc<KnownKey>, bool), Stop> {
        let key_id = unverified.key_id();
        if let Some(key) = self.route.key(&key_id) {
            return Ok((Arc::clone(key), false));
        }
        let sender = &self.route.sender;
        if let Some(key) = self.gate.ring.find(&key_id) {
            return Ok((key, false));
        }
        if let Some(key) = self.found.iter().find(|key| key.key_id() == key_id) {
            return Ok((Arc::clone(key), true));
        }
        let Some(bundle) = unverified.scan().bundle() else { return Err(Stop::Unknown(key_id, sender.clone())) };
        if KeyId::of_bundle(bundle) != key_id {
            return Err(Rejected::ForeignBundle.into());
        }
        let ring = &self.gate.ring;
        if !ring.has_patience(sender) {
            // Others may have spoilt it in its name: what it has stored itself counts as ever.
            return Err(Stop::Unknown(key_id, sender.clone()));
        }
        let key =
            ring.verify(bundle, sender, &self.gate.clock(now)).inspect_err(|why| ring.note_bad_bundle(sender, why))?;
        Ok((Arc::new(key), true))
    }

    /// Queues what an envelope carries, out of every form, each part decoded or refused on its own. Returns the epochs that
    /// were met, and whether there may be several parts.
    fn open<T: Payload>(
        &self,
        proven: &VerifiedPrefix<'_>,
        evidence: Option<(Bytes, Arc<KnownKey>)>,
        now: i64,
        verified: &mut VecDeque<Result<Verified<T>, Refused>>,
    ) -> Result<(Vec<(Part, OpenEpoch)>, bool), Rejected> {
        let scan = proven.scan();
        let mut opener = Opener { gate: self.gate, route: self.route, proven, fresh: Vec::new() };
        let (opened, content);
        let (mut payload, mut members) = (scan.payload(), scan.members());
        let mut is_closed = false;
        if let Some(sealed) = scan.sealed() {
            match opener.payload(sealed) {
                Ok(bytes) => {
                    opened = bytes;
                    content = scan_content(&opened).map_err(Rejected::Content)?;
                    (payload, members) = (content.payload(), content.members());
                }
                Err(closed) if closed.is_closed() && self.show_sealed => is_closed = true,
                Err(rejected) => return Err(rejected),
            }
        }
        let (decompressed, inner);
        if let Some((length, frame)) = payload.compressed() {
            decompressed = decompress(length, frame, self.gate.max_payload)?;
            inner = scan_decompressed(&decompressed).map_err(Rejected::Content)?;
            (payload, members) = (inner.payload(), inner.members());
        }
        check_kind(payload, members, &self.route.message_type)?;
        let disclosed = opener.references()?;
        let (tags, trace_context) = Head::labels(scan);
        let head = Arc::new(Head {
            sender: self.route.sender.clone(),
            subject: Arc::clone(self.subject),
            message_type: self.route.message_type.clone(),
            directed: self.route.directed,
            key_id: proven.key_id(),
            sequence: scan.sequence().unwrap_or(0),
            priority: scan.priority().map_or(5, u32::from),
            tags,
            trace_context,
            digest: *proven.digest(),
            sealed: scan.sealed().is_some(),
            disclosed,
            evidence,
        });
        let parts = Parts { gate: self.gate, head, now };
        if is_closed {
            verified.push_back(parts.closed(scan));
        } else if members.is_empty() {
            verified.push_back(parts.alone(scan, payload));
        } else {
            verified.reserve(members.len());
            verified.extend((0_u16..).zip(members).map(|(place, member)| parts.member(place, member)));
        }
        Ok((opener.fresh, !members.is_empty()))
    }
}

/// What the messages of one envelope are made with.
struct Parts<'a> {
    gate: &'a Gate,
    head: Arc<Head>,
    now: i64,
}

impl Parts<'_> {
    fn finish<T>(&self, item: Item, payload: Result<T, Rejected>) -> Result<Verified<T>, Refused> {
        match payload {
            Ok(payload) => Ok(Verified { head: Arc::clone(&self.head), item, payload }),
            Err(rejected) => Err(Refused { subject: (*self.head.subject).into(), rejected }),
        }
    }

    fn alone<T: Payload>(&self, scan: &Scan<'_>, payload: &PayloadView<'_>) -> Result<Verified<T>, Refused> {
        self.finish(item_of(scan), self.gate.open(payload, &self.head.message_type))
    }

    /// What is sealed to others, as it is.
    fn closed<T: Payload>(&self, scan: &Scan<'_>) -> Result<Verified<T>, Refused> {
        self.finish(item_of(scan), open_any(scan.payload()))
    }

    fn member<T: Payload>(&self, place: u16, member: &Member<'_>) -> Result<Verified<T>, Refused> {
        let (id, correlation) = (member.message_id(), member.correlation_id());
        let item = item(id, member.timestamp(), member.expires_at(), correlation, Some(place));
        let fresh = self.gate.check_time(item.timestamp, item.expires_at, self.now);
        self.finish(item, fresh.and_then(|()| self.gate.open(member.payload(), &self.head.message_type)))
    }
}

fn item_of(scan: &Scan<'_>) -> Item {
    item(scan.message_id(), scan.timestamp(), scan.expires_at(), scan.correlation_id(), None)
}

/// Whether a message has headers, be they malformed.
fn has_headers(message: &Message) -> bool {
    let reply = message.reply.as_ref().map_or(0, |reply| reply.len());
    message.headers.is_some() || message.length > message.subject.len() + reply + message.payload.len()
}

fn item(
    message_id: &str,
    timestamp: i64,
    expires_at: Option<i64>,
    correlation: Option<&[u8; 32]>,
    member: Option<u16>,
) -> Item {
    let mut id = [0; 36];
    if let Some(text) = message_id.as_bytes().first_chunk() {
        id = *text;
    }
    Item { message_id: id, timestamp, expires_at: expires_at.unwrap_or(0), correlation: correlation.copied(), member }
}
