//! What a compromised component, a rogue server and a stranger on the network try, and how each attempt is refused.
//!
//! Attacks are made with async-nats and with sockets, never through the product's own client; that is used only where
//! the one attacked has to refuse. What an attacker says is signed with a good key of its own, unless that is the attack. Each attack has a positive control: the same tool, doing what is allowed, succeeds.
//! A refusal counts only with [`Evidence`]: what the server, its log, TLS or the receiver said. Silence proves nothing.
//!
//! [`all`] is the table of attacks. The suite runs each as a test, the `bus-attacks` program runs them one after another.

pub mod broker;
mod certificates;
pub(crate) mod craft;
mod downgrade;
mod evidence;
mod frames;
mod impersonation;
mod limits;
mod permissions;
pub(crate) mod raw;
mod receiver;
mod reflection;
mod removal;
mod scene;
mod sealing;
pub(crate) mod sender;

use std::pin::Pin;

use serde::Serialize;

pub use evidence::{Evidence, Layer};
pub use impersonation::as_victim;

/// What came of one attack.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was tried.
    pub name: &'static str,
    /// What refused it, as the evidence tells.
    pub layer: Layer,
    /// Whether it was refused, and nothing leaked.
    pub refused: bool,
    /// Whether the same tool, doing what is allowed, succeeded.
    pub control: bool,
    /// What refused it, in its own words; what went wrong, if it was not refused or the control failed.
    pub evidence: String,
}

/// What an attack found out: why it was refused, and whether its control passed.
#[derive(Debug)]
pub(crate) struct Trial {
    refusal: anyhow::Result<Evidence>,
    control: anyhow::Result<()>,
}

type Running = Pin<Box<dyn Future<Output = anyhow::Result<Trial>> + Send>>;

/// One attack of the table.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// What is tried.
    pub name: &'static str,
    start: fn() -> Running,
}

impl Attack {
    /// Carries it out, in a deployment of its own.
    pub async fn run(&self) -> Outcome {
        let failed = |problem: String| Outcome {
            name: self.name,
            layer: Layer::None,
            refused: false,
            control: false,
            evidence: problem,
        };
        // In a task of its own, so that a panic is an outcome like any other failure.
        match tokio::spawn((self.start)()).await {
            Ok(Ok(trial)) => trial.judge(self.name),
            Ok(Err(error)) => failed(format!("not carried out: {error:#}")),
            Err(error) => failed(format!("not carried out: {error}")),
        }
    }
}

impl Trial {
    fn judge(self, name: &'static str) -> Outcome {
        let (layer, mut evidence) = match &self.refusal {
            Ok(evidence) => (evidence.layer(), evidence.to_string()),
            Err(error) => (Layer::None, format!("not refused: {error:#}")),
        };
        if let Err(error) = &self.control {
            evidence = format!("{evidence}; the control failed: {error:#}");
        }
        Outcome { name, layer, refused: layer != Layer::None, control: self.control.is_ok(), evidence }
    }
}

/// The attack of this name.
#[must_use]
pub fn find(name: &str) -> Option<Attack> {
    all().iter().chain(broker::attacks()).find(|attack| attack.name == name).copied()
}

macro_rules! table {
    ($($name:literal => $run:path,)*) => {
        [$(Attack { name: $name, start: || Box::pin($run()) }),*]
    };
}
use table;

/// Every attack.
#[must_use]
pub fn all() -> &'static [Attack] {
    static ALL: [Attack; 68] = table![
        // A compromised component: a good certificate, and no library of ours.
        "an agent publishes a command" => permissions::publish_a_command,
        "an agent publishes as another component" => permissions::publish_as_another,
        "an agent subscribes to another's inbox" => permissions::subscribe_to_anothers_inbox,
        "an agent joins a queue group on another's inbox" => permissions::join_a_queue_group_on_anothers_inbox,
        "an agent subscribes to another's _INBOX" => permissions::subscribe_to_anothers_replies,
        "an agent subscribes to everything" => permissions::subscribe_to_everything,
        "an agent publishes under _INBOX" => permissions::publish_under_inbox,
        "an agent uses $JS.API" => permissions::use_jetstream_api,
        "an agent uses $SYS" => permissions::use_system_subjects,
        "an agent claims another user's name" => permissions::claim_another_user,
        "an agent sends an oversized message" => limits::oversized_message,
        "an agent opens too many subscriptions" => limits::too_many_subscriptions,
        "an agent sends malformed headers" => frames::malformed_headers,
        "an agent sends a malformed reply subject" => frames::malformed_replies,
        "an agent sends an unsigned message" => receiver::unsigned,
        "an agent sends undecodable bytes" => receiver::undecodable_bytes,
        "an agent sends an envelope of another source" => receiver::another_source,
        "an agent sends a command as telemetry" => receiver::command_as_telemetry,
        "an agent sends an old message" => receiver::old_message,
        "an agent sends an expired message" => receiver::expired_message,
        "an agent sends a message that is not counted" => receiver::uncounted_message,
        "an agent sends absurd numbers" => receiver::absurd_numbers,
        "an agent sends an event with a destination" => receiver::event_with_a_destination,
        "an agent sends impossible values" => receiver::impossible_values,
        "an agent signs with a key whose time for signing is over" => receiver::spent_key,
        "an agent signs with too many keys at a time" => receiver::too_many_keys,
        "an agent sends a batch of 257 members" => receiver::oversize_batch,
        "an agent sends a batch of mixed types" => receiver::mixed_batch,
        "an agent sends a batch of another type" => receiver::batch_of_another_type,
        "an agent sends a batch with an expired member" => receiver::expired_member,
        "an agent sends a batch with an impossible member" => receiver::impossible_member,
        "an agent has the server publish in another's name" => reflection::through_the_keys_stream,
        // What a compromised component seals, and what it says about it.
        "an agent seals to another key under the receiver's name" => sealing::another_key,
        "an agent seals to everybody but the receiver" => sealing::others_only,
        "an agent swaps wrapped keys" => sealing::swapped_keys,
        "an agent seals to too many" => sealing::too_many_recipients,
        "an agent seals to recipients out of order" => sealing::unordered_recipients,
        "an agent shows each recipient something else" => sealing::two_plaintexts,
        "an agent seals with one value and signs another" => sealing::altered_data,
        "an agent changes the recipients of what is sealed" => sealing::altered_recipients,
        "an agent seals references as something else" => sealing::references,
        "an agent changes what names an epoch" => sealing::altered_epoch,
        "an agent does not seal what must be sealed" => sealing::not_sealed,
        "an agent seals a message of another type" => sealing::type_inside,
        "an agent nests forms" => sealing::nested,
        "an agent sends decompression bombs" => sealing::bombs,
        "an agent seals to keys that are gone" => sealing::gone_version,
        "an agent sends again what was sealed before" => sealing::copied_sealed,
        "an agent uses the wrapped keys of others" => sealing::copied_keys,
        "an agent begins a second epoch of one name" => sealing::second_epoch,
        "an agent begins epochs without end" => sealing::epochs_without_end,
        "an agent is restored from a snapshot" => sealing::fork,
        "an agent publishes a sealing key as another" => sealing::publish_as_another,
        "an agent fills the stream of sealing keys" => sealing::filled_stream,
        // A stranger, or a component that is one no longer.
        "a client without a certificate" => certificates::no_certificate,
        "a client certificate of another CA" => certificates::another_ca,
        "an expired client certificate" => certificates::expired,
        "a client certificate of another trust domain" => certificates::another_trust_domain,
        "a removed component stays connected" => removal::stays_connected,
        "a removed component reconnects" => removal::reconnects,
        "a client speaks TLS 1.2" => downgrade::client_speaks_tls12,
        "a client speaks plaintext" => downgrade::client_speaks_plaintext,
        // A rogue server, against a client of ours.
        "an agent's certificate impersonates the server" => impersonation::agents_certificate,
        "a server certificate of another CA" => impersonation::another_ca,
        "a server certificate of a CA that the system trusts" => impersonation::ca_that_the_system_trusts,
        "a server certificate of another host" => impersonation::another_host,
        "a server speaks TLS 1.2" => downgrade::server_speaks_tls12,
        "a server speaks plaintext" => downgrade::server_speaks_plaintext,
    ];
    &ALL
}
