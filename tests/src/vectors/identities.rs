//! A certificate authority and components of fixed keys, serial numbers and dates.

use anyhow::{Context as _, Result};
use bus_proto::prost::Message as _;
use bus_proto::v1::{KeyBundle, KeyStatement};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType, SerialNumber, SigningKey as _,
};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::file::{Bytes, Time};
use super::sha256;
use super::signer::{Recorder, Signer, pkcs8};

/// 2026-09-21, in Unix milliseconds.
pub(crate) const NOW: i64 = 1_790_000_000_000;
pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const SKEW: i64 = 30_000;
pub(crate) const TRUST_DOMAIN: &str = "ransomeye.test";
/// The first moment of 2120, when the certificates end: in Unix milliseconds.
pub(crate) const CHAIN_END: i64 = 4_733_510_400_000;

const POSSESSION_CONTEXT: &[u8] = b"ransomeye.v1 key possession\0";
const BUNDLE_CONTEXT: &[u8] = b"ransomeye.v1 key bundle\0";
pub(crate) const ENVELOPE_CONTEXT: &[u8] = b"ransomeye.v1 envelope\0";

/// A receiver's clock.
pub(crate) fn at(now: i64) -> Time {
    Time { now: Some(now.to_string()), skew: SKEW.to_string() }
}

/// A certificate authority.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) der: Vec<u8>,
}

impl Authority {
    /// A root of a trust domain.
    pub(crate) fn root(seed: u8, name: &str, trust_domain: &str) -> Result<Self> {
        let mut params = authority_params(seed, name)?;
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
        let key = key_pair([seed; 32])?;
        let der = params.self_signed(&key)?.der().to_vec();
        Ok(Self { params, key, der })
    }

    /// An intermediate below another.
    pub(crate) fn below(&self, seed: u8, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<Self> {
        let mut params = authority_params(seed, name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        change(&mut params);
        let key = key_pair([seed; 32])?;
        let der = params.signed_by(&key, &self.issuer())?.der().to_vec();
        Ok(Self { params, key, der })
    }

    /// A leaf certificate of this public key.
    pub(crate) fn issue(&self, params: &CertificateParams, spki: &[u8]) -> Result<Vec<u8>> {
        let placeholder = key_pair([0x55; 32])?;
        let der = params.signed_by(&placeholder, &self.issuer())?.der().to_vec();
        self.sign_again(&der, &placeholder.subject_public_key_info(), spki)
    }

    /// The certificate with some of its bytes replaced, signed again: for public keys, and mistakes, that rcgen does not make.
    pub(crate) fn sign_again(&self, der: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
        let (outer, _) = element(der).context("no certificate")?;
        let (to_be_signed, rest) = element(outer).context("no content")?;
        let (algorithm, _) = element(rest).context("no algorithm")?;
        let place = to_be_signed.windows(from.len()).position(|window| window == from).context("nothing to replace")?;
        let changed = [&to_be_signed[..place], to, &to_be_signed[place + from.len()..]].concat();
        let to_be_signed = wrap(0x30, &changed);
        let signature = self.key.sign(&to_be_signed)?;
        Ok(wrap(0x30, &[to_be_signed, wrap(0x30, algorithm), wrap(0x03, &[&[0][..], &signature].concat())].concat()))
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

fn key_pair(seed: [u8; 32]) -> Result<KeyPair> {
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8(seed)), &rcgen::PKCS_ED25519)?)
}

fn params(serial: u8, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2120, 1, 1);
    params.serial_number = Some(SerialNumber::from_slice(&[serial; 16]));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority_params(serial: u8, name: &str) -> Result<CertificateParams> {
    let mut params = params(serial, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// What a component's certificate says.
pub(crate) fn leaf_params(serial: u8, principal: &str) -> Result<CertificateParams> {
    let name = principal.rsplit_once("//").map_or(principal, |(_, rest)| rest);
    let mut params = params(serial, name);
    params.subject_alt_names = vec![SanType::URI(principal.try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// The content of a DER element, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, head) = match der {
        [_, length @ 0..=0x7f, ..] => (usize::from(*length), 2),
        [_, 0x81, length, ..] => (usize::from(*length), 3),
        [_, 0x82, high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])), 4),
        _ => return None,
    };
    der.get(head..)?.split_at_checked(length)
}

/// A DER element of this tag.
fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let [low, high, ..] = content.len().to_le_bytes();
    let head = match content.len() {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content.to_vec()].concat()
}

/// The deployment that the vectors come from.
pub(crate) struct World<'a> {
    pub(crate) recorder: &'a Recorder,
    pub(crate) root: Authority,
    pub(crate) intermediate: Authority,
}

impl<'a> World<'a> {
    pub(crate) fn new(recorder: &'a Recorder) -> Result<Self> {
        let root = Authority::root(0xa1, "root of the test vectors", TRUST_DOMAIN)?;
        let intermediate = root.below(0xa2, "intermediate of the test vectors", |_| ())?;
        Ok(Self { recorder, root, intermediate })
    }

    pub(crate) fn roots(&self) -> Vec<Bytes> {
        vec![Bytes(self.root.der.clone())]
    }

    /// The chain of a leaf certificate: itself and the intermediate.
    pub(crate) fn chain(&self, params: &CertificateParams, spki: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![self.intermediate.issue(params, spki)?, self.intermediate.der.clone()])
    }

    /// A component whose session key has this seed.
    pub(crate) fn component(&'a self, principal: &str, seed: u8, leaf: Signer) -> Result<Component<'a>> {
        let chain = self.chain(&leaf_params(seed, principal)?, &leaf.spki)?;
        let component =
            Component { world: self, principal: principal.into(), session: Signer::ed25519([seed; 32]), leaf, chain };
        Ok(component)
    }

    /// `agent/agent-01`, with an Ed25519 certificate.
    pub(crate) fn agent(&'a self) -> Result<Component<'a>> {
        self.component("spiffe://ransomeye.test/agent/agent-01", 7, Signer::ed25519([0x1e; 32]))
    }
}

/// Everything that one component has.
pub(crate) struct Component<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) principal: String,
    pub(crate) session: Signer,
    pub(crate) leaf: Signer,
    pub(crate) chain: Vec<Vec<u8>>,
}

impl Component<'_> {
    /// What its bundle says.
    pub(crate) fn statement(&self) -> KeyStatement {
        KeyStatement {
            principal: self.principal.clone(),
            public_key: self.session.ed25519_public().to_vec().into(),
            not_before: NOW,
            sign_until: NOW + 24 * HOUR,
            verify_until: NOW + 48 * HOUR,
            chain: self.chain.iter().map(|der| der.clone().into()).collect(),
        }
    }

    /// What the certificate's key signs.
    pub(crate) fn leaf_message(&self, context: &[u8], scheme: u32, statement: &[u8]) -> Vec<u8> {
        let scheme = u16::try_from(scheme).expect("a number of TLS").to_be_bytes();
        [&[0x20; 64], context, &sha256(&self.chain[0]), &scheme, statement].concat()
    }

    /// Signs any statement, with both keys.
    pub(crate) fn seal(&self, statement: &[u8]) -> Result<KeyBundle> {
        let recorder = self.world.recorder;
        let possession = self.session.sign(&[POSSESSION_CONTEXT, statement].concat(), recorder)?;
        let scheme = self.leaf.scheme();
        let leaf_message = self.leaf_message(BUNDLE_CONTEXT, scheme, statement);
        Ok(KeyBundle {
            statement: statement.to_vec().into(),
            possession_signature: possession.into(),
            scheme,
            leaf_signature: self.leaf.sign(&leaf_message, recorder)?.into(),
        })
    }

    /// Its bundle, with a statement that is not as it should be.
    pub(crate) fn bundle_with(&self, change: impl FnOnce(&mut KeyStatement)) -> Result<Vec<u8>> {
        let mut statement = self.statement();
        change(&mut statement);
        Ok(self.seal(&statement.encode_to_vec())?.encode_to_vec())
    }

    /// Its bundle.
    pub(crate) fn bundle(&self) -> Result<Vec<u8>> {
        self.bundle_with(|_| ())
    }

    /// Signs any bytes as the prefix of an envelope.
    pub(crate) fn sign(&self, prefix: &[u8], key_id: &[u8; 32]) -> Result<Vec<u8>> {
        self.sign_over(prefix, key_id, &[ENVELOPE_CONTEXT, key_id, &sha256(prefix)].concat())
    }

    /// Signs anything, and puts the signature behind a prefix.
    pub(crate) fn sign_over(&self, prefix: &[u8], key_id: &[u8; 32], signed: &[u8]) -> Result<Vec<u8>> {
        Ok(with_trailer(prefix, key_id, &self.session.sign(signed, self.world.recorder)?))
    }
}

/// A message of these parts.
pub(crate) fn with_trailer(prefix: &[u8], key_id: &[u8], signature: &[u8]) -> Vec<u8> {
    [prefix, b"\xfa\xff\xff\xff\x0f\x64\x0a\x20", key_id, b"\x12\x40", signature].concat()
}
