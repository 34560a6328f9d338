//! A server in the foreground.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bus_natsd::{Launch, NatsServer, ServerConfig, ServerError, find_server};
use bus_tls::TlsOptions;
use serde_json::json;

use super::keys::{self, Provisioner, Provisions};
use super::plan::Plan;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::signals::{Hangup, Kind, Stop};

/// How often it is looked whether nats-server still runs.
pub(super) const HEALTH_CHECK: Duration = Duration::from_millis(500);

/// Starts nats-server, reloads it on SIGHUP, and stops it when the program is asked to stop or its terminal goes.
///
/// The streams are provisioned before the server is announced, and again after each reload, as the policy may be another one.
pub(super) async fn run(plan: Plan, output: Output) -> anyhow::Result<Outcome> {
    let pid = Arc::new(AtomicU32::new(0));
    let child = Arc::clone(&pid);
    let mut stop = Stop::listen(Kind::Server, move || kill(child.load(Ordering::Acquire)))?;
    let mut hangup = Hangup::listen()?;
    let (mut server, plan, mut provisioner) = blocking(move || start_as_planned(plan)).await?;
    pid.store(server.pid().unwrap_or_default(), Ordering::Release);
    let mut provisions = Provisions::default();
    tokio::select! {
        biased;
        () = stop.requested() => {}
        done = provision(provisioner.clone()) => provisions = done,
    }
    announce(&server, &provisions, output)?;
    let mut health = tokio::time::interval(HEALTH_CHECK);
    let mut plan = Some(plan);
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => break,
            () = hangup.received() => {
                if hangup.is_of_terminal() {
                    tracing::info!("stopping, as the terminal has gone");
                    break;
                }
                let Some(current) = plan.take() else { break };
                let (running, current, reloaded) = blocking(move || Ok(reload(server, current))).await?;
                (server, plan) = (running, Some(current));
                match reloaded {
                    Ok(components) => {
                        tracing::info!(components, "reloaded");
                        if let Some(provisioner) = &mut provisioner {
                            provisioner.policy = server.config().policy.clone();
                        }
                        tokio::select! {
                            biased;
                            () = stop.requested() => {}
                            _ = provision(provisioner.clone()) => {}
                        }
                        output.event(|| json!({ "event": "reloaded", "components": components }))?;
                    }
                    Err(error) => tracing::error!("not reloaded, the former configuration stays in force: {error:#}"),
                }
            }
            _ = health.tick() => if !server.is_running() {
                return Err(Failure::failed("nats-server ended by itself; its log says why"));
            }
        }
    }
    blocking(move || Ok(server.stop()?)).await?;
    Ok(Outcome::Done)
}

fn start_as_planned(mut plan: Plan) -> anyhow::Result<(NatsServer, Plan, Option<Provisioner>)> {
    plan.check_credentials()?;
    plan.claim_store()?;
    let config = plan.config()?;
    let (root, policy) = (config.root.clone(), config.policy.clone());
    let credentials = provisioner_of(&plan, &config);
    let server = start(config)?;
    let url = keys::address(&server, plan.certificate())?;
    let provisioner = credentials.map(|credentials| Provisioner { url, credentials, root, policy, replicas: None });
    Ok((server, plan, provisioner))
}

/// The provisioner's credentials, if there are any. What is wrong with them is logged: a server does without.
pub(super) fn provisioner_of(plan: &Plan, config: &ServerConfig) -> Option<TlsOptions> {
    config.provisioner.as_ref().and_then(|who| match plan.provisioner_credentials() {
        Ok(None) => {
            tracing::warn!(
                "nobody provisions the key streams: give --provisioner-cert and --provisioner-key of {}, or run `bus \
                 server provision`",
                who.endpoint
            );
            None
        }
        Ok(credentials) => credentials,
        Err(error) => {
            tracing::warn!("nobody provisions the key streams, as {} gets no certificate: {error:#}", who.endpoint);
            None
        }
    })
}

pub(super) async fn provision(provisioner: Option<Provisioner>) -> Provisions {
    match provisioner {
        Some(provisioner) => provisioner.provision().await,
        None => Provisions::default(),
    }
}

fn start(config: ServerConfig) -> anyhow::Result<NatsServer> {
    match Launch::new(find_server()?).on_log(forward).start(config) {
        Ok(server) => Ok(server),
        // The error holds the log, which was forwarded already.
        Err(ServerError::Ended { .. }) => Err(Failure::failed("nats-server did not start; its log says why")),
        Err(error) => Err(error.into()),
    }
}

fn announce(server: &NatsServer, provisions: &Provisions, output: Output) -> anyhow::Result<()> {
    let (url, pid) = (server.url(), server.pid());
    let components = server.config().components.len();
    tracing::info!(components, "ready; SIGHUP reads components and policy again");
    let root = &server.config().root;
    let keys_stream = provisions.keys.then(|| root.bundles().name());
    let sealing_stream = provisions.keys.then(|| root.sealing_keys().name());
    output.record(
        || url.clone(),
        || {
            json!({
                "event": "ready", "url": url, "pid": pid, "components": components,
                "keys_stream": keys_stream, "sealing_stream": sealing_stream, "streams": provisions.messages,
            })
        },
    )?;
    Ok(())
}

/// Hands everything back, so that a refused reload leaves the running server as it was.
fn reload(mut server: NatsServer, plan: Plan) -> (NatsServer, Plan, anyhow::Result<usize>) {
    let reloaded = plan.config().and_then(|config| {
        let components = config.components.len();
        server.reload(config)?;
        Ok(components)
    });
    (server, plan, reloaded)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// Puts a line of nats-server's log, `[pid] date time [INF] text`, among ours.
fn forward(line: &str) {
    let (level, text) = split(line);
    log(level, text);
}

/// As [`forward`], behind the name of the node that said it.
pub(super) fn forward_from(node: &str, line: &str) {
    let (level, text) = split(line);
    log(level, &format!("{node}: {text}"));
}

fn log(level: &str, text: &str) {
    match level {
        "ERR" | "FTL" => tracing::error!(target: "nats_server", "{text}"),
        "WRN" => tracing::warn!(target: "nats_server", "{text}"),
        "DBG" | "TRC" => tracing::debug!(target: "nats_server", "{text}"),
        _ => tracing::info!(target: "nats_server", "{text}"),
    }
}

fn split(line: &str) -> (&str, &str) {
    let after_pid = line.split_once("] ").map_or(line, |(_, rest)| rest);
    match after_pid.split_once('[').and_then(|(_, rest)| rest.split_once("] ")) {
        Some((level, text)) if level.len() == 3 => (level, text),
        _ => ("", line),
    }
}

#[cfg(unix)]
pub(super) fn kill(pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended already, from the same signal.
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(not(unix))]
pub(super) fn kill(_: u32) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_servers_log_is_taken_apart() {
        assert_eq!(split("[42] 2026/01/01 00:00:00.1 [WRN] careful [now] "), ("WRN", "careful [now] "));
        assert_eq!(split("nats-server: no such file"), ("", "nats-server: no such file"));
        assert_eq!(split("[1] [x] y"), ("", "[1] [x] y"));
    }
}
