//! Full mutual-TLS connects per second: this client against bare async-nats with the same certificates, in turn.
//!
//! `cargo bench -p bus-tests --bench connects` prints a table. One connect of ours is a TLS 1.3 handshake with both
//! certificates, the NATS greeting, a private reply subscription and one confirmed round trip; one of async-nats ends
//! with the greeting. Nothing is resumed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that reports to its user")]

use std::time::Instant;

use bus_client::BusClient;
use bus_tests::deployment::Deployment;
use bus_tls::TlsIdentity;

const ROUNDS: usize = 5;
const CONNECTS: usize = 200;
const PARALLEL: usize = 8;

async fn ours(deployment: &Deployment, identity: &TlsIdentity) {
    let options = bus_client::BusOptions::new(deployment.server.url(), identity.clone());
    drop(BusClient::connect(options).await.unwrap());
}

async fn bare(deployment: &Deployment, identity: &TlsIdentity) {
    let options = async_nats::ConnectOptions::new()
        .tls_client_config((*identity.client_config()).clone())
        .require_tls(true)
        .tls_first();
    drop(options.connect(deployment.server.url()).await.unwrap());
}

/// Connects per second, `PARALLEL` at a time.
async fn rate<F: Future<Output = ()>>(connect: impl Fn() -> F) -> f64 {
    let started = Instant::now();
    for _ in 0..CONNECTS / PARALLEL {
        futures_util::future::join_all((0..PARALLEL).map(|_| connect())).await;
    }
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let connects = (CONNECTS / PARALLEL * PARALLEL) as f64;
    connects / started.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let deployment = Deployment::start(&["agent/agent-01"]);
        let identity = deployment.identity("agent/agent-01");
        let (mut own, mut baseline, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        rate(|| ours(&deployment, &identity)).await;
        for _ in 0..ROUNDS {
            let (a, b) = (rate(|| ours(&deployment, &identity)).await, rate(|| bare(&deployment, &identity)).await);
            own.push(a);
            baseline.push(b);
            ratios.push(a / b);
        }
        println!("full mutual-TLS connects, {PARALLEL} at a time, median of {ROUNDS} paired rounds of {CONNECTS}");
        println!("  bus-client, confirmed round trip included   {:>7.0} connects/s", median(own));
        println!("  bare async-nats, same certificates          {:>7.0} connects/s", median(baseline));
        println!("  ratio                                       {:>7.2}", median(ratios));
    });
}
