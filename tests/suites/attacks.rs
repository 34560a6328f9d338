//! Every attack, as a test of its own, named after what holds. What an attack does, and what proves that it was refused,
//! is in the `attacks` module of this package.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use bus_tests::attacks::{self, Layer};

/// Carries out the attack, and demands that this layer refused it and that its positive control passed.
async fn refused_by(layer: Layer, name: &str) {
    let outcome = attacks::find(name).expect("an attack of that name").run().await;
    assert!(outcome.refused && outcome.control, "{outcome:#?}");
    assert_eq!(outcome.layer, layer, "{outcome:#?}");
}

#[test]
fn every_attack_has_a_test_and_a_name_of_its_own() {
    let suite = include_str!("attacks.rs");
    for attack in attacks::all() {
        let mentions = suite.matches(&format!("\"{}\").await", attack.name)).count();
        assert_eq!(mentions, 1, "`{}` has {mentions} tests", attack.name);
    }
    assert_eq!(attacks::all().len(), suite.matches("#[tokio::test").count() - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_publish_a_command() {
    refused_by(Layer::BrokerPermissions, "an agent publishes a command").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_publish_as_another_component() {
    refused_by(Layer::BrokerPermissions, "an agent publishes as another component").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_subscribe_to_anothers_inbox() {
    refused_by(Layer::BrokerPermissions, "an agent subscribes to another's inbox").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_join_a_queue_group_on_anothers_inbox() {
    refused_by(Layer::BrokerPermissions, "an agent joins a queue group on another's inbox").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_subscribe_to_anothers_replies() {
    refused_by(Layer::BrokerPermissions, "an agent subscribes to another's _INBOX").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_subscribe_to_everything() {
    refused_by(Layer::BrokerPermissions, "an agent subscribes to everything").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_publish_under_inbox() {
    refused_by(Layer::BrokerPermissions, "an agent publishes under _INBOX").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_use_the_jetstream_api() {
    refused_by(Layer::BrokerPermissions, "an agent uses $JS.API").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_use_system_subjects() {
    refused_by(Layer::BrokerPermissions, "an agent uses $SYS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_claim_another_users_name() {
    refused_by(Layer::BrokerPermissions, "an agent claims another user's name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_message_is_refused() {
    refused_by(Layer::BrokerLimits, "an agent sends an oversized message").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_subscriptions_are_refused() {
    refused_by(Layer::BrokerLimits, "an agent opens too many subscriptions").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_headers_leave_the_connection_of_a_subscriber_alone() {
    refused_by(Layer::Receiver, "an agent sends malformed headers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_reply_subject_leaves_the_connection_of_a_subscriber_alone() {
    refused_by(Layer::Receiver, "an agent sends a malformed reply subject").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_message_is_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent sends an unsigned message").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_bytes_are_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent sends undecodable bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_of_another_source_is_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent sends an envelope of another source").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sent_as_telemetry_is_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent sends a command as telemetry").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_message_is_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent sends an old message").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_message_is_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent sends an expired message").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_counted_is_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent sends a message that is not counted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_numbers_overflow_nothing() {
    refused_by(Layer::Receiver, "an agent sends absurd numbers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_with_a_destination_is_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent sends an event with a destination").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_values_are_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent sends impossible values").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_no_longer_signs_is_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent signs with a key whose time for signing is over").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_at_a_time_than_are_kept_apart_are_rejected() {
    refused_by(Layer::Receiver, "an agent signs with too many keys at a time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_257_members_is_rejected_and_the_subscriber_goes_on() {
    refused_by(Layer::Receiver, "an agent sends a batch of 257 members").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_mixed_types_is_rejected_whole() {
    refused_by(Layer::Receiver, "an agent sends a batch of mixed types").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_another_type_than_its_subject_is_rejected_whole() {
    refused_by(Layer::Receiver, "an agent sends a batch of another type").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_member_of_a_batch_is_dropped_alone() {
    refused_by(Layer::Receiver, "an agent sends a batch with an expired member").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_member_of_a_batch_is_dropped_alone() {
    refused_by(Layer::Receiver, "an agent sends a batch with an impossible member").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_publishes_in_anothers_name_is_rejected() {
    refused_by(Layer::Receiver, "an agent has the server publish in another's name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_to_another_key_is_rejected_whosever_name_it_bears() {
    refused_by(Layer::Receiver, "an agent seals to another key under the receiver's name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_to_others_stays_closed() {
    refused_by(Layer::Receiver, "an agent seals to everybody but the receiver").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_key_is_good_for_its_own_recipient_alone() {
    refused_by(Layer::Receiver, "an agent swaps wrapped keys").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_recipients_than_there_may_be_are_rejected() {
    refused_by(Layer::Receiver, "an agent seals to too many").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_stand_in_order_and_once_each() {
    refused_by(Layer::Receiver, "an agent seals to recipients out of order").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_a_message_reads_what_every_recipient_reads() {
    refused_by(Layer::Receiver, "an agent shows each recipient something else").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_opens_as_what_it_was_sealed_for_alone() {
    refused_by(Layer::Receiver, "an agent seals with one value and signs another").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipients_are_those_whom_it_was_sealed_to() {
    refused_by(Layer::Receiver, "an agent changes the recipients of what is sealed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn references_are_sealed_apart_and_for_their_own_message() {
    refused_by(Layer::Receiver, "an agent seals references as something else").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_goes_by_what_it_was_made_with() {
    refused_by(Layer::Receiver, "an agent changes what names an epoch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_wants_sealed_is_rejected_unsealed() {
    refused_by(Layer::Receiver, "an agent does not seal what must be sealed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_inside_is_of_the_type_that_the_subject_names() {
    refused_by(Layer::Receiver, "an agent seals a message of another type").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_do_not_nest() {
    refused_by(Layer::Receiver, "an agent nests forms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_decompresses_to_more_than_it_says_is_rejected() {
    refused_by(Layer::Receiver, "an agent sends decompression bombs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_to_a_key_that_is_gone_is_rejected_with_its_version() {
    refused_by(Layer::Receiver, "an agent seals to keys that are gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sealed_for_one_message_opens_in_no_other() {
    refused_by(Layer::Receiver, "an agent sends again what was sealed before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_belongs_to_one_signing_key() {
    refused_by(Layer::Receiver, "an agent uses the wrapped keys of others").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_known_keeps_its_keys_and_recipients() {
    refused_by(Layer::Receiver, "an agent begins a second epoch of one name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_without_end_take_bounded_room_and_keep_nobody_waiting() {
    refused_by(Layer::Receiver, "an agent begins epochs without end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_and_its_twin_tell_nothing_by_what_they_seal() {
    refused_by(Layer::Receiver, "an agent is restored from a snapshot").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_publishes_a_sealing_key_as_another() {
    refused_by(Layer::BrokerPermissions, "an agent publishes a sealing key as another").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fills_the_stream_of_sealing_keys_pushes_out_his_own() {
    refused_by(Layer::Receiver, "an agent fills the stream of sealing keys").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_certificate_is_refused() {
    refused_by(Layer::BrokerTls, "a client without a certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_another_ca_is_refused() {
    refused_by(Layer::BrokerTls, "a client certificate of another CA").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_client_certificate_is_refused() {
    refused_by(Layer::BrokerTls, "an expired client certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_another_trust_domain_is_refused() {
    refused_by(Layer::BrokerAuthentication, "a client certificate of another trust domain").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_component_is_disconnected() {
    refused_by(Layer::BrokerAuthentication, "a removed component stays connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_component_cannot_reconnect() {
    refused_by(Layer::BrokerAuthentication, "a removed component reconnects").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_tls12_is_refused() {
    refused_by(Layer::BrokerTls, "a client speaks TLS 1.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_plaintext_is_refused() {
    refused_by(Layer::BrokerTls, "a client speaks plaintext").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_certificate_cannot_impersonate_the_server() {
    refused_by(Layer::ClientTls, "an agent's certificate impersonates the server").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_certificate_of_another_ca_is_refused() {
    refused_by(Layer::ClientTls, "a server certificate of another CA").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_certificate_of_a_ca_that_the_system_trusts_is_refused() {
    refused_by(Layer::ClientTls, "a server certificate of a CA that the system trusts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_certificate_of_another_host_is_refused() {
    refused_by(Layer::ClientTls, "a server certificate of another host").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_tls12_is_refused() {
    refused_by(Layer::ClientTls, "a server speaks TLS 1.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_plaintext_is_refused() {
    refused_by(Layer::ClientTls, "a server speaks plaintext").await;
}
