//! One access policy for senders, broker and receivers of the Ransomeye message bus.
//!
//! The same [`Policy`] speaks at three places, so that a component that does not use our library gains nothing by it:
//!
//! 1. the **sender** calls [`Policy::authorize`] before anything is sent, and can only send what its [`Permit`] says;
//! 2. the **broker** enforces the [`Permissions`] that [`Policy::permissions`] renders for each component;
//! 3. the **receiver** calls [`Policy::authorize`] again, for the sender that the broker or a signature attests.
//!
//! What no rule allows is denied, a deny wins over every allow, and the order of the rules does not matter.
//!
//! ```
//! use bus_acl::{Action, Policy, Why};
//! use bus_proto::{Destination, MessageType, Principal, SubjectRoot};
//!
//! let policy = Policy::default();
//! let agent: Principal = "spiffe://ransomeye.local/agent/agent-01".parse()?;
//!
//! let permit = policy.authorize(&agent, Action::Publish, &MessageType::Telemetry, &Destination::Events)?;
//! assert_eq!(permit.subject(&SubjectRoot::default()), "ransomeye.events.telemetry.agent.agent-01");
//!
//! let core = Destination::Inbox("core/core-01".parse()?);
//! let denied = policy.authorize(&agent, Action::Publish, &MessageType::Command, &core).unwrap_err();
//! assert_eq!(denied.why(), Why::NoRule);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Map
//!
//! * [`Rule`] and its parts [`Who`], [`Right`], [`Types`] and [`Inboxes`]: what a policy is made of.
//! * [`Policy`]: the rules together; [`Permit`] and [`Denied`]: what it decides about a [`Request`].
//! * [`FormRule`]: how messages travel, which is a policy's other part; [`Form`]: what the rules say together.
//! * [`DeliveryRule`] and [`Durable`]: which messages are kept until they were handled, and by whom; [`Delivery`]: what the
//!   rules say together; [`Kept`]: what streams keep.
//! * [`Explanation`]: which rules matched a request and which one decided, for people.
//! * [`Permissions`]: the policy as NATS subjects, for one component.
//! * [`can_publish`]: requirement A10 as a function of two texts, a view of the default policy.
//!
//! This crate is pure: no IO, no clock, no randomness, no async. It does not authenticate anybody: the principal that it
//! judges is what `bus-tls` or a signature has proven.
//!
//! # Features
//!
//! * `toml`: policies from TOML files, with errors that name line and column. Without it the crate is `no_std`.
#![cfg_attr(not(feature = "toml"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod decision;
mod default_policy;
mod delivery;
mod durable;
mod explain;
mod form;
mod kept;
mod permissions;
mod policy;
mod rule;
#[cfg(feature = "toml")]
mod toml;

pub use decision::{Action, Denied, Permit, Request, Why};
pub use default_policy::can_publish;
pub use delivery::{Class, Delivery, DeliveryError, DeliveryRule, MAX_LIFETIME_MS, MIN_LIFETIME_MS};
pub use durable::{Durable, Source};
pub use explain::{Explanation, MatchedRule, Warning};
pub use form::{Destinations, Form, FormRule, MAX_RECIPIENTS, Sealing};
pub use kept::Kept;
pub use permissions::Permissions;
pub use policy::Policy;
pub use rule::{Effect, Inboxes, Right, Rule, Types, Who};
#[cfg(feature = "toml")]
pub use toml::{MAX_DELIVERIES, MAX_DURABLES, MAX_FORMS, MAX_POLICY_LEN, MAX_RULES, PolicyError, Position};

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
