//! Every attack of the malicious broker, as a test of its own, named after what holds. What an attack does, and what proves
//! that it was refused, is in the module `attacks::broker` of this package.

use bus_tests::attacks::{self, Layer, broker};

/// Carries out the attack, and demands that the receiver refused it and that its positive control passed.
async fn refused(name: &str) {
    let outcome = attacks::find(name).expect("an attack of that name").run().await;
    assert!(outcome.refused && outcome.control, "{outcome:#?}");
    assert_eq!(outcome.layer, Layer::Receiver, "{outcome:#?}");
}

#[test]
fn every_attack_has_a_test_and_a_name_of_its_own() {
    let suite = include_str!("attacks.rs");
    for attack in broker::attacks() {
        let mentions = suite.matches(&format!("\"{}\").await", attack.name)).count();
        assert_eq!(mentions, 1, "`{}` has {mentions} tests", attack.name);
    }
    assert_eq!(broker::attacks().len(), suite.matches("#[tokio::test").count() - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_drops_shows_as_a_gap() {
    refused("a broker drops a message").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_delivers_twice_is_accepted_once() {
    refused("a broker delivers a message twice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_delays_is_refused_as_stale() {
    refused("a broker delays a message").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reordered_messages_are_accepted_once_each() {
    refused("a broker reorders messages and repeats them").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_behind_the_window_is_refused() {
    refused("a broker holds a message back until the window has passed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_the_future_is_refused() {
    refused("a broker delivers a message of the future").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_of_another_type_is_refused() {
    refused("a broker rewrites the subject to another type").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_of_another_sender_is_refused() {
    refused("a broker rewrites the subject to another sender").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_another_inbox_is_refused() {
    refused("a broker rewrites the subject and the destination to another inbox").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directed_message_reaches_nobody_else() {
    refused("a broker delivers a directed message to another component").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_the_receiver_takes_is_refused() {
    refused("a broker delivers an oversized message").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_outside_of_the_bus_is_refused() {
    refused("a broker delivers a message outside of the bus").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_denies_its_sender_is_refused() {
    refused("a broker lets components say what the policy denies them").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_any_bit_altered_is_refused() {
    refused("a broker alters the bytes of a message").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trailer_holds_for_its_own_message_alone() {
    refused("a broker splices trailers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_signature_is_refused() {
    refused("a broker strips trailers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_components_signature_is_no_substitute() {
    refused("a broker replaces a signature by another component's").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_fields_are_refused() {
    refused("a broker merges protobuf fields into a message").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_readings_are_refused_though_the_sender_signed_them() {
    refused("a component signs a message with two readings").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_accepted_whole_or_not_at_all() {
    refused("a broker truncates, reorders and splits a batch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_cannot_be_made_into_a_batch() {
    refused("a broker makes a message into a batch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_refuses_what_was_sent_before_it_subscribed() {
    refused("a broker replays to another process").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_receiver_refuses_what_was_sent_before() {
    refused("a broker replays after a restart of the receiver").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnected_receiver_remembers_what_it_received() {
    refused("a broker replays after a reconnect of the receiver").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_carried_out_once() {
    refused("a broker replays a command").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_receiver_does_not_carry_out_a_command_again() {
    refused("a broker replays a command after a restart of the receiver").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_answer_does_not_come_before_the_true_one() {
    refused("a broker replays an answer before the answer to a second request").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_answer_answers_no_second_request() {
    refused("a broker replays an answer in place of the answer to a second request").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_with_its_own_bundle_alone() {
    refused("a broker swaps and strips bundles").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_bundle_a_key_vouches_for_nothing() {
    refused("a broker withholds a bundle").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_does_not_hold_is_no_substitute() {
    refused("a broker answers a look-up with bundles that do not hold").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_bundle_is_no_substitute() {
    refused("a broker rolls back bundles to former keys").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_look_up_is_answered_nobody_can_guess() {
    refused("a component answers a look-up by way of the server").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_its_bundle_does_not_wait_behind_forgeries_that_name_its_key() {
    refused("a component names another's key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_registers_a_key_that_is_not_his() {
    refused("a component registers another's public key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_registers_a_key_in_anothers_name() {
    refused("a component registers a key in another's name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_is_refused() {
    refused("a component signs with an expired key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_its_keys() {
    refused("a component signs with a revoked certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_revocation_list_vouches_for_nobody() {
    refused("a broker withholds newer revocation lists").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_vouches_for_no_key() {
    refused("a stranger signs with a certificate of another CA").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_certificate_vouches_for_no_key() {
    refused("a broker signs with its own certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_no_responders_ends_a_request_without_an_answer() {
    refused("a broker says that nobody is there").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_private_reply_subject_carries_no_answer() {
    refused("a broker answers on the private reply subject").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_one_who_was_asked_answers() {
    refused("a component answers in place of the one who was asked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_acknowledges_and_drops_shows_as_a_gap() {
    refused("a broker acknowledges messages that it drops").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_bundle_is_not_needed() {
    refused("a broker acknowledges bundles that it drops").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_without_an_answer_ends() {
    refused("a broker does not answer a look-up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_keep_no_honest_sender_waiting() {
    refused("a broker floods a receiver with unknown keys").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_twin_of_a_bundle_vouches_for_nothing() {
    refused("a broker makes the twin of a bundle").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_is_read_by_nobody_on_its_way() {
    refused("a broker reads along").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_message_with_anything_changed_is_refused() {
    refused("a broker changes what is sealed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_wrapped_keys_an_epoch_stays_closed_until_they_come_again() {
    refused("a broker drops the wrapped keys").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_component_seals_under_other_keys() {
    refused("a broker waits for a nonce that is used again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_to_a_key_that_is_gone_is_refused_by_name() {
    refused("a broker delivers what was sealed to keys that are gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_seals_to_a_key_that_its_owner_has_not_signed() {
    refused("a broker makes up sealing keys").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_seals_to_a_key_out_of_its_time() {
    refused("a broker shows sealing keys out of their time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_chooses_between_two_keys_of_one_version() {
    refused("a broker shows two sealing keys of one version").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_to_seal_to_nothing_is_sent() {
    refused("a broker withholds a sealing key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_about_a_sealing_key_nothing_is_sent() {
    refused("a broker does not answer who asks for a sealing key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_goes_behind_no_sealing_key_that_it_has_seen() {
    refused("a broker rolls back a sealing key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_an_owner_whose_sealing_key_was_dropped_nothing_is_sent() {
    refused("a broker acknowledges sealing keys that it drops").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_its_sealing_keys() {
    refused("a broker keeps a sealing key in use under a revoked certificate").await;
}
