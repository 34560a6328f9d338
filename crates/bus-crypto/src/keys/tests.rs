//! The edge cases are those of "Taming the many EdDSAs" (IACR ePrint 2020/1244), computed afresh from the seed below.

use super::*;
use alloc::format;
use alloc::vec::Vec;

/// The key of the seed `[7; 32]`.
const HONEST: &str = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";

/// The same point with one of order 8 added.
const MIXED: &str = "1f4f580e73ac208f06760190e9edc6f5916775dabd9c1cdca393175c2d6d1083";

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let digits = |index: usize| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap();
    (0..N).map(digits).collect::<Vec<_>>().try_into().unwrap()
}

fn verify(key: &str, message: &[u8], signature: &str) -> Result<(), SignatureError> {
    VerifyingKey::from_bytes(bytes(key)).unwrap().verify(message, &Signature::from_bytes(bytes(signature)))
}

/// What the provider says by itself.
fn provider_accepts(key: &str, message: &[u8], signature: &str) -> bool {
    let key = ParsedPublicKey::new(&ED25519, bytes::<32>(key)).unwrap();
    key.verify_sig(message, &bytes::<64>(signature)).is_ok()
}

fn honest() -> SigningKey {
    SigningKey::from_seed(&[7; 32].into()).unwrap()
}

#[test]
fn a_signature_of_an_honest_key_holds_and_is_the_one_that_rfc_8032_says() {
    let expected = "d9d87e5230ccd94e998e33c3f1c6581bad88169d1df3f71b160bf479f95c843e\
                    83d0dc37c12809d7ed5040924fafa67129dbdd18163560ac997b941a86c3f204";
    let key = honest();
    assert_eq!(key.public_key().unwrap(), bytes(HONEST));
    assert_eq!(key.sign(b"a message").unwrap(), Signature::from_bytes(bytes(expected)));
    assert_eq!(verify(HONEST, b"a message", expected), Ok(()));
    assert_eq!(verify(HONEST, b"another", expected), Err(SignatureError::Mismatch));
}

#[test]
fn every_encoding_of_a_point_of_small_order_is_refused_as_a_key() {
    for key in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ] {
        assert_eq!(VerifyingKey::from_bytes(bytes(key)).unwrap_err(), KeyError::SmallOrder, "{key}");
    }
}

#[test]
fn a_key_of_small_order_would_verify_what_nobody_signed() {
    let weak = "0100000000000000000000000000000000000000000000000000000000000000";
    let signature = "ef4f62f8479733ad879cfaced3c89a9c39dd4fc795ef2efa1c3eafe4d729a081\
                     3930000000000000000000000000000000000000000000000000000000000000";
    assert!(provider_accepts(weak, b"anything", signature), "the reason for the check above is gone");
}

#[test]
fn a_key_whose_coordinate_is_not_below_the_prime_is_refused() {
    for first in 0xef..=0xff {
        for last in [0x7f, 0xff] {
            let mut key = [0xff; 32];
            (key[0], key[31]) = (first, last);
            assert_eq!(VerifyingKey::from_bytes(key).unwrap_err(), KeyError::NotCanonical, "{first:x}");
        }
    }
    let mut below = PRIME;
    below[0] -= 2;
    assert!(VerifyingKey::from_bytes(below).is_ok());
}

#[test]
fn a_key_that_is_no_point_verifies_nothing() {
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    let key = VerifyingKey::from_bytes(off_curve).unwrap();
    let signature = honest().sign(b"a message").unwrap();
    assert_eq!(key.verify(b"a message", &signature), Err(SignatureError::Mismatch));
}

#[test]
fn a_signature_whose_second_half_is_not_below_the_order_is_refused() {
    // S + L, which satisfies the same equation.
    let malleated = "d9d87e5230ccd94e998e33c3f1c6581bad88169d1df3f71b160bf479f95c843e\
                     70a4d294db8b1b2fc4ed37352ea9858629dbdd18163560ac997b941a86c3f214";
    assert_eq!(verify(HONEST, b"a message", malleated), Err(SignatureError::Mismatch));
}

#[test]
fn a_signature_whose_first_half_is_of_small_order_is_refused() {
    // R is the neutral element: the equation holds, and the provider accepts it.
    let neutral = "0100000000000000000000000000000000000000000000000000000000000000\
                   c76d1f3212ecf8da373e21a5de7bcc9145598fd06a18f0723f121fb05d5b9106";
    assert!(provider_accepts(HONEST, b"a message", neutral));
    assert_eq!(verify(HONEST, b"a message", neutral), Err(SignatureError::SmallOrder));
    // R is of order 8: the equation holds with the cofactor only.
    let order_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a\
                   d65648f35d907121453848abafb6c8fa851b0ae9b11633bc93ae3700acae9c0e";
    assert_eq!(verify(HONEST, b"a message", order_8), Err(SignatureError::SmallOrder));
    // R is the neutral element as p + 1.
    let not_canonical = "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f\
                         7674c68ae38a8103592af46bb0c75a04014df5cd86ab7f4d634e5ed1d47f4c0a";
    assert_eq!(verify(HONEST, b"a message", not_canonical), Err(SignatureError::SmallOrder));
}

#[test]
fn the_equation_is_the_one_without_the_cofactor() {
    // R has a component of order 8, which only the cofactor would remove.
    let mixed_r = "40a4cf5c611d737a2f1c6fcca84d9cabfed80987f186a5a6c57e629bff1af27f\
                   6b35c39c1a63aa93a23e60e766c594146caef7ecef91d725fbd09e8111cdf604";
    assert_eq!(verify(HONEST, b"a message", mixed_r), Err(SignatureError::Mismatch));
    // So has the key: its holder's signatures hold where the component happens to vanish, and only there.
    let vanishing = "ef4f62f8479733ad879cfaced3c89a9c39dd4fc795ef2efa1c3eafe4d729a081\
                     cf1680bc80d8d4f53206d60d1b915f194963df68e4ac40b8ce768c5e13704a01";
    assert_eq!(verify(MIXED, b"message 8", vanishing), Ok(()));
    let remaining = "ef4f62f8479733ad879cfaced3c89a9c39dd4fc795ef2efa1c3eafe4d729a081\
                     90e4fb078661094fc0d93a93762878fef495bec1118dc48be6bf3d952aa12102";
    assert_eq!(verify(MIXED, b"message 0", remaining), Err(SignatureError::Mismatch));
}

#[test]
fn debug_output_leaves_the_secret_out() {
    assert_eq!(format!("{:?}", honest()), format!("SigningKey {{ public_key: {HONEST}, .. }}"));
    assert_eq!(format!("{:#?}", honest()), format!("SigningKey {{ public_key: {HONEST}, .. }}"));
    let public = VerifyingKey::from_bytes(bytes(HONEST)).unwrap();
    assert_eq!(format!("{public:?}"), format!("VerifyingKey({HONEST})"));
}

#[test]
fn a_key_id_is_the_digest_of_the_bundle() {
    let id = KeyId::of_bundle(b"abc");
    assert_eq!(format!("{id}"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
