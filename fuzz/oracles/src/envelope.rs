//! Messages, as a peer sends them.

use bus_crypto::{EnvelopeError, Scan, envelope as messages, trailer};

use crate::fixture::{NOW, SENDER, SKEW, clock};
use crate::reading;

/// A prefix: the bytes of a message that are signed.
pub fn scan(data: &[u8]) {
    reading::compare(data);
}

/// A whole message, first as an outsider sends it, then with its prefix signed anew by an insider.
pub fn envelope(data: &[u8]) {
    let sender = &*SENDER;
    if let Ok(verified) = messages::verify(data, &sender.bundle, sender.trust_domain(), &clock()) {
        // Ed25519 gives one signature for each message and key: whoever has not the key has copied it.
        let signed = messages::sign(verified.prefix().to_vec(), &sender.key, &sender.made.key_id).unwrap();
        assert_eq!(signed.bytes, data, "the signature is the signer's");
    }
    let prefix = trailer::split(data).map_or(data, |split| split.prefix);
    insider(prefix);
}

/// Whatever the owner of a key signs is verified exactly if it is canonical and speaks for its signer.
pub(crate) fn insider(prefix: &[u8]) {
    let sender = &*SENDER;
    let signed = messages::sign(prefix.to_vec(), &sender.key, &sender.made.key_id).unwrap();
    let verified = messages::verify(&signed.bytes, &sender.bundle, sender.trust_domain(), &clock());
    match reading::compare(prefix) {
        None => assert!(matches!(verified, Err(EnvelopeError::Scan(_))), "{verified:?}"),
        Some(scan) => {
            assert_eq!(verified.is_ok(), speaks_for_its_signer(&scan), "{verified:?}");
            if let Ok(verified) = verified {
                assert_eq!(verified.prefix(), prefix);
                assert_eq!(verified.digest(), &signed.digest);
                assert_eq!(verified.scan(), &scan);
                assert_eq!(verified.principal(), sender.principal());
            }
        }
    }
}

fn speaks_for_its_signer(scan: &Scan<'_>) -> bool {
    let sender = &*SENDER;
    let lifetime = sender.bundle.lifetime();
    let tail = format!("{}.{}", sender.principal().role(), sender.component());
    let of_signer = scan.subject() == tail || scan.subject().ends_with(&format!(".{tail}"));
    of_signer
        && scan.source_component() == sender.component().as_str()
        && scan.bundle().is_none_or(|bundle| bundle == sender.made.encoded)
        && (lifetime.not_before - SKEW..=lifetime.sign_until + SKEW).contains(&scan.timestamp())
        && lifetime.verify_until >= NOW
}
