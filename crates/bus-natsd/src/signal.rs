//! Telling a running server something.

use std::process::Child;

use crate::error::ServerError;

/// What a server can be told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal {
    /// To read its configuration again.
    Reload,
    /// To end.
    Terminate,
    /// To send its clients elsewhere, and then to end.
    LameDuck,
    /// To stand still. It cannot refuse.
    Pause,
    /// To go on.
    Resume,
}

#[cfg(unix)]
pub(crate) fn send(child: &Child, signal: Signal) -> Result<(), ServerError> {
    use rustix::process::{Pid, Signal as Native, kill_process};
    let native = match signal {
        Signal::Reload => Native::HUP,
        Signal::Terminate => Native::TERM,
        Signal::LameDuck => Native::USR2,
        Signal::Pause => Native::STOP,
        Signal::Resume => Native::CONT,
    };
    kill_process(Pid::from_child(child), native).map_err(|error| ServerError::io("signal nats-server")(error.into()))
}

#[cfg(not(unix))]
pub(crate) fn send(_: &Child, signal: Signal) -> Result<(), ServerError> {
    match signal {
        Signal::Reload | Signal::Terminate | Signal::LameDuck | Signal::Pause | Signal::Resume => {
            Err(ServerError::Unsupported)
        }
    }
}
