//! Keys, certificates that are none, and messages.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use bus_crypto::bundle::{self, certificate_digest};
use bus_crypto::{Clock, LeafFacts, LeafKey, LeafSigner, Lifetime, MadeBundle, Scheme, SigningKey};
use bus_crypto::{UnverifiedBundle, VerifiedBundle};
use bus_proto::prost::Message;
use bus_proto::v1::{self, Envelope};
use bus_proto::{ComponentId, Principal, TrustDomain};

pub(crate) const NOW: i64 = 1_790_000_000_000;
pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const SKEW: i64 = 30_000;

/// The key of a certificate. The provider makes ECDSA and RSA keys from randomness of its own.
pub(crate) enum LeafPair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    /// An RSA key that signs as TLS 1.2 did.
    RsaPkcs1(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl LeafPair {
    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap())
    }

    pub(crate) fn rsa() -> RsaKeyPair {
        RsaKeyPair::generate(KeySize::Rsa2048).unwrap()
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap())
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        match self {
            Self::P256(pair) | Self::P384(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Rsa(pair) | Self::RsaPkcs1(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }
}

impl LeafSigner for LeafPair {
    type Error = std::convert::Infallible;

    fn scheme(&self) -> Scheme {
        match self {
            Self::P256(_) => Scheme::EcdsaP256Sha256,
            Self::P384(_) => Scheme::EcdsaP384Sha384,
            Self::Rsa(_) | Self::RsaPkcs1(_) => Scheme::RsaPssSha256,
            Self::Ed25519(_) => Scheme::Ed25519,
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Self::Error> {
        let random = SystemRandom::new();
        let rsa = |pair: &RsaKeyPair, padding| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &random, message, &mut signature).unwrap();
            signature
        };
        Ok(match self {
            Self::P256(pair) | Self::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Rsa(pair) => rsa(pair, &RSA_PSS_SHA256),
            Self::RsaPkcs1(pair) => rsa(pair, &RSA_PKCS1_SHA256),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

/// Everything that one component has.
pub(crate) struct Component {
    pub(crate) key: SigningKey,
    pub(crate) leaf_pair: LeafPair,
    pub(crate) leaf: LeafFacts,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) made: MadeBundle,
}

pub(crate) fn lifetime() -> Lifetime {
    Lifetime { not_before: NOW, sign_until: NOW + 24 * HOUR, verify_until: NOW + 48 * HOUR }
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::new("ransomeye.local").unwrap()
}

pub(crate) fn clock() -> Clock {
    Clock::new(NOW, SKEW)
}

pub(crate) fn leaf_facts(principal: &str, pair: &LeafPair, certificate: &[u8]) -> LeafFacts {
    LeafFacts {
        principal: principal.parse().unwrap(),
        key: LeafKey::from_spki(&pair.spki()).unwrap(),
        sha256: certificate_digest(certificate),
        chain_not_after_unix_ms: NOW + 72 * HOUR,
    }
}

impl Component {
    pub(crate) fn new(principal: &str, seed: u8, leaf_pair: LeafPair) -> Self {
        let chain = vec![format!("certificate of {principal}").into_bytes(), b"an intermediate".to_vec()];
        let leaf = leaf_facts(principal, &leaf_pair, &chain[0]);
        let key = SigningKey::from_seed(&[seed; 32].into()).unwrap();
        let made = bundle::make(&key, lifetime(), &chain, &leaf, &leaf_pair, &clock()).unwrap();
        Self { key, leaf_pair, leaf, chain, made }
    }

    pub(crate) fn agent() -> Self {
        Self::new("spiffe://ransomeye.local/agent/agent-01", 7, LeafPair::ed25519())
    }

    pub(crate) fn principal(&self) -> &Principal {
        &self.leaf.principal
    }

    pub(crate) fn verified(&self) -> VerifiedBundle {
        UnverifiedBundle::read(&self.made.encoded).unwrap().verify(&self.leaf, &clock()).unwrap()
    }

    /// An envelope by this component that is ready to be signed.
    pub(crate) fn envelope(&self, payload: impl Into<v1::envelope::Payload>) -> Envelope {
        let component: &ComponentId = self.principal().component();
        let mut envelope = Envelope::new(component, payload, NOW, [7; 10]);
        envelope.subject = format!("ransomeye.events.telemetry.{}.{component}", self.principal().role());
        envelope.sequence = 1;
        envelope
    }

    pub(crate) fn telemetry(&self) -> Envelope {
        self.envelope(v1::TelemetryEvent { cpu_usage: 12.5, ram_usage: 50.0 })
    }

    pub(crate) fn sign(&self, envelope: &Envelope) -> Vec<u8> {
        bus_crypto::envelope::sign(envelope.encode_to_vec(), &self.key, &self.made.key_id).unwrap().bytes
    }
}

/// A batch of heartbeats.
pub(crate) fn batch(members: usize) -> v1::envelope::Payload {
    let member = |uptime: usize| v1::BatchMember {
        message_id: "0199f1a2-0000-7000-8000-000000000000".into(),
        timestamp_utc: NOW,
        payload: Some(v1::batch_member::Payload::Heartbeat(v1::Heartbeat {
            uptime: uptime as u64,
            version: "0.1.0".into(),
        })),
        ..v1::BatchMember::default()
    };
    v1::envelope::Payload::Batch(v1::Batch { members: (0..members).map(member).collect() })
}

/// Something sealed as its encoding goes, to this many recipients.
pub(crate) fn sealed(counter: u64, ciphertext: Vec<u8>, recipients: usize) -> v1::Sealed {
    let wrapped = |place: usize| v1::WrappedKey {
        recipient: format!("spiffe://ransomeye.local/core/core-{place:03}"),
        key_version: place as u64 + 1,
        wrapped: vec![9; 80].into(),
    };
    v1::Sealed {
        epoch_id: vec![1; 16].into(),
        commitment: vec![2; 32].into(),
        counter,
        ciphertext: ciphertext.into(),
        wrapped_keys: (0..recipients).map(wrapped).collect(),
    }
}

/// A number as protobuf encodes it.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// One field with the given wire type.
pub(crate) fn field(number: u64, wire_type: u64, value: &[u8]) -> Vec<u8> {
    [varint(number << 3 | wire_type), value.to_vec()].concat()
}

/// One length-delimited field.
pub(crate) fn text(number: u64, value: &[u8]) -> Vec<u8> {
    field(number, 2, &[varint(value.len() as u64), value.to_vec()].concat())
}
