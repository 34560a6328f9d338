use super::*;
use alloc::format;
use aws_lc_rs::agreement::{UnparsedPublicKey, agree};

/// The key of the seed `[7; 32]`.
fn key() -> SealingKey {
    SealingKey::from_seed(&Zeroizing::new([7; KEY_LEN])).unwrap()
}

#[test]
fn a_public_key_is_that_of_rfc_7748() {
    // Section 6.1: Alice's.
    let seed = [
        0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45, 0xdf, 0x4c,
        0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
    ];
    let key = SealingKey::from_seed(&Zeroizing::new(seed)).unwrap();
    assert_eq!(
        format!("{:?}", key.public_key()),
        "SealingPublicKey(8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a)"
    );
    assert_eq!(**key.seed(), seed);
}

#[test]
fn a_point_of_small_order_is_refused() {
    for point in SMALL_ORDER {
        assert_eq!(SealingPublicKey::from_bytes(point), Err(SealingKeyError::SmallOrder));
    }
}

#[test]
fn every_point_that_is_refused_for_its_order_gives_zeros_which_the_provider_refuses_too() {
    let honest = *SealingKey::from_seed(&Zeroizing::new([8; KEY_LEN])).unwrap().public_key().as_bytes();
    let agrees = |point: [u8; KEY_LEN]| {
        agree(key().private(), UnparsedPublicKey::new(&X25519, point), SealingFailed, |_| Ok(()))
    };
    assert_eq!(agrees(honest), Ok(()));
    for point in SMALL_ORDER {
        assert_eq!(agrees(point), Err(SealingFailed));
    }
}

#[test]
fn a_second_encoding_of_a_key_is_refused() {
    let refused = Err(SealingKeyError::NotCanonical);
    // The highest bit, which X25519 ignores.
    let mut high = *key().public_key().as_bytes();
    high[KEY_LEN - 1] |= 0x80;
    assert_eq!(SealingPublicKey::from_bytes(high), refused);
    // The prime and what lies above it, from 0 to 18 once more.
    for above in 0..19 {
        let mut bytes = PRIME;
        bytes[0] += above;
        assert_eq!(SealingPublicKey::from_bytes(bytes), refused, "p + {above}");
    }
    // The largest coordinate below the prime that is not of small order.
    let mut below = PRIME;
    below[0] -= 2;
    assert!(SealingPublicKey::from_bytes(below).is_ok());
}

#[test]
fn debug_output_leaves_the_secret_out() {
    let key = key();
    let public: alloc::string::String = key.public_key().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(format!("{key:?}"), format!("SealingKey {{ public_key: {public}, .. }}"));
    assert_eq!(format!("{key:#?}"), format!("SealingKey {{ public_key: {public}, .. }}"));
}
