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
    refused_by(Layer::Receiver, "an agent sends an old message again").await;
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
