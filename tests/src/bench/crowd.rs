//! Many synthetic senders of one authority. Each is made when its message is, and forgotten after that.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bus_proto::Principal;
use bus_proto::v1::Heartbeat;
use bus_tls::pki::Authority;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;

use crate::attacks::broker::Message;
use crate::attacks::sender::{Leaf, Sender, an_hour};
use crate::deployment::principal;

/// How many threads make senders.
const MAKERS: usize = 2;

/// How many messages may wait for their delivery.
const WAITING: usize = 64;

/// An authority's key, and what all certificates of the crowd share.
pub(crate) struct Crowd {
    issuer: Issuer<'static, KeyPair>,
    /// The private key of every certificate: making one for each would only take time.
    key: KeyPair,
    signer: Arc<dyn rustls::sign::SigningKey>,
}

impl Crowd {
    pub(crate) fn new(authority: &Authority) -> Result<Self> {
        let ca_key = KeyPair::from_pem(&std::fs::read_to_string(authority.dir().join("ca.key"))?)?;
        let issuer = Issuer::from_ca_cert_pem(&std::fs::read_to_string(authority.ca_path())?, ca_key)?;
        let key = KeyPair::generate()?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)?;
        Ok(Self { issuer, key, signer })
    }

    /// The sender of that number: its certificate and its bundle are its own, and so is the key that it signs with.
    pub(crate) fn sender(&self, number: u32) -> Result<Sender> {
        Sender::with(self.leaf(number)?, an_hour())
    }

    /// A certificate that says as much as an authority's own, so that it is as long: a receiver keeps it.
    fn leaf(&self, number: u32) -> Result<Leaf> {
        let principal = principal_of(number);
        let mut serial = [0x40; 16];
        serial[12..].copy_from_slice(&number.to_be_bytes());
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 1, 1));
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, principal.endpoint.to_string());
        params.subject_alt_names = vec![SanType::URI(principal.spiffe_id().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let not_after_ms = params.not_after.unix_timestamp() * 1_000;
        let certificate = params.signed_by(&self.key, &self.issuer)?;
        let (serial, chain) = (format!("{number:x}"), vec![certificate.der().to_vec()]);
        Ok(Leaf { principal, serial, chain, key: Arc::clone(&self.signer), not_after_ms })
    }

    /// One message of each of these senders, its bundle in it, in any order. Threads of their own make them as they are taken.
    pub(crate) fn messages(self: &Arc<Self>, numbers: Range<u32>) -> mpsc::Receiver<Result<Message>> {
        let (outgoing, messages) = mpsc::channel(WAITING);
        for place in 0..MAKERS {
            let (crowd, numbers, outgoing) = (Arc::clone(self), numbers.clone(), outgoing.clone());
            std::thread::spawn(move || {
                for number in numbers.skip(place).step_by(MAKERS) {
                    let message = crowd.sender(number).map(|sender| heartbeat(&sender));
                    if outgoing.blocking_send(message.with_context(|| format!("sender {number}"))).is_err() {
                        // Nobody wants them any more.
                        return;
                    }
                }
            });
        }
        messages
    }
}

/// What every sender says.
pub(crate) fn content() -> Heartbeat {
    Heartbeat { uptime: 1, version: "1.0.0".into() }
}

/// A message of a sender with its bundle.
pub(crate) fn heartbeat(sender: &Sender) -> Message {
    sender.sign(&sender.event(content()))
}

fn principal_of(number: u32) -> Principal {
    principal(&format!("agent/agent-{number:06}"))
}

#[cfg(test)]
mod tests {
    use bus_proto::TrustDomain;
    use bus_tls::pki::{CaOptions, Profile};

    use super::*;
    use crate::deployment::TRUST_DOMAIN;

    #[test]
    fn a_synthetic_certificate_is_as_long_as_an_issued_one() {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        let authority = Authority::create(folder.path().join("pki"), domain, &CaOptions::default()).unwrap();
        let synthetic = Crowd::new(&authority).unwrap().leaf(7).unwrap();
        let endpoint = synthetic.principal.endpoint.clone();
        let profile = Profile::component(endpoint.role, endpoint.component).unwrap();
        let issued = Leaf::of(&authority.issue(&profile).unwrap()).unwrap();
        // An ECDSA signature has 70 to 72 bytes, rarely fewer.
        assert!(synthetic.chain[0].len().abs_diff(issued.chain[0].len()) <= 6);
    }
}
