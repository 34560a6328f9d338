//! Epochs and what is sealed in them, written out by hand: so that anything can be wrong in a vector, and one thing alone.

use aws_lc_rs::aead::{AES_256_GCM, AES_256_GCM_SIV, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hmac;

use super::sha256;

/// A private X25519 key with its public key: for tests alone, as everybody knows it.
#[derive(Clone, Copy)]
pub(crate) struct OwnSealingKey {
    pub(crate) private: [u8; 32],
    pub(crate) public: [u8; 32],
}

impl OwnSealingKey {
    pub(crate) fn new(private: [u8; 32]) -> Self {
        let public = load(&private).compute_public_key().expect("a public key");
        Self { private, public: public.as_ref().try_into().expect("32 bytes") }
    }
}

fn load(private: &[u8; 32]) -> PrivateKey {
    PrivateKey::from_private_key(&X25519, private).expect("a private key")
}

/// RFC 2104.
fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat()).as_ref().to_vec()
}

/// RFC 5869, section 2.3.
fn expand(prk: &[u8], info: &[u8], length: usize) -> Vec<u8> {
    let (mut output, mut block) = (Vec::new(), Vec::new());
    for count in 1_u8.. {
        if output.len() >= length {
            break;
        }
        block = hmac_sha256(prk, &[&block, info, &[count]]);
        output.extend_from_slice(&block);
    }
    output.truncate(length);
    output
}

fn seal(algorithm: &'static Algorithm, key: &[u8], nonce: &[u8], data: &[u8], text: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a key"));
    let mut sealed = text.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).expect("12 bytes");
    key.seal_in_place_append_tag(nonce, Aad::from(data), &mut sealed).expect("a short text");
    sealed
}

const KEM: &[u8] = b"KEM\x00\x20";
const SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x02";

/// HPKE (RFC 9180) in base mode with the suite 1, single shot, without additional data.
pub(crate) struct Hpke<'a> {
    /// The private key of the encapsulation.
    pub(crate) ephemeral: &'a OwnSealingKey,
    /// What is said to be its public key.
    pub(crate) enc: [u8; 32],
    /// The recipient's public key.
    pub(crate) recipient: [u8; 32],
}

impl<'a> Hpke<'a> {
    pub(crate) fn new(ephemeral: &'a OwnSealingKey, recipient: &OwnSealingKey) -> Self {
        Self { ephemeral, enc: ephemeral.public, recipient: recipient.public }
    }

    pub(crate) fn seal(&self, info: &[u8], text: &[u8]) -> Vec<u8> {
        let extract =
            |suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]| hmac_sha256(salt, &[b"HPKE-v1", suite, label, ikm]);
        let expand = |prk: &[u8], suite: &[u8], label: &[u8], info: &[u8], length: u8| {
            expand(prk, &[&[0, length], &b"HPKE-v1"[..], suite, label, info].concat(), length.into())
        };
        let other = UnparsedPublicKey::new(&X25519, self.recipient);
        let shared = agree(&load(&self.ephemeral.private), other, (), |shared| Ok(shared.to_vec())).expect("a secret");
        let prk = extract(KEM, b"", b"eae_prk", &shared);
        let shared = expand(&prk, KEM, b"shared_secret", &[self.enc, self.recipient].concat(), 32);
        let context =
            [&[0], &extract(SUITE, b"", b"psk_id_hash", b"")[..], &extract(SUITE, b"", b"info_hash", info)].concat();
        let secret = extract(SUITE, &shared, b"secret", b"");
        let key = expand(&secret, SUITE, b"key", &context, 32);
        let nonce = expand(&secret, SUITE, b"base_nonce", &context, 12);
        [&self.enc[..], &seal(&AES_256_GCM, &key, &nonce, b"", text)].concat()
    }
}

/// A recipient of an epoch.
#[derive(Clone)]
pub(crate) struct Recipient {
    pub(crate) spiffe_id: String,
    pub(crate) version: u64,
    pub(crate) key: OwnSealingKey,
}

/// What an epoch consists of.
#[derive(Clone)]
pub(crate) struct Epoch {
    pub(crate) key_id: [u8; 32],
    pub(crate) epoch_id: [u8; 16],
    pub(crate) secret: [u8; 32],
    /// In the order in which their wrapped keys stand.
    pub(crate) recipients: Vec<Recipient>,
}

/// What derives from an epoch's secret.
pub(crate) struct Derived {
    pub(crate) key: Vec<u8>,
    pub(crate) nonce_base: Vec<u8>,
    pub(crate) commitment: Vec<u8>,
}

impl Epoch {
    pub(crate) fn recipients_digest(&self) -> [u8; 32] {
        let one = |recipient: &Recipient| {
            let length = u16::try_from(recipient.spiffe_id.len()).expect("a short name").to_be_bytes();
            [&length, recipient.spiffe_id.as_bytes(), &recipient.version.to_be_bytes()[..]].concat()
        };
        sha256(&self.recipients.iter().map(one).collect::<Vec<_>>().concat())
    }

    pub(crate) fn derive(&self) -> Derived {
        let prk = hmac_sha256(b"ransomeye.v1 epoch\0", &[&self.secret]);
        let info = [b"ransomeye.v1 sealed\0", &self.key_id[..], &self.epoch_id, &self.recipients_digest()].concat();
        let output = expand(&prk, &info, 76);
        let part = |from: usize, to: usize| output[from..to].to_vec();
        Derived { key: part(0, 32), nonce_base: part(32, 44), commitment: part(44, 76) }
    }

    /// The `info` of HPKE for one recipient.
    pub(crate) fn info(&self, recipient: &Recipient) -> Vec<u8> {
        let version = recipient.version.to_be_bytes();
        let (context, suite) = (b"ransomeye.v1 epoch secret\0", [0, 1]);
        [context, &suite[..], &self.key_id, &self.epoch_id, &version, recipient.spiffe_id.as_bytes()].concat()
    }

    /// The secret for the recipient in this place, wrapped with an ephemeral key of its own.
    pub(crate) fn wrap(&self, place: usize) -> Vec<u8> {
        let recipient = &self.recipients[place];
        let ephemeral = self.ephemeral(place);
        Hpke::new(&ephemeral, &recipient.key).seal(&self.info(recipient), &self.secret)
    }

    /// The private key that the wrapped key in this place is made with.
    pub(crate) fn ephemeral(&self, place: usize) -> OwnSealingKey {
        OwnSealingKey::new(sha256(&[&self.secret[..], &place.to_be_bytes()].concat()))
    }

    /// Seals a content under a counter, bound to what is given.
    pub(crate) fn seal(&self, counter: u64, data: &[u8], content: &[u8]) -> Vec<u8> {
        let Derived { key, mut nonce_base, .. } = self.derive();
        nonce_base[4..].iter_mut().zip(counter.to_be_bytes()).for_each(|(byte, counted)| *byte ^= counted);
        seal(&AES_256_GCM_SIV, &key, &nonce_base, data, content)
    }
}

/// What a content is bound to.
#[derive(Clone)]
pub(crate) struct Bound {
    /// 1 for a payload, 2 for references.
    pub(crate) part: u8,
    pub(crate) key_id: [u8; 32],
    pub(crate) recipients_digest: [u8; 32],
    pub(crate) sequence: u64,
    pub(crate) expires_at: i64,
    pub(crate) sender: String,
    pub(crate) subject: String,
    pub(crate) message_type: String,
    pub(crate) message_id: String,
}

impl Bound {
    /// The associated data.
    pub(crate) fn data(&self) -> Vec<u8> {
        let mut data =
            [b"ransomeye.v1 sealed content\0", &[self.part][..], &self.key_id, &self.recipients_digest].concat();
        data.extend(self.sequence.to_be_bytes());
        data.extend(self.expires_at.to_be_bytes());
        for text in [&self.sender, &self.subject, &self.message_type, &self.message_id] {
            data.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
            data.extend(text.as_bytes());
        }
        data
    }
}
