//! What holds for every policy: properties over random rules, with models that share no code with the crate.
#![allow(clippy::unwrap_used, reason = "test code")]

mod agreement;
mod broker;
mod decision;
mod deliveries;
mod forms;
mod hostile_names;
mod spec;
