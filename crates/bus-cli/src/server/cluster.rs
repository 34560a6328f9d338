//! A cluster in the foreground, on this machine.

use std::num::NonZeroU8;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus_natsd::{ClusterLaunch, LocalCluster, NatsServer, Node, ServerConfig, ServerError, TlsFiles, find_server};
use bus_tls::CertificateInfo;
use serde_json::{Value, json};

use super::keys::{Provisioner, Provisions};
use super::plan::{Plan, ServerFlags};
use super::run::{HEALTH_CHECK, blocking, forward_from, kill, provision, provisioner_of};
use crate::exit::{Failure, Outcome};
use crate::output::{Output, table};
use crate::pki;
use crate::settings::Settings;
use crate::signals::{Hangup, Kind, Stop};

/// How long the end of all nodes may take before they are ended otherwise.
const DRAIN_LIMIT: Duration = Duration::from_secs(7);

/// The shortest lame duck mode that nats-server knows, and a grace period for a terminal: with all nodes ending, their clients
/// have nowhere to go.
const LAME_DUCK: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(1)];

/// On how many nodes streams are kept, of those that there are.
const REPLICAS: u8 = 3;

/// The process ids of the nodes that run, for the second signal.
type Pids = Arc<Mutex<Vec<u32>>>;

/// Starts the nodes, and drains them when the program is asked to stop or its terminal goes.
pub(super) async fn run(flags: ServerFlags, settings: Settings, nodes: u8, output: Output) -> anyhow::Result<Outcome> {
    let pids = Pids::default();
    let [running, starting] = [Arc::clone(&pids), Arc::clone(&pids)];
    let mut stop = Stop::listen(Kind::Server, move || {
        running.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(kill);
    })?;
    let mut hangup = Hangup::listen()?;
    let (mut cluster, plan, provisioner) = blocking(move || start(flags, settings, nodes, &starting)).await?;
    note(&pids, &cluster);
    let mut provisions = Provisions::default();
    tokio::select! {
        biased;
        () = stop.requested() => {}
        done = provision(provisioner) => provisions = done,
    }
    announce(&cluster, &provisions, output)?;
    let mut health = tokio::time::interval(HEALTH_CHECK);
    let mut ended = vec![false; cluster.nodes().len()];
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
                let (running, current, reloaded) = blocking(move || Ok(reload(cluster, current))).await?;
                (cluster, plan) = (running, Some(current));
                note(&pids, &cluster);
                ended.fill(false);
                match reloaded {
                    Ok(components) => {
                        tracing::info!(components, "reloaded");
                        output.event(|| json!({ "event": "reloaded", "components": components }))?;
                    }
                    Err(error) => tracing::error!("not every node was reloaded: {error:#}"),
                }
            }
            _ = health.tick() => {
                watch(&mut cluster, &mut ended, output)?;
                if ended.iter().all(|ended| *ended) {
                    return Err(Failure::failed("all nodes ended; their logs say why"));
                }
            }
        }
    }
    blocking(move || Ok(cluster.drain(DRAIN_LIMIT)?)).await?;
    Ok(Outcome::Done)
}

fn start(
    flags: ServerFlags,
    settings: Settings,
    count: u8,
    pids: &Pids,
) -> anyhow::Result<(LocalCluster, Plan, Option<Provisioner>)> {
    let flags = flags.or(settings.server.clone());
    let pki = flags.pki().ok_or_else(|| Failure::usage("say whose certificates the nodes get: --from-pki DIR"))?;
    let pki = pki.to_owned();
    let nodes: Vec<Node> = (1..=count).map(|number| node(&pki, number, &flags)).collect::<anyhow::Result<_>>()?;
    let first = nodes.first().ok_or_else(|| Failure::usage("no nodes"))?;
    let mut plan = Plan::new(flags.of_local_cluster(&pki, &first.tls)?, settings)?;
    plan.check_credentials()?;
    plan.claim_store()?;
    let mut template = plan.config()?;
    [template.lame_duck_duration, template.lame_duck_grace_period] = LAME_DUCK;
    let credentials = provisioner_of(&plan, &template);
    let pids = Arc::clone(pids);
    let launch = ClusterLaunch::new(find_server()?).on_log(forward_from).on_start(move |node| {
        pids.lock().unwrap_or_else(PoisonError::into_inner).extend(node.pid());
    });
    let cluster = match launch.start(&template, &nodes) {
        Ok(cluster) => cluster,
        // The error holds the log, which was forwarded already.
        Err(ServerError::Ended { .. }) => return Err(Failure::failed("a node did not start; its log says why")),
        Err(error) => return Err(error.into()),
    };
    let provisioner = credentials.zip(cluster.urls().into_iter().next()).map(|(credentials, url)| Provisioner {
        url,
        credentials,
        root: template.root.clone(),
        policy: template.policy.clone(),
        replicas: NonZeroU8::new(count.min(REPLICAS)),
    });
    Ok((cluster, plan, provisioner))
}

fn node(pki: &Path, number: u8, flags: &ServerFlags) -> anyhow::Result<Node> {
    let name = format!("local-{number}");
    let [cert, key] = pki::local_node_files(pki, &name, flags.host())?;
    let certificates = CertificateInfo::read(&cert)?;
    let leaf = certificates.first().ok_or_else(|| Failure::credentials("an empty certificate"))?;
    let pin = leaf.key_fingerprint.parse()?;
    Ok(Node { name, tls: TlsFiles { cert, key, trust_root: pki.join("ca.crt") }, pin })
}

fn note(pids: &Pids, cluster: &LocalCluster) {
    *pids.lock().unwrap_or_else(PoisonError::into_inner) = cluster.nodes().iter().filter_map(NatsServer::pid).collect();
}

/// Says once of each node that has ended that it has.
fn watch(cluster: &mut LocalCluster, ended: &mut [bool], output: Output) -> anyhow::Result<()> {
    for (index, ended) in ended.iter_mut().enumerate() {
        let node = cluster.node(index)?;
        if !*ended && !node.is_running() {
            *ended = true;
            let name = &node.config().server_name;
            tracing::warn!("{name} ended; SIGHUP starts it again");
            output.event(|| json!({ "event": "ended", "node": name }))?;
        }
    }
    Ok(())
}

/// Hands everything back: what was refused leaves the nodes as they were. Nodes that have ended are started.
fn reload(mut cluster: LocalCluster, plan: Plan) -> (LocalCluster, Plan, anyhow::Result<usize>) {
    let reloaded = plan.config().and_then(|fresh| {
        let components = fresh.components.len();
        cluster.reconfigure(|config: &mut ServerConfig| {
            config.components.clone_from(&fresh.components);
            config.policy.clone_from(&fresh.policy);
        })?;
        for index in 0..cluster.nodes().len() {
            if !cluster.node(index)?.is_running() {
                cluster.restart(index)?;
            }
        }
        Ok(components)
    });
    (cluster, plan, reloaded)
}

fn announce(cluster: &LocalCluster, provisions: &Provisions, output: Output) -> anyhow::Result<()> {
    let nodes = cluster.nodes();
    let config = nodes.first().map(NatsServer::config).ok_or_else(|| Failure::failed("no nodes"))?;
    let components = config.components.len();
    tracing::info!(components, nodes = nodes.len(), "ready; SIGHUP reads components and policy again");
    let keys_stream = provisions.keys.then(|| config.root.bundles().name());
    let sealing_stream = provisions.keys.then(|| config.root.sealing_keys().name());
    let urls = cluster.urls();
    output.record(
        || {
            let mut table = table(["node", "address", "process"]);
            for node in nodes {
                let pid = node.pid().unwrap_or_default().to_string();
                table.add_row([node.config().server_name.clone(), node.url(), pid]);
            }
            format!("{table}\nexport RANSOMEYE_BUS_URL={}", urls.join(","))
        },
        || {
            let nodes = nodes
                .iter()
                .map(|node| json!({ "name": node.config().server_name, "url": node.url(), "pid": node.pid() }));
            json!({
                "event": "ready", "urls": urls, "nodes": nodes.collect::<Value>(), "components": components,
                "keys_stream": keys_stream, "sealing_stream": sealing_stream, "streams": provisions.messages,
            })
        },
    )?;
    Ok(())
}
