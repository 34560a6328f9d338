//! The way in: from the broker's bytes to a message whose sender is proven.

mod gate;
mod intake;
mod keyring;
mod lookup;
mod open;
mod parked;
mod rejected;
mod routes;
mod standing;
mod verified;

pub(crate) use gate::Gate;
pub use intake::Gap;
pub(crate) use intake::{Intake, Refused};
pub(crate) use keyring::KeyRing;
pub(crate) use lookup::{AskFor, LookUps};
pub use lookup::{PublishedKey, PublishedKeys};
pub use rejected::Rejected;
pub(crate) use standing::Standing;
pub use verified::{Evidence, Verified};
