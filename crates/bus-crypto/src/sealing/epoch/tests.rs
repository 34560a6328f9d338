use super::*;
use alloc::format;
use alloc::vec;

use crate::sealing::Part;

const NOW: i64 = 1_790_000_000_000;

fn recipient(component: &str) -> Recipient {
    let key = SealingKey::from_seed(&Zeroizing::new([7; KEY_LEN])).unwrap();
    Recipient {
        principal: format!("spiffe://ransomeye.local/core/{component}").parse().unwrap(),
        version: 1,
        key: key.public_key().clone(),
    }
}

fn filled(bytes: &mut [u8]) -> Result<(), SealingFailed> {
    bytes.fill(7);
    Ok(())
}

fn epoch() -> Epoch {
    Epoch::new(KeyId::of_bundle(b"a bundle"), &[recipient("core-01")], NOW, filled).unwrap()
}

fn about() -> About<'static> {
    About {
        part: Part::Payload,
        sender: "spiffe://ransomeye.local/agent/agent-01",
        subject: "ransomeye.events.alert.agent.agent-01",
        message_type: "alert",
        sequence: 1,
        message_id: "0199f1a2-0000-7000-8000-000000000000",
        expires_at: 0,
    }
}

#[test]
fn an_epoch_ends_with_its_last_counter() {
    let mut epoch = epoch();
    epoch.counter = MAX_MESSAGES - 1;
    assert!(!epoch.is_over(NOW));
    let mut out = Vec::new();
    let len = epoch.sealed_len(1, true);
    epoch.seal(&about(), b"x", true, &mut out).unwrap();
    assert_eq!(out.len(), len);
    assert!(epoch.is_over(NOW));
    assert_eq!(epoch.seal(&about(), b"x", true, &mut out), Err(SealError::UsedUp));
    assert_eq!(out.len(), len);
}

#[test]
fn an_epoch_ends_after_an_hour_and_where_the_clock_went_back() {
    let epoch = epoch();
    assert!(!epoch.is_over(NOW));
    assert!(!epoch.is_over(NOW + MAX_AGE_MS - 1));
    assert!(epoch.is_over(NOW + MAX_AGE_MS));
    assert!(epoch.is_over(NOW - 1));
    assert!(epoch.is_over(i64::MIN));
}

#[test]
fn what_cannot_be_sealed_leaves_the_buffer_and_the_counter_alone() {
    let mut epoch = epoch();
    let long = "x".repeat(65_536);
    let mut out = vec![1, 2, 3];
    let too_long = About { subject: &long, ..about() };
    assert_eq!(epoch.seal(&too_long, b"x", false, &mut out), Err(SealError::NameTooLong));
    assert_eq!(epoch.seal(&about(), b"", false, &mut out), Err(SealError::Empty));
    assert_eq!((out, epoch.counter), (vec![1, 2, 3], 0));
}

#[test]
fn recipients_are_refused_whom_no_message_could_name() {
    let begin = |recipients: &[Recipient]| Epoch::new(KeyId::of_bundle(b""), recipients, NOW, filled).map(|_| ());
    let named = |count: usize| (0..count).map(|index| recipient(&format!("core-{index}"))).collect::<Vec<_>>();
    assert_eq!(begin(&[]), Err(SealError::NoRecipients));
    assert_eq!(begin(&named(MAX_RECIPIENTS)), Ok(()));
    assert_eq!(begin(&named(MAX_RECIPIENTS + 1)), Err(SealError::TooManyRecipients { count: MAX_RECIPIENTS + 1 }));
    let twice = [recipient("core-02"), recipient("core-01"), Recipient { version: 2, ..recipient("core-02") }];
    let named_twice = SealError::RepeatedRecipient { recipient: twice[0].principal.clone() };
    assert_eq!(begin(&twice), Err(named_twice));
    let no_version = Recipient { version: 0, ..recipient("core-01") };
    let refused = SealError::NoVersion { recipient: no_version.principal.clone() };
    assert_eq!(begin(&[no_version]), Err(refused));
}

#[test]
fn an_epoch_does_not_begin_without_random_bytes() {
    for working in 0..3 {
        let mut calls = 0;
        let fill = |bytes: &mut [u8]| {
            calls += 1;
            if calls > working { Err(SealingFailed) } else { filled(bytes) }
        };
        let begun = Epoch::new(KeyId::of_bundle(b""), &[recipient("core-01")], NOW, fill);
        assert_eq!(begun.map(|_| ()), Err(SealError::Failed(SealingFailed)), "after {working} calls");
    }
}

#[test]
fn debug_output_leaves_the_secrets_out() {
    let (epoch, key_id, id) = (epoch(), KeyId::of_bundle(b"a bundle"), "07".repeat(16));
    assert_eq!(format!("{epoch:?}"), format!("Epoch {{ id: {id} of {key_id}, counter: 0, began_unix_ms: {NOW}, .. }}"));
}
