//! `bus keys rotate`: a running program is told to sign with a new key.

use std::time::Duration;

use bus_client::BusClient;
use bus_crypto::KeyId;
use bus_proto::Endpoint;
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::published;
use crate::connect::{connect, leave};
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::settings::Settings;
use crate::values::{duration_or_zero, short};

pub(super) const EXPLANATION: &str = "\
Keys are in the memory of their processes, so it is a process that is told, on this host (Linux).
Who gives the credentials of that component (--as) also learns its new key: the command waits until
one appears in the keys stream. If none does, it ends with exit code 1. Where it cannot look, it
says why, and ends with 0 as the process was told.";

/// How often the keys stream is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Whom to tell.
#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// The process, on this host
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: u32,

    /// How long to wait for the new key to appear in the keys stream; 0 for not at all
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration_or_zero)]
    wait: Duration,
}

/// Tells the process, and waits until its new key is known, where that can be known.
pub(super) async fn run(args: RotateArgs, settings: Settings, output: Output) -> anyhow::Result<Outcome> {
    let RotateArgs { pid, wait } = args;
    let process = process::Told::find(pid)?;
    if wait.is_zero() {
        process.tell()?;
        return told(pid, None, output);
    }
    let onlooker = match Onlooker::new(&settings).await {
        Ok(onlooker) => onlooker,
        Err(error) => {
            process.tell()?;
            return told(pid, Some(&format!("{error:#}")), output);
        }
    };
    process.tell()?;
    let new = onlooker.new_key(wait).await;
    leave(&onlooker.bus).await?;
    let (component, former) = (&onlooker.component, &onlooker.former);
    let Some(new) = new? else {
        return Err(Failure::failed(format!(
            "process {pid} was told, but no new key of {component} appeared in the keys stream within {wait:?}: check \
             that it is a process of {component}, and connected"
        )));
    };
    output.record(
        || {
            let list: Vec<String> = former.iter().map(short).collect();
            let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
            format!("process {pid} was told: a new key of {component} is {new}\nits keys before: {list}")
        },
        || {
            json!({
                "pid": pid, "component": component.to_string(), "key_id": new.to_string(),
                "former_key_ids": former.iter().map(ToString::to_string).collect::<Vec<_>>(), "unconfirmed": null,
            })
        },
    )?;
    Ok(Outcome::Done)
}

/// The process was told; `blind` is why its new key is not known, unless nobody asked.
fn told(pid: u32, blind: Option<&str>, output: Output) -> anyhow::Result<Outcome> {
    let reason = blind.unwrap_or("not waited for");
    output.record(
        || format!("process {pid} was told to sign with a new key; whether it does was not seen: {reason}"),
        || json!({ "pid": pid, "component": null, "key_id": null, "former_key_ids": [], "unconfirmed": reason }),
    )?;
    Ok(Outcome::Done)
}

/// Looks at the keys stream for a key that was not there before.
struct Onlooker {
    bus: BusClient,
    component: Endpoint,
    /// Those that were there before, the oldest first.
    former: Vec<KeyId>,
}

impl Onlooker {
    async fn new(settings: &Settings) -> anyhow::Result<Self> {
        let bus = connect(settings).await?;
        let component = bus.principal().endpoint.clone();
        match published(&bus, &component).await {
            Ok(published) => Ok(Self { bus, component, former: published.keys.iter().map(|key| key.key_id).collect() }),
            Err(error) => {
                leave(&bus).await?;
                Err(error)
            }
        }
    }

    async fn new_key(&self, wait: Duration) -> anyhow::Result<Option<KeyId>> {
        let deadline = Instant::now() + wait;
        loop {
            let published = published(&self.bus, &self.component).await?;
            let mut keys = published.keys.iter().map(|key| key.key_id);
            if let Some(new) = keys.find(|key| !self.former.contains(key)) {
                return Ok(Some(new));
            }
            if Instant::now() + LOOK_EVERY > deadline {
                return Ok(None);
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(target_os = "linux")]
mod process {
    use std::fs;
    use std::os::fd::OwnedFd;

    use clap::Parser as _;
    use rustix::io::Errno;
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    use crate::cli::Cli;
    use crate::escape::plain;
    use crate::exit::Failure;
    use crate::signals::is_in_mask;

    /// A process that signs with a new key when it is told.
    pub(super) struct Told {
        pid: u32,
        /// Stands for this very process, also when it has gone and another has its number.
        handle: OwnedFd,
    }

    impl Told {
        /// Checks that it is one: the same program, with a command that runs on, and listening already. To others the signal
        /// may mean their end.
        pub(super) fn find(pid: u32) -> anyhow::Result<Self> {
            let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let gone = || Failure::failed(format!("there is no process {pid} on this host"));
            let handle = match pidfd_open(number.ok_or_else(gone)?, PidfdFlags::empty()) {
                Ok(handle) => handle,
                Err(Errno::SRCH) => return Err(gone()),
                Err(error) => return Err(Failure::failed(format!("process {pid} cannot be told: {error}"))),
            };
            let tell = |file: &str| fs::read(format!("/proc/{pid}/{file}")).map_err(|_| gone());
            let name = String::from_utf8_lossy(&tell("comm")?).trim_end().to_owned();
            let own_name = fs::read_to_string("/proc/self/comm").unwrap_or_default();
            if name != own_name.trim_end() {
                return Err(Failure::failed(format!(
                    "process {pid} is `{}`, not `bus`: find the right one",
                    plain(&name)
                )));
            }
            let command = tell("cmdline")?;
            let words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).map(String::from);
            // The last one ends with a zero as well.
            let words: Vec<String> = words.take(command.iter().filter(|byte| **byte == 0).count()).collect();
            if !Cli::try_parse_from(words).is_ok_and(|cli| cli.rotates_keys()) {
                return Err(Failure::failed(format!(
                    "process {pid} is `bus`, but signs nothing for long: only `bus agent`, `bus sub` and `bus watch` can \
                     be told to sign with a new key"
                )));
            }
            let status = tell("status")?;
            // The number of SIGUSR1 on Linux is not the same on every processor.
            let signal = u32::try_from(Signal::USR1.as_raw()).unwrap_or_default();
            if !is_in_mask(&String::from_utf8_lossy(&status), "SigCgt:", signal) {
                return Err(Failure::failed(format!("process {pid} does not listen yet: try again")));
            }
            Ok(Self { pid, handle })
        }

        pub(super) fn tell(&self) -> anyhow::Result<()> {
            let pid = self.pid;
            pidfd_send_signal(&self.handle, Signal::USR1).map_err(|error| match error {
                Errno::PERM => Failure::failed(format!("process {pid} belongs to another user: be that user, or root")),
                error => Failure::failed(format!("process {pid} cannot be told: {error}")),
            })
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod process {
    use crate::exit::Failure;

    /// Nothing: only Linux tells enough about processes.
    pub(super) struct Told;

    impl Told {
        pub(super) fn find(pid: u32) -> anyhow::Result<Self> {
            let by_hand = if cfg!(unix) {
                format!(": if process {pid} is `bus agent`, `bus sub` or `bus watch`, `kill -USR1 {pid}` does the same")
            } else {
                ": restart the program instead".to_owned()
            };
            Err(Failure::failed(format!("only on Linux it is known whom the signal would reach{by_hand}")))
        }

        pub(super) fn tell(&self) -> anyhow::Result<()> {
            Ok(())
        }
    }
}
