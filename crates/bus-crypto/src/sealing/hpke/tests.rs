use super::*;
use alloc::vec::Vec;

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let digits = |index: usize| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap();
    (0..N).map(digits).collect::<Vec<_>>().try_into().unwrap()
}

fn key(seed: [u8; KEY_LEN]) -> SealingKey {
    SealingKey::from_seed(&Zeroizing::new(seed)).unwrap()
}

/// The keys of RFC 9180, appendix A.1.1, whose KEM is ours.
fn ephemeral() -> SealingKey {
    key(bytes("52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736"))
}

fn recipient() -> SealingKey {
    key(bytes("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"))
}

#[test]
fn the_shared_secret_is_that_of_rfc_9180() {
    let (ephemeral, recipient) = (ephemeral(), recipient());
    let (enc, public) = (ephemeral.public_key(), recipient.public_key());
    assert_eq!(*enc.as_bytes(), bytes("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"));
    assert_eq!(*public.as_bytes(), bytes("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d"));
    let expected = bytes("fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc");
    assert_eq!(*shared_secret(&ephemeral, public, enc, public).unwrap(), expected);
    assert_eq!(*shared_secret(&recipient, enc, enc, public).unwrap(), expected);
}

#[test]
fn the_labeled_functions_give_the_key_schedule_of_rfc_9180() {
    // Appendix A.1.1, whose suite has AES-128-GCM.
    let suite = b"HPKE\x00\x20\x00\x01\x00\x01";
    let shared: [u8; 32] = bytes("fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc");
    let psk_id_hash = labeled_extract(suite, b"", b"psk_id_hash", b"").unwrap();
    let info_hash = labeled_extract(suite, b"", b"info_hash", b"Ode on a Grecian Urn").unwrap();
    assert_eq!(*psk_id_hash, bytes("725611c9d98c07c03f60095cd32d400d8347d45ed67097bbad50fc56da742d07"));
    assert_eq!(*info_hash, bytes("cb6cffde367bb0565ba28bb02c90744a20f5ef37f30523526106f637abb05449"));
    let secret = labeled_extract(suite, &shared, b"secret", b"").unwrap();
    assert_eq!(*secret, bytes("12fff91991e93b48de37e7daddb52981084bd8aa64289c3788471d9a9712f397"));
    let context: [&[u8]; 3] = [&[0], psk_id_hash.as_slice(), info_hash.as_slice()];
    let key: Zeroizing<[u8; 16]> = labeled_expand(&secret, suite, b"key", &context).unwrap();
    assert_eq!(*key, bytes("4531685d41d65f03dc48f6b8302c05b0"));
    let nonce: Zeroizing<[u8; 12]> = labeled_expand(&secret, suite, b"base_nonce", &context).unwrap();
    assert_eq!(*nonce, bytes("56d890e5accaaf011cff4b7d"));
}

#[test]
fn what_is_sealed_opens_with_its_key_and_info_alone() {
    let (recipient, other) = (recipient(), key([9; KEY_LEN]));
    let sealed = seal(recipient.public_key(), b"info", b"a secret", &ephemeral()).unwrap();
    assert_eq!(sealed.len(), 32 + 8 + 16);
    assert_eq!(open(&recipient, b"info", &sealed).unwrap().as_slice(), b"a secret");
    assert_eq!(open(&recipient, b"inf", &sealed), Err(Refused));
    assert_eq!(open(&other, b"info", &sealed), Err(Refused));
}

#[test]
fn no_flipped_bit_and_no_missing_byte_goes_unnoticed() {
    let recipient = recipient();
    let sealed = seal(recipient.public_key(), b"info", b"a secret", &ephemeral()).unwrap();
    for bit in 0..8 * sealed.len() {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&recipient, b"info", &changed), Err(Refused), "bit {bit}");
    }
    for len in 0..sealed.len() {
        assert_eq!(open(&recipient, b"info", &sealed[..len]), Err(Refused), "{len} bytes");
    }
}

#[test]
fn an_encapsulated_key_of_small_order_is_refused() {
    let recipient = recipient();
    for first in [0, 1] {
        let mut sealed = [0; 64];
        sealed[0] = first;
        assert_eq!(open(&recipient, b"info", &sealed), Err(Refused));
    }
}
