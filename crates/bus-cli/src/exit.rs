//! How the program ends: its exit codes, and which error leads to which.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::process::ExitCode;

use bus_acl::PolicyError;
use bus_client::{
    CloseReason, ConnectError, KeysError, NoSealingKey, ProvisionError, PublishError, RequestError, SealingKeysError,
    SubscribeError,
};
use bus_tls::TlsError;
use bus_tls::pki::PkiError;

use crate::logging;

/// The exit codes of `bus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did what it was asked for.
    Done = 0,
    /// It did not work.
    Failed = 1,
    /// The command line, the environment or `bus.toml` is wrong.
    Usage = 2,
    /// The policy or the broker denies it.
    Denied = 3,
    /// A certificate, a key or the authority is wrong.
    Credentials = 4,
    /// No server, or no component, answers.
    Unreachable = 5,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

/// An error that this program found itself, with the exit code that it leads to.
#[derive(Debug)]
pub(crate) struct Failure {
    outcome: Outcome,
    message: String,
}

impl Failure {
    /// What the user asked for makes no sense, and how to ask.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self { outcome: Outcome::Usage, message: message.into() }.into()
    }

    /// It cannot be done.
    pub(crate) fn failed(message: impl Into<String>) -> anyhow::Error {
        Self { outcome: Outcome::Failed, message: message.into() }.into()
    }

    /// There are no usable credentials.
    pub(crate) fn credentials(message: impl Into<String>) -> anyhow::Error {
        Self { outcome: Outcome::Credentials, message: message.into() }.into()
    }

    /// The connection closed for good.
    pub(crate) fn closed(reason: &CloseReason) -> anyhow::Error {
        Self { outcome: of_close(reason), message: format!("the connection is closed: {reason}") }.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Failure {}

/// Says on stderr what went wrong, and gives the exit code. A reader of stdout that has gone is no error.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return Outcome::Done.into();
    }
    let outcome = classify(error);
    logging::fatal(&format!("{error:#}"), outcome as u8);
    outcome.into()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn classify(error: &anyhow::Error) -> Outcome {
    error.chain().find_map(of).unwrap_or(Outcome::Failed)
}

fn of(error: &(dyn StdError + 'static)) -> Option<Outcome> {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return Some(failure.outcome);
    }
    if let Some(error) = error.downcast_ref::<ConnectError>() {
        return Some(of_connect(error));
    }
    if let Some(error) = error.downcast_ref::<PublishError>() {
        return Some(of_publish(error));
    }
    if let Some(error) = error.downcast_ref::<SubscribeError>() {
        return Some(of_subscribe(error));
    }
    if let Some(error) = error.downcast_ref::<RequestError>() {
        return Some(of_request(error));
    }
    if let Some(error) = error.downcast_ref::<ProvisionError>() {
        return Some(of_provision(error));
    }
    if let Some(KeysError::TimedOut { .. }) = error.downcast_ref() {
        return Some(Outcome::Unreachable);
    }
    if let Some(error) = error.downcast_ref::<SealingKeysError>() {
        return Some(of_sealing_keys(error));
    }
    if let Some(error) = error.downcast_ref::<PkiError>() {
        return Some(of_pki(error));
    }
    if error.is::<TlsError>() {
        return Some(Outcome::Credentials);
    }
    error.is::<PolicyError>().then_some(Outcome::Usage)
}

fn of_connect(error: &ConnectError) -> Outcome {
    match error {
        ConnectError::Address { .. } => Outcome::Usage,
        ConnectError::Handshake { .. } => Outcome::Credentials,
        ConnectError::Refused { .. } | ConnectError::ProbeDenied { .. } => Outcome::Denied,
        ConnectError::Unreachable { .. } | ConnectError::TimedOut { .. } => Outcome::Unreachable,
        _ => Outcome::Failed,
    }
}

fn of_publish(error: &PublishError) -> Outcome {
    match error {
        PublishError::Denied(_) | PublishError::BrokerDenied { .. } => Outcome::Denied,
        PublishError::Invalid(_) => Outcome::Usage,
        PublishError::TimedOut { .. } | PublishError::Disconnected { .. } => Outcome::Unreachable,
        // Who never came is not there, as who has gone is not.
        PublishError::NoSealingKey(NoSealingKey::Unknown { .. } | NoSealingKey::TimedOut { .. }) => {
            Outcome::Unreachable
        }
        PublishError::Closed(reason) => of_close(reason),
        _ => Outcome::Failed,
    }
}

fn of_subscribe(error: &SubscribeError) -> Outcome {
    match error {
        SubscribeError::Denied(_) | SubscribeError::BrokerDenied { .. } => Outcome::Denied,
        SubscribeError::TimedOut { .. } | SubscribeError::Disconnected { .. } => Outcome::Unreachable,
        SubscribeError::Closed(reason) => of_close(reason),
        _ => Outcome::Failed,
    }
}

fn of_request(error: &RequestError) -> Outcome {
    match error {
        RequestError::Publish(error) => of_publish(error),
        RequestError::Subscribe(error) => of_subscribe(error),
        RequestError::NoResponders { .. } | RequestError::TimedOut { .. } => Outcome::Unreachable,
        _ => Outcome::Failed,
    }
}

fn of_provision(error: &ProvisionError) -> Outcome {
    match error {
        ProvisionError::Option { .. } => Outcome::Usage,
        ProvisionError::NotPermitted { .. } => Outcome::Denied,
        ProvisionError::TimedOut { .. } => Outcome::Unreachable,
        ProvisionError::Connection(error) => of_publish(error),
        _ => Outcome::Failed,
    }
}

fn of_pki(error: &PkiError) -> Outcome {
    match error {
        PkiError::BadServerName { .. }
        | PkiError::BadValidity
        | PkiError::OutlivesAuthority { .. }
        | PkiError::ReservedRole { .. } => Outcome::Usage,
        PkiError::AlreadyExists { .. }
        | PkiError::Io { .. }
        | PkiError::UnknownSerial { .. }
        | PkiError::UnknownPrincipal { .. } => Outcome::Failed,
        _ => Outcome::Credentials,
    }
}

fn of_sealing_keys(error: &SealingKeysError) -> Outcome {
    match error {
        SealingKeysError::EmptyPassphrase => Outcome::Usage,
        SealingKeysError::Exposed { .. }
        | SealingKeysError::Damaged { .. }
        | SealingKeysError::Unsupported { .. }
        | SealingKeysError::OtherOwner { .. }
        | SealingKeysError::PassphraseNeeded { .. }
        | SealingKeysError::WrongPassphrase { .. }
        | SealingKeysError::Passphrase { .. }
        | SealingKeysError::NotAnExport { .. }
        | SealingKeysError::Conflict { .. } => Outcome::Credentials,
        _ => Outcome::Failed,
    }
}

fn of_close(reason: &CloseReason) -> Outcome {
    match reason {
        CloseReason::Refused => Outcome::Denied,
        _ => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_of_errors_has_its_exit_code() {
        let wrapped = |error: anyhow::Error| classify(&error.context("while doing something"));
        assert_eq!(wrapped(Failure::usage("x")), Outcome::Usage);
        assert_eq!(wrapped(Failure::credentials("x")), Outcome::Credentials);
        assert_eq!(wrapped(anyhow::anyhow!("x")), Outcome::Failed);
        assert_eq!(wrapped(ConnectError::Address { url: "x".into() }.into()), Outcome::Usage);
        assert_eq!(
            wrapped(ConnectError::Unreachable { servers: "x".into(), reason: "y".into() }.into()),
            Outcome::Unreachable
        );
        assert_eq!(wrapped(PublishError::BrokerDenied { subject: "x".into() }.into()), Outcome::Denied);
        assert_eq!(wrapped(SealingKeysError::WrongPassphrase { path: "x".into() }.into()), Outcome::Credentials);
        assert_eq!(wrapped(SealingKeysError::Missing { path: "x".into() }.into()), Outcome::Failed);
        let nested = RequestError::Publish(PublishError::BrokerDenied { subject: "x".into() });
        assert_eq!(wrapped(nested.into()), Outcome::Denied);
        assert_eq!(wrapped(PkiError::NoAuthority { path: "x".into() }.into()), Outcome::Credentials);
        assert_eq!(
            Failure::closed(&CloseReason::Refused).downcast_ref::<Failure>().map(|f| f.outcome),
            Some(Outcome::Denied)
        );
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        let gone = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&gone.context("writing")));
        assert!(!is_broken_pipe(&anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound))));
    }
}
