//! A malicious broker: it has the broker's own key, and does with messages what it likes.
//!
//! * [`Broker`] is a proxy between clients and a real nats-server. Without hooks it is transparent.
//! * [`Message`] is what a hook is given, and [`Fate`] what it decides.
//! * [`attacks`] is the table of what it tries. Some of it a component with a good certificate helps with.
//! * [`without_an_attack`] sends many messages through a broker that lets all of them pass, and
//!   [`without_an_attack_sealed`] seals them.

mod alteration;
mod answers;
mod bundles;
mod delivery;
mod forgeries;
mod forwarding;
mod proxy;
mod reasons;
mod records;
mod replays;
mod sealing;
mod stage;
mod wire;

pub use forwarding::{Run, without_an_attack, without_an_attack_sealed};
pub use proxy::{Broker, Fate};
pub use wire::{Direction, Message};

use super::{Attack, table};

/// Every attack of the malicious broker.
#[must_use]
pub fn attacks() -> &'static [Attack] {
    static ATTACKS: [Attack; 62] = table![
        // It does not deliver once, in time, and where a message belongs.
        "a broker drops a message" => delivery::drops,
        "a broker delivers a message twice" => delivery::delivers_twice,
        "a broker delays a message" => delivery::delays,
        "a broker reorders messages and repeats them" => delivery::reorders,
        "a broker holds a message back until the window has passed" => delivery::holds_back,
        "a broker delivers a message of the future" => delivery::postdates,
        "a broker rewrites the subject to another type" => delivery::rewrites_the_type,
        "a broker rewrites the subject to another sender" => delivery::rewrites_the_sender,
        "a broker rewrites the subject and the destination to another inbox" => delivery::rewrites_the_inbox,
        "a broker delivers a directed message to another component" => delivery::misdelivers,
        "a broker delivers an oversized message" => delivery::oversize,
        "a broker delivers a message outside of the bus" => delivery::outside_of_the_bus,
        "a broker lets components say what the policy denies them" => delivery::what_the_policy_denies,
        // It changes what a message says, or who vouches for it.
        "a broker alters the bytes of a message" => alteration::alters_bytes,
        "a broker splices trailers" => alteration::splices_trailers,
        "a broker strips trailers" => alteration::strips_trailers,
        "a broker replaces a signature by another component's" => alteration::replaces_signatures,
        "a broker merges protobuf fields into a message" => alteration::merges_fields,
        "a component signs a message with two readings" => alteration::signs_two_readings,
        "a broker truncates, reorders and splits a batch" => alteration::truncates_batches,
        "a broker makes a message into a batch" => alteration::wraps_in_a_batch,
        // It delivers again what was delivered before.
        "a broker replays to another process" => replays::to_another_process,
        "a broker replays after a restart of the receiver" => replays::after_a_restart,
        "a broker replays after a reconnect of the receiver" => replays::after_a_reconnect,
        "a broker replays a command" => replays::a_command_twice,
        "a broker replays a command after a restart of the receiver" => replays::a_command_after_a_restart,
        "a broker replays an answer before the answer to a second request" => replays::an_answer_to_another_request,
        "a broker replays an answer in place of the answer to a second request" => replays::an_answer_instead_of_another,
        // It meddles with key bundles.
        "a broker swaps and strips bundles" => alteration::swaps_bundles,
        "a broker withholds a bundle" => bundles::withholds,
        "a broker does not answer a look-up" => bundles::ignores_look_ups,
        "a broker floods a receiver with unknown keys" => bundles::floods_with_unknown_keys,
        "a broker answers a look-up with bundles that do not hold" => bundles::rolls_back,
        "a broker rolls back bundles to former keys" => bundles::rolls_back_to_former_keys,
        "a component answers a look-up by way of the server" => bundles::reflected_answers,
        "a component names another's key" => bundles::anothers_key_id,
        "a component registers another's public key" => bundles::anothers_public_key,
        "a broker makes the twin of a bundle" => bundles::twin,
        "a component registers a key in another's name" => bundles::anothers_name,
        "a component signs with an expired key" => bundles::expired,
        "a component signs with a revoked certificate" => bundles::revoked,
        "a broker withholds newer revocation lists" => bundles::stale_list,
        "a stranger signs with a certificate of another CA" => bundles::foreign_authority,
        "a broker signs with its own certificate" => bundles::brokers_certificate,
        // It has what is sealed before it, and the keys that others seal to.
        "a broker reads along" => sealing::reads_along,
        "a broker changes what is sealed" => sealing::changes_what_is_sealed,
        "a broker drops the wrapped keys" => sealing::drops_wrapped_keys,
        "a broker waits for a nonce that is used again" => sealing::waits_for_a_repeated_nonce,
        "a broker delivers what was sealed to keys that are gone" => sealing::delivers_to_former_keys,
        "a broker makes up sealing keys" => records::made_up,
        "a broker shows sealing keys out of their time" => records::times,
        "a broker shows two sealing keys of one version" => records::conflict,
        "a broker withholds a sealing key" => records::withholds,
        "a broker does not answer who asks for a sealing key" => records::ignores_look_ups,
        "a broker rolls back a sealing key" => records::rolls_back,
        "a broker keeps a sealing key in use under a revoked certificate" => records::revoked,
        "a broker acknowledges sealing keys that it drops" => records::acknowledgements,
        // It answers itself.
        "a broker says that nobody is there" => answers::no_responders,
        "a broker answers on the private reply subject" => answers::an_answer_of_its_own,
        "a component answers in place of the one who was asked" => answers::another_component_answers,
        "a broker acknowledges messages that it drops" => answers::publish_acknowledgements,
        "a broker acknowledges bundles that it drops" => answers::key_acknowledgements,
    ];
    &ATTACKS
}
