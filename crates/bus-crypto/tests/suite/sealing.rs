//! Sealing: who can open what, and what every change comes to.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use bus_crypto::sealing::{About, Epoch, OpenEpoch, OpenError, Part, Recipient, SealingFailed, SealingKey};
use bus_crypto::{KeyId, SealedView, scan, sha256};
use bus_proto::ComponentId;
use bus_proto::prost::Message;
use bus_proto::prost::bytes::Bytes;
use bus_proto::v1::envelope::Payload;
use bus_proto::v1::{Envelope, Sealed};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use proptest::prelude::*;

use crate::support::NOW;

/// Bytes that look random, and are the same for the same seed.
struct Random(u64);

impl Random {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            self.0 = self.0.wrapping_add(1);
            chunk.copy_from_slice(&sha256(&self.0.to_be_bytes())[..chunk.len()]);
        }
    }
}

impl TryRng for Random {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Random {}

fn key_id() -> KeyId {
    KeyId::of_bundle(b"the sender's bundle")
}

/// Recipients with their private keys, in ascending order.
struct Recipients(Vec<(SealingKey, Recipient)>);

impl Recipients {
    fn new(count: u16) -> Self {
        let recipient = |number: u16| {
            let key = SealingKey::from_seed(&sha256(&number.to_be_bytes()).into()).unwrap();
            let principal = format!("spiffe://ransomeye.local/core/core-{number:03}").parse().unwrap();
            let recipient =
                Recipient { principal, version: u64::from(number) * 100 + 1, key: key.public_key().clone() };
            (key, recipient)
        };
        Self((0..count).map(recipient).collect())
    }

    /// An epoch of these, whose id, secret and ephemeral keys come from `seed`.
    fn epoch(&self, seed: u64) -> Epoch {
        let recipients: Vec<_> = self.0.iter().map(|(_, recipient)| recipient.clone()).collect();
        let mut random = Random(seed);
        let fill = |bytes: &mut [u8]| {
            random.fill(bytes);
            Ok::<_, SealingFailed>(())
        };
        Epoch::new(key_id(), &recipients, NOW, fill).unwrap()
    }

    /// Unwraps as the recipient with this number does.
    fn unwrap(&self, number: usize, key_id: &KeyId, sealed: &Sealed) -> Result<OpenEpoch, OpenError> {
        let (key, Recipient { principal, .. }) = &self.0[number];
        viewed(sealed, |view| {
            let wrapped = view.wrapped_for(&principal.spiffe_id()).unwrap();
            OpenEpoch::unwrap(view, key_id, wrapped, key)
        })
    }
}

/// What an epoch seals, decoded. The tests change it, and it goes back through the scan.
fn seal(epoch: &mut Epoch, about: &About<'_>, content: &[u8], with_keys: bool) -> Sealed {
    let len = epoch.sealed_len(content.len(), with_keys);
    let mut out = b"something before".to_vec();
    epoch.seal(about, content, with_keys, &mut out).unwrap();
    let encoded = out.strip_prefix(b"something before").unwrap();
    assert_eq!(encoded.len(), len);
    let sealed = Sealed::decode(encoded).unwrap();
    assert_eq!(sealed.encode_to_vec(), encoded, "what is written by hand is what a library writes");
    sealed
}

/// What a receiver sees of something sealed.
fn viewed<T>(sealed: &Sealed, look: impl FnOnce(&SealedView<'_>) -> T) -> T {
    let source = ComponentId::new("agent-01").unwrap();
    let mut envelope = Envelope::new(&source, Payload::Sealed(sealed.clone()), NOW, [7; 10]);
    envelope.subject = "ransomeye.events.alert.agent.agent-01".into();
    let prefix = envelope.encode_to_vec();
    look(scan(&prefix).unwrap().sealed().unwrap())
}

fn open(epoch: &OpenEpoch, sealed: &Sealed, about: &About<'_>) -> Result<Vec<u8>, OpenError> {
    viewed(sealed, |view| epoch.open(view, about))
}

fn about() -> About<'static> {
    About {
        part: Part::Payload,
        sender: "spiffe://ransomeye.local/agent/agent-01",
        subject: "ransomeye.events.alert.agent.agent-01",
        message_type: "alert",
        sequence: 7,
        message_id: "0199f1a2-0000-7000-8000-000000000000",
        expires_at: NOW + 60_000,
    }
}

/// The same bytes with one bit changed.
fn flipped(bytes: &Bytes, bit: usize) -> Bytes {
    let mut changed = bytes.to_vec();
    changed[bit / 8] ^= 1 << (bit % 8);
    changed.into()
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}

proptest! {
    #[test]
    fn what_is_sealed_opens_for_every_recipient(
        count in 1_u16..5,
        seed in any::<u64>(),
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 1..4),
        texts in prop::array::uniform4("\\PC{0,60}"),
        (sequence, expires_at) in any::<(u64, i64)>(),
        references in any::<bool>(),
    ) {
        let part = if references { Part::References } else { Part::Payload };
        let [sender, subject, message_type, message_id] = &texts;
        let about = About { part, sender, subject, message_type, sequence, message_id, expires_at };
        let recipients = Recipients::new(count);
        let mut epoch = recipients.epoch(seed);
        let sealed: Vec<_> =
            contents.iter().enumerate().map(|(n, content)| seal(&mut epoch, &about, content, n == 0)).collect();
        for number in 0..recipients.0.len() {
            let opened = recipients.unwrap(number, &key_id(), &sealed[0]).unwrap();
            prop_assert_eq!(opened.id(), epoch.id());
            for (content, sealed) in contents.iter().zip(&sealed) {
                let opened = open(&opened, sealed, &about);
                prop_assert_eq!(opened.as_ref(), Ok(content));
            }
        }
    }

    #[test]
    fn a_byte_that_moves_from_one_name_to_the_next_does_not_go_unnoticed(
        text in "[a-z]{4,40}",
        (one, other) in (0_usize..40, 0_usize..40),
        field in 0..3,
    ) {
        let (one, other) = (one % text.len(), other % text.len());
        prop_assume!(one != other);
        let split = |at: usize| {
            let (left, right) = text.split_at(at);
            match field {
                0 => About { sender: left, subject: right, ..about() },
                1 => About { subject: left, message_type: right, ..about() },
                _ => About { message_type: left, message_id: right, ..about() },
            }
        };
        let recipients = Recipients::new(1);
        let sealed = seal(&mut recipients.epoch(1), &split(one), b"a content", true);
        let epoch = recipients.unwrap(0, &key_id(), &sealed).unwrap();
        prop_assert_eq!(open(&epoch, &sealed, &split(one)), Ok(b"a content".to_vec()));
        prop_assert_eq!(open(&epoch, &sealed, &split(other)), Err(OpenError::Ciphertext));
    }

    #[test]
    fn two_epochs_of_one_secret_reveal_nothing_but_equality(
        (one, other) in (16_usize..300).prop_flat_map(|len| {
            let content = prop::collection::vec(any::<u8>(), len);
            (content.clone(), content)
        }),
        seed in any::<u64>(),
        same_message in any::<bool>(),
    ) {
        prop_assume!(one != other);
        // A virtual machine was restored from a snapshot: the same epoch begins to count once more.
        let recipients = Recipients::new(1);
        let (mut before, mut after) = (recipients.epoch(seed), recipients.epoch(seed));
        let later = if same_message { about() } else { About { message_id: "another", ..about() } };
        let sealed = [seal(&mut before, &about(), &one, true), seal(&mut after, &later, &other, true)];
        let [first, second] = &sealed;
        prop_assert_eq!((&first.epoch_id, first.counter), (&second.epoch_id, second.counter));
        let (text, tag) = first.ciphertext.split_at(one.len());
        let (other_text, other_tag) = second.ciphertext.split_at(other.len());
        prop_assert_ne!(xor(text, other_text), xor(&one, &other));
        // Neither's tag vouches for the other's text, for either message.
        let epoch = recipients.unwrap(0, &key_id(), first).unwrap();
        for mixed in [[text, other_tag].concat(), [other_text, tag].concat()] {
            let mixed = Sealed { ciphertext: mixed.into(), ..first.clone() };
            prop_assert_eq!(open(&epoch, &mixed, &about()), Err(OpenError::Ciphertext));
            prop_assert_eq!(open(&epoch, &mixed, &later), Err(OpenError::Ciphertext));
        }
        prop_assert_eq!(open(&epoch, first, &about()), Ok(one));
        prop_assert_eq!(open(&epoch, second, &later), Ok(other));
    }
}

proptest! {
    // The other implementation is slow where it is not optimized.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn what_another_implementation_wraps_opens(seed in any::<u64>()) {
        let recipients = Recipients::new(1);
        let mut sealed = seal(&mut recipients.epoch(seed), &about(), b"a content", true);
        let wrapped = wrapped_elsewhere(&recipients, &sealed, &secret(seed));
        prop_assert_ne!(&wrapped, &sealed.wrapped_keys[0].wrapped);
        sealed.wrapped_keys[0].wrapped = wrapped;
        let epoch = recipients.unwrap(0, &key_id(), &sealed).unwrap();
        prop_assert_eq!(open(&epoch, &sealed, &about()), Ok(b"a content".to_vec()));
    }

    #[test]
    fn what_is_wrapped_opens_in_another_implementation(seed in any::<u64>()) {
        let recipients = Recipients::new(3);
        let sealed = seal(&mut recipients.epoch(seed), &about(), b"a content", true);
        for (number, (key, _)) in recipients.0.iter().enumerate() {
            let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(key.seed().as_slice()).unwrap();
            let (enc, ciphertext) = sealed.wrapped_keys[number].wrapped.split_at(32);
            let enc = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(enc).unwrap();
            let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeR::Base, &private, &enc, &wrapping_info(&sealed, number), ciphertext, b"",
            );
            prop_assert_eq!(opened, Ok(secret(seed).to_vec()));
        }
    }
}

/// What another implementation wraps to the first recipient.
fn wrapped_elsewhere(recipients: &Recipients, sealed: &Sealed, secret: &[u8]) -> Bytes {
    let (_, recipient) = &recipients.0[0];
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(recipient.key.as_bytes()).unwrap();
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        &wrapping_info(sealed, 0),
        secret,
        b"",
        &mut Random(99),
    )
    .unwrap();
    [&enc.to_bytes()[..], &ciphertext].concat().into()
}

/// The secret of `Recipients::epoch`: what follows the id.
fn secret(seed: u64) -> [u8; 32] {
    let (mut random, mut id, mut secret) = (Random(seed), [0; 16], [0; 32]);
    random.fill(&mut id);
    random.fill(&mut secret);
    secret
}

/// HPKE's `info`, from the specification's words.
fn wrapping_info(sealed: &Sealed, number: usize) -> Vec<u8> {
    let wrapped = &sealed.wrapped_keys[number];
    let mut info = b"ransomeye.v1 epoch secret\0\x00\x01".to_vec();
    info.extend_from_slice(key_id().as_bytes());
    info.extend_from_slice(&sealed.epoch_id);
    info.extend_from_slice(&wrapped.key_version.to_be_bytes());
    info.extend_from_slice(wrapped.recipient.as_bytes());
    info
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let recipients = Recipients::new(2);
    let mut epoch = recipients.epoch(3);
    seal(&mut epoch, &about(), b"the first", true);
    let sealed = seal(&mut epoch, &about(), b"the second", true);
    let prefixed = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    let of_keys = sealed.wrapped_keys.iter();
    let listed: Vec<_> =
        of_keys.map(|key| [prefixed(&key.recipient), key.key_version.to_be_bytes().to_vec()].concat()).collect();
    let recipients = sha256(&listed.concat());

    // HKDF with 76 bytes, in three blocks.
    let hmac = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec();
    let prk = hmac(b"ransomeye.v1 epoch\0", &secret(3));
    let info = [&b"ransomeye.v1 sealed\0"[..], key_id().as_bytes(), &sealed.epoch_id, &recipients].concat();
    let mut blocks = vec![hmac(&prk, &[&info[..], &[1]].concat())];
    for number in 2..=3 {
        let block = hmac(&prk, &[&blocks[blocks.len() - 1][..], &info, &[number]].concat());
        blocks.push(block);
    }
    let keys = blocks.concat();
    assert_eq!(sealed.commitment, keys[44..76]);

    let about = about();
    let data = [
        &b"ransomeye.v1 sealed content\0\x01"[..],
        key_id().as_bytes(),
        &recipients,
        &7_u64.to_be_bytes(),
        &about.expires_at.to_be_bytes(),
        &prefixed(about.sender),
        &prefixed(about.subject),
        &prefixed(about.message_type),
        &prefixed(about.message_id),
    ]
    .concat();
    let mut nonce: [u8; 12] = keys[32..44].try_into().unwrap();
    nonce[11] ^= 1;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &keys[..32]).unwrap());
    let mut text = sealed.ciphertext.to_vec();
    let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(data), &mut text).unwrap();
    assert_eq!(opened, b"the second");
}

#[test]
fn everything_that_a_content_is_bound_to_matters() {
    let recipients = Recipients::new(1);
    let sealed = seal(&mut recipients.epoch(1), &about(), b"a content", true);
    let epoch = recipients.unwrap(0, &key_id(), &sealed).unwrap();
    assert_eq!(open(&epoch, &sealed, &about()), Ok(b"a content".to_vec()));
    let long = "x".repeat(65_536);
    for other in [
        About { part: Part::References, ..about() },
        About { sender: "spiffe://ransomeye.local/agent/agent-02", ..about() },
        About { subject: "ransomeye.events.alert.agent.agent-02", ..about() },
        About { message_type: "telemetry", ..about() },
        About { sequence: 8, ..about() },
        About { message_id: "0199f1a2-0000-7000-8000-000000000001", ..about() },
        About { expires_at: 0, ..about() },
        About { subject: &long, ..about() },
    ] {
        assert_eq!(open(&epoch, &sealed, &other), Err(OpenError::Ciphertext), "{other:?}");
    }
}

#[test]
fn a_secret_opens_for_the_sender_who_wrapped_it_alone() {
    let recipients = Recipients::new(1);
    let sealed = seal(&mut recipients.epoch(1), &about(), b"a content", true);
    let another = KeyId::of_bundle(b"another sender's bundle");
    assert_eq!(recipients.unwrap(0, &another, &sealed).err(), Some(OpenError::WrappedKey));
    assert!(recipients.unwrap(0, &key_id(), &sealed).is_ok());
}

#[test]
fn no_flipped_bit_goes_unnoticed_when_an_epoch_is_first_met() {
    let recipients = Recipients::new(1);
    let honest = seal(&mut recipients.epoch(1), &about(), b"a content", true);
    let refusal = |changed: &Sealed| recipients.unwrap(0, &key_id(), changed).err();
    assert_eq!(refusal(&honest), None);
    for bit in 0..8 * 16 {
        let changed = Sealed { epoch_id: flipped(&honest.epoch_id, bit), ..honest.clone() };
        assert_eq!(refusal(&changed), Some(OpenError::WrappedKey), "bit {bit} of the epoch's id");
    }
    for bit in 0..8 * 32 {
        let changed = Sealed { commitment: flipped(&honest.commitment, bit), ..honest.clone() };
        assert_eq!(refusal(&changed), Some(OpenError::Commitment), "bit {bit} of the commitment");
    }
    for bit in 0..8 * honest.wrapped_keys[0].wrapped.len() {
        let mut changed = honest.clone();
        changed.wrapped_keys[0].wrapped = flipped(&honest.wrapped_keys[0].wrapped, bit);
        assert_eq!(refusal(&changed), Some(OpenError::WrappedKey), "bit {bit} of the wrapped key");
    }
    for version in [2, 1 << 32] {
        let mut changed = honest.clone();
        changed.wrapped_keys[0].key_version = version;
        assert_eq!(refusal(&changed), Some(OpenError::WrappedKey), "version {version}");
    }
}

#[test]
fn no_flipped_bit_goes_unnoticed_in_an_epoch_that_is_known() {
    let recipients = Recipients::new(1);
    let mut epoch = recipients.epoch(1);
    let first = seal(&mut epoch, &about(), b"the first", true);
    let known = recipients.unwrap(0, &key_id(), &first).unwrap();
    for with_keys in [false, true] {
        let honest = seal(&mut epoch, &about(), b"a content", with_keys);
        assert_eq!(open(&known, &honest, &about()), Ok(b"a content".to_vec()));
        for bit in 0..8 * 16 {
            let changed = Sealed { epoch_id: flipped(&honest.epoch_id, bit), ..honest.clone() };
            assert_eq!(open(&known, &changed, &about()), Err(OpenError::OtherEpoch), "bit {bit} of the epoch's id");
        }
        for bit in 0..8 * 32 {
            let changed = Sealed { commitment: flipped(&honest.commitment, bit), ..honest.clone() };
            assert_eq!(open(&known, &changed, &about()), Err(OpenError::OtherEpoch), "bit {bit} of the commitment");
        }
        for bit in 0..8 * honest.ciphertext.len() {
            let changed = Sealed { ciphertext: flipped(&honest.ciphertext, bit), ..honest.clone() };
            assert_eq!(open(&known, &changed, &about()), Err(OpenError::Ciphertext), "bit {bit} of the ciphertext");
        }
        for bit in 0..32 {
            let changed = Sealed { counter: honest.counter ^ (1 << bit), ..honest.clone() };
            assert_eq!(open(&known, &changed, &about()), Err(OpenError::Ciphertext), "bit {bit} of the counter");
        }
    }
}

#[test]
fn a_truncated_ciphertext_does_not_open() {
    let recipients = Recipients::new(1);
    let sealed = seal(&mut recipients.epoch(1), &about(), b"a content", true);
    let epoch = recipients.unwrap(0, &key_id(), &sealed).unwrap();
    for len in 17..sealed.ciphertext.len() {
        let changed = Sealed { ciphertext: sealed.ciphertext.slice(..len), ..sealed.clone() };
        assert_eq!(open(&epoch, &changed, &about()), Err(OpenError::Ciphertext), "{len} bytes");
    }
}

#[test]
fn whoever_is_no_recipient_opens_nothing() {
    let recipients = Recipients::new(2);
    let sealed = seal(&mut recipients.epoch(1), &about(), b"a content", true);
    let stranger = SealingKey::from_seed(&[99; 32].into()).unwrap();
    viewed(&sealed, |view| {
        assert_eq!(view.wrapped_for("spiffe://ransomeye.local/core/core-999"), None);
        for wrapped in view.wrapped_keys() {
            let refused = OpenEpoch::unwrap(view, &key_id(), wrapped, &stranger);
            assert_eq!(refused.err(), Some(OpenError::WrappedKey));
        }
    });
}

#[test]
fn a_wrapped_secret_of_another_length_is_refused() {
    let recipients = Recipients::new(1);
    let mut sealed = seal(&mut recipients.epoch(1), &about(), b"a content", true);
    for len in [0, 31, 33, 64] {
        sealed.wrapped_keys[0].wrapped = wrapped_elsewhere(&recipients, &sealed, &vec![7; len]);
        assert_eq!(recipients.unwrap(0, &key_id(), &sealed).err(), Some(OpenError::WrappedKey), "{len} bytes");
    }
    // One of the right length is let in as far as the commitment, which is to another secret.
    sealed.wrapped_keys[0].wrapped = wrapped_elsewhere(&recipients, &sealed, &[7; 32]);
    assert_eq!(recipients.unwrap(0, &key_id(), &sealed).err(), Some(OpenError::Commitment));
}

#[test]
fn wrapped_keys_that_are_swapped_open_for_nobody() {
    let recipients = Recipients::new(2);
    let mut sealed = seal(&mut recipients.epoch(1), &about(), b"a content", true);
    let [one, other] = &mut sealed.wrapped_keys[..] else { panic!("two recipients") };
    core::mem::swap(&mut one.wrapped, &mut other.wrapped);
    for number in 0..2 {
        assert_eq!(recipients.unwrap(number, &key_id(), &sealed).err(), Some(OpenError::WrappedKey));
    }
}

#[test]
fn recipients_who_are_shown_different_secrets_refuse_them() {
    // The sender begins two epochs under one id and gives each recipient the secret of another one.
    let recipients = Recipients::new(2);
    let begin = |secret: u8| {
        let listed: Vec<_> = recipients.0.iter().map(|(_, recipient)| recipient.clone()).collect();
        let mut calls = 0;
        let fill = |bytes: &mut [u8]| {
            calls += 1;
            bytes.fill(if calls == 2 { secret } else { 7 });
            Ok(())
        };
        seal(&mut Epoch::new(key_id(), &listed, NOW, fill).unwrap(), &about(), b"a content", true)
    };
    let (honest, other) = (begin(1), begin(2));
    assert_eq!(honest.epoch_id, other.epoch_id);
    let mut mixed = honest.clone();
    mixed.wrapped_keys[1] = other.wrapped_keys[1].clone();
    assert_eq!(recipients.unwrap(1, &key_id(), &mixed).err(), Some(OpenError::Commitment));
    // With the other commitment it is the first recipient who refuses.
    mixed.commitment = other.commitment.clone();
    assert_eq!(recipients.unwrap(0, &key_id(), &mixed).err(), Some(OpenError::Commitment));
    assert!(recipients.unwrap(1, &key_id(), &mixed).is_ok());
    // And whoever knows the epoch already takes nothing of its twin.
    let known = recipients.unwrap(0, &key_id(), &honest).unwrap();
    assert_eq!(open(&known, &other, &about()), Err(OpenError::OtherEpoch));
}

#[test]
fn a_list_of_recipients_that_was_changed_is_refused() {
    let recipients = Recipients::new(3);
    let mut epoch = recipients.epoch(1);
    let honest = seal(&mut epoch, &about(), b"a content", true);
    let known = recipients.unwrap(0, &key_id(), &honest).unwrap();
    let mut shortened = honest.clone();
    shortened.wrapped_keys.pop();
    let mut renamed = honest.clone();
    renamed.wrapped_keys[2].recipient.push('x');
    let mut of_another_version = honest.clone();
    of_another_version.wrapped_keys[2].key_version += 1;
    for changed in [shortened, renamed, of_another_version] {
        assert_eq!(recipients.unwrap(0, &key_id(), &changed).err(), Some(OpenError::Commitment));
        assert_eq!(open(&known, &changed, &about()), Err(OpenError::OtherEpoch));
    }
    assert_eq!(open(&known, &honest, &about()), Ok(b"a content".to_vec()));
}

#[test]
fn an_epoch_is_not_met_by_a_message_without_its_wrapped_keys() {
    let recipients = Recipients::new(1);
    let mut epoch = recipients.epoch(1);
    let (with, without) = (seal(&mut epoch, &about(), b"1", true), seal(&mut epoch, &about(), b"2", false));
    let (key, _) = &recipients.0[0];
    let refused = viewed(&with, |of_another| {
        let wrapped = &of_another.wrapped_keys()[0];
        viewed(&without, |view| OpenEpoch::unwrap(view, &key_id(), wrapped, key).err())
    });
    assert_eq!(refused, Some(OpenError::WrappedKey));
}

#[test]
fn as_many_recipients_as_there_may_be_pass_the_scan() {
    let recipients = Recipients::new(256);
    let sealed = seal(&mut recipients.epoch(1), &about(), b"a content", true);
    let epoch = recipients.unwrap(255, &key_id(), &sealed).unwrap();
    assert_eq!(open(&epoch, &sealed, &about()), Ok(b"a content".to_vec()));
}

#[test]
fn the_order_in_which_recipients_are_given_is_no_matter() {
    let recipients = Recipients::new(3);
    let in_order = seal(&mut recipients.epoch(1), &about(), b"a content", true);
    let Recipients(mut listed) = recipients;
    listed.reverse();
    assert_eq!(seal(&mut Recipients(listed).epoch(1), &about(), b"a content", true), in_order);
}

#[test]
fn the_same_message_sealed_twice_by_epochs_of_one_secret_is_the_same() {
    let recipients = Recipients::new(1);
    let [one, other] = [(); 2].map(|()| seal(&mut recipients.epoch(1), &about(), b"a content", true));
    assert_eq!(one, other);
}

#[test]
fn debug_output_of_an_epoch_names_it_and_leaves_its_secrets_out() {
    let recipients = Recipients::new(1);
    let sealed = seal(&mut recipients.epoch(1), &about(), b"a content", true);
    let epoch = recipients.unwrap(0, &key_id(), &sealed).unwrap();
    let id: String = epoch.id().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(format!("{epoch:?}"), format!("OpenEpoch {{ id: {id} of {}, .. }}", key_id()));
}
