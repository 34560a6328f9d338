//! A receiver that verifies and opens, with bus-crypto.

use std::collections::BTreeMap;

use bus_crypto::compression::{CompressionError, decompress};
use bus_crypto::sealing::{About, Epoch, OpenEpoch, OpenError, Part, Recipient, SealingFailed, SealingKey};
use bus_crypto::{
    KeyId, Member, PayloadKind, PayloadView, ScanError, SealedView, VerifiedBundle, VerifiedPrefix, envelope, scan,
    scan_content, scan_decompressed, scan_references,
};
use bus_proto::prost::Message as _;
use bus_proto::{AnyPayload, MessageType, TrustDomain};

use super::agreement::{clock, name, of_envelope, of_scan, refused};
use super::file::{
    Bytes, ContentVector, FrameVector, Holding, HpkeVector, Opened, Outcome, OwnKey, Said, SealedVector, Secret, hex,
};
use super::form::{bytes, number};
use super::identities::NOW;

/// The most that a receiver takes of what is decompressed.
const MAX: usize = 8 * 1024 * 1024;

fn of_opening<T>(error: OpenError) -> Outcome<T> {
    refused(format!("Opening.{}", name(&error)))
}

fn of_compression<T>(error: CompressionError) -> Outcome<T> {
    refused(format!("Compression.{}", name(&error)))
}

fn field_number(kind: PayloadKind) -> usize {
    let kinds = [
        PayloadKind::Telemetry,
        PayloadKind::Alert,
        PayloadKind::Command,
        PayloadKind::Heartbeat,
        PayloadKind::CommandResult,
        PayloadKind::Error,
        PayloadKind::Custom,
        PayloadKind::Sealed,
        PayloadKind::Batch,
        PayloadKind::Compressed,
    ];
    10 + kinds.iter().position(|known| *known == kind).expect("a known kind")
}

/// The field number of a payload, and where it begins and ends.
pub(crate) fn place_of(payload: &PayloadView<'_>) -> [usize; 3] {
    [field_number(payload.kind()), payload.range().start, payload.range().end]
}

pub(crate) fn content(vector: &ContentVector) -> Outcome<Holding> {
    let held = |content: &bus_crypto::Content<'_>| Holding::Payload {
        payload: place_of(content.payload()),
        members: content.members().len(),
    };
    let read = match vector.of.as_str() {
        "sealed" => scan_content(&vector.content.0).map(|content| held(&content)),
        "compressed" => scan_decompressed(&vector.content.0).map(|content| held(&content)),
        _ => references(&vector.content.0).map(Holding::References),
    };
    read.map_or_else(|error| of_scan(&error), Outcome::Accepted)
}

fn references(bytes: &[u8]) -> Result<Vec<(String, String)>, ScanError> {
    let owned = |view: &bus_crypto::ReferenceView<'_>| (view.kind().to_owned(), view.value().to_owned());
    Ok(scan_references(bytes)?.iter().map(owned).collect())
}

pub(crate) fn frame(vector: &FrameVector) -> Outcome<Bytes> {
    match decompress(vector.length, &vector.frame.0, vector.max) {
        Ok(content) => Outcome::Accepted(Bytes(content)),
        Err(error) => of_compression(error),
    }
}

fn sealing_key(bytes: &Bytes) -> SealingKey {
    let seed: [u8; 32] = bytes.0.as_slice().try_into().expect("32 bytes");
    SealingKey::from_seed(&seed.into()).expect("a sealing key")
}

/// A wrapped key in an envelope, which commits to what `outcome` says, and is sealed to nobody in particular.
fn wrapping(vector: &HpkeVector, commitment: &[u8]) -> Vec<u8> {
    let version = vector.key_version.parse().expect("a number");
    let wrapped = [bytes(1, vector.recipient.as_bytes()), number(2, version), bytes(3, &vector.wrapped.0)].concat();
    let sealed = [bytes(1, &vector.epoch_id.0), bytes(2, commitment), bytes(4, &[0; 17]), bytes(5, &wrapped)].concat();
    [
        bytes(1, super::scans::ID.as_bytes()),
        bytes(2, b"agent-01"),
        number(3, NOW.unsigned_abs()),
        bytes(4, b"ransomeye.events.telemetry.agent.agent-01"),
        bytes(17, &sealed),
    ]
    .concat()
}

/// Unwraps a secret. That it is the expected one shows in its commitment; and it is wrapped anew, with the same keys.
pub(crate) fn unwrapped(vector: &HpkeVector) -> Outcome<Secret> {
    let key_id = KeyId::from_bytes(vector.key_id.0.as_slice().try_into().expect("32 bytes"));
    let key = sealing_key(&vector.private_key);
    assert_eq!(key.public_key().as_bytes()[..], vector.public_key.0, "{}", vector.name);
    let nothing = [0; 32];
    let commitment = match &vector.outcome {
        Outcome::Accepted(secret) => secret.commitment.0.as_slice(),
        Outcome::Refused(_) => &nothing,
    };
    let prefix = wrapping(vector, commitment);
    let scanned = scan(&prefix).expect("a prefix");
    let sealed = scanned.sealed().expect("something sealed");
    let wrapped = sealed.wrapped_for(&vector.recipient).expect("a wrapped key");
    match (OpenEpoch::unwrap(sealed, &key_id, wrapped, &key), &vector.outcome) {
        (Err(error), _) => of_opening(error),
        (Ok(_), Outcome::Refused(_)) => refused("nothing".into()),
        (Ok(epoch), Outcome::Accepted(secret)) => {
            assert_eq!(epoch.id()[..], vector.epoch_id.0);
            assert_eq!(
                sealed.recipients_digest().map(|digest| digest.to_vec()).as_ref(),
                Some(&secret.recipients_digest.0)
            );
            assert_eq!(wrapped_anew(vector, secret, &key, key_id), vector.wrapped.0, "{}", vector.name);
            Outcome::Accepted(secret.clone())
        }
    }
}

fn wrapped_anew(vector: &HpkeVector, secret: &Secret, key: &SealingKey, key_id: KeyId) -> Vec<u8> {
    let ephemeral = vector.ephemeral.as_ref().expect("the ephemeral key");
    let mut random = [&vector.epoch_id, &secret.secret, ephemeral].into_iter();
    let fill = |buffer: &mut [u8]| {
        buffer.copy_from_slice(&random.next().ok_or(SealingFailed)?.0);
        Ok(())
    };
    let recipient = Recipient {
        principal: vector.recipient.parse().expect("a principal"),
        version: vector.key_version.parse().expect("a number"),
        key: key.public_key().clone(),
    };
    let mut epoch = Epoch::new(key_id, &[recipient], NOW, fill).expect("an epoch");
    let about = About {
        part: Part::Payload,
        sender: "",
        subject: "",
        message_type: "",
        sequence: 0,
        message_id: "",
        expires_at: 0,
    };
    let mut out = Vec::new();
    epoch.seal(&about, b"content", true, &mut out).expect("something sealed");
    let sealed = bus_proto::v1::Sealed::decode(out.as_slice()).expect("a message");
    assert_eq!(sealed.commitment[..], secret.commitment.0);
    sealed.wrapped_keys[0].wrapped.to_vec()
}

/// One receiver of sealed messages.
pub(crate) struct Receiver {
    spiffe_id: String,
    keys: BTreeMap<u64, SealingKey>,
    trust_domain: TrustDomain,
    epochs: BTreeMap<(KeyId, [u8; 16]), OpenEpoch>,
}

impl Receiver {
    pub(crate) fn new(vector: &SealedVector) -> Self {
        let key = |it: &OwnKey| (it.version.parse().expect("a number"), sealing_key(&it.private_key));
        Self {
            spiffe_id: vector.receiver.clone(),
            keys: vector.keys.iter().map(key).collect(),
            trust_domain: TrustDomain::new(&vector.trust_domain).expect("a trust domain"),
            epochs: BTreeMap::new(),
        }
    }

    /// Verifies and opens one message.
    pub(crate) fn receive(
        &mut self,
        message: &[u8],
        bundle: &VerifiedBundle,
        time: &super::file::Time,
    ) -> Result<Opened, Outcome<Opened>> {
        let verified =
            envelope::verify(message, bundle, &self.trust_domain, &clock(time)).map_err(|error| of_envelope(&error))?;
        let scan = verified.scan();
        let token = scan.subject().rsplit('.').nth(2).unwrap_or_default();
        let message_type: MessageType = token.parse().expect("a type");
        let content = match scan.sealed() {
            Some(sealed) => {
                Some(self.open(sealed, &verified, token, Part::Payload)?.ok_or(refused("NotARecipient".into()))?)
            }
            None => None,
        };
        let messages = match &content {
            Some(content) => {
                let content = scan_content(content).map_err(|error| of_scan(&error))?;
                said(content.payload(), content.members(), &message_type)?
            }
            None => said(scan.payload(), scan.members(), &message_type)?,
        };
        let references = match scan.references().filter(|sealed| !sealed.wrapped_keys().is_empty()) {
            Some(sealed) => match self.open(sealed, &verified, token, Part::References)? {
                Some(content) => Some(references(&content).map_err(|error| of_scan(&error))?),
                None => None,
            },
            None => None,
        };
        let principal = verified.principal().spiffe_id();
        Ok(Opened { principal, content: content.map(Bytes), messages, references })
    }

    /// Opens one part. `None` if it is not for this receiver.
    fn open(
        &mut self,
        sealed: &SealedView<'_>,
        verified: &VerifiedPrefix<'_>,
        token: &str,
        part: Part,
    ) -> Result<Option<Vec<u8>>, Outcome<Opened>> {
        let scan = verified.scan();
        let sender = verified.principal().spiffe_id();
        let about = About {
            part,
            sender: &sender,
            subject: scan.subject(),
            message_type: token,
            sequence: scan.sequence().unwrap_or_default(),
            message_id: scan.message_id(),
            expires_at: scan.expires_at().unwrap_or_default(),
        };
        let wrapped = match sealed.wrapped_for(&self.spiffe_id) {
            None if !sealed.wrapped_keys().is_empty() => return Ok(None),
            wrapped => wrapped,
        };
        let id = (verified.key_id(), *sealed.epoch_id());
        if let Some(epoch) = self.epochs.get(&id) {
            return epoch.open(sealed, &about).map(Some).map_err(of_opening);
        }
        let wrapped = wrapped.ok_or(refused("UnknownEpoch".into()))?;
        let key = self.keys.get(&wrapped.key_version()).ok_or(refused("UnknownSealingKey".into()))?;
        let epoch = OpenEpoch::unwrap(sealed, &id.0, wrapped, key).map_err(of_opening)?;
        let content = epoch.open(sealed, &about).map_err(of_opening)?;
        self.epochs.insert(id, epoch);
        Ok(Some(content))
    }
}

/// What the messages of a content say.
fn said(
    payload: &PayloadView<'_>,
    members: &[Member<'_>],
    message_type: &MessageType,
) -> Result<Vec<Said>, Outcome<Opened>> {
    if let Some((length, frame)) = payload.compressed() {
        let content = decompress(length, frame, MAX).map_err(of_compression)?;
        let content = scan_decompressed(&content).map_err(|error| of_scan(&error))?;
        return said(content.payload(), content.members(), message_type);
    }
    let payloads = match members {
        [] => vec![payload],
        members => members.iter().map(Member::payload).collect(),
    };
    let one = |payload: &&PayloadView<'_>| {
        if !payload.kind().may_be(message_type) {
            return Err(refused("TypeMismatch".into()));
        }
        let decoded = payload.decode().expect("what the scan accepts is a message");
        Ok(Said { field: field_number(payload.kind()), values: values(&decoded) })
    };
    payloads.iter().map(one).collect()
}

/// Each field of a payload.
fn values(payload: &AnyPayload) -> BTreeMap<String, String> {
    let pairs: Vec<(&str, String)> = match payload {
        AnyPayload::Telemetry(it) => {
            vec![("cpu_usage", format!("{:?}", it.cpu_usage)), ("ram_usage", format!("{:?}", it.ram_usage))]
        }
        AnyPayload::Alert(it) => vec![
            ("threat_type", it.threat_type.clone()),
            ("severity", it.severity.to_string()),
            ("description", it.description.clone()),
        ],
        AnyPayload::Command(it) => {
            vec![("command_type", it.command_type.to_string()), ("target_pid", it.target_pid.to_string())]
        }
        AnyPayload::Heartbeat(it) => vec![("uptime", it.uptime.to_string()), ("version", it.version.clone())],
        AnyPayload::CommandResult(it) => vec![("status", it.status.to_string()), ("detail", it.detail.clone())],
        AnyPayload::Error(it) => vec![("code", it.code.to_string()), ("message", it.message.clone())],
        AnyPayload::Custom(it) => vec![("type_name", it.type_name.clone()), ("value", hex(&it.value))],
        AnyPayload::Sealed(_) | AnyPayload::Batch(_) | AnyPayload::Compressed(_) => panic!("a form is no message"),
    };
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
