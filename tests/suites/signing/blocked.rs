//! A connection that takes nothing more for a while: what waits, in which order it goes, and what is not lost.

use std::sync::Arc;

use bus_client::{PublishError, RequestError};
use bus_proto::AnyPayload;
use bus_proto::v1::{AlertEvent, CommandResult, Severity, TelemetryEvent};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

/// How long a call that the connection could take does not take.
const A_WHILE: Duration = Duration::from_millis(1_500);

/// Passes bytes between clients and the server as they are, and none to the server while it is shut.
struct Gate {
    port: u16,
    open: Arc<watch::Sender<bool>>,
    accepting: JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Gate {
    fn before(deployment: &Deployment) -> Self {
        let server = deployment.server.port();
        let socket = TcpSocket::new_v4().unwrap();
        // Little room, so that little has to be sent to fill it.
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(16).unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = Arc::new(watch::Sender::new(true));
        let gate = Arc::clone(&open);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, gate.subscribe()));
            }
        });
        Self { port, open, accepting }
    }

    /// Options to connect through it, with patience.
    fn options(&self, deployment: &Deployment, name: &str) -> BusOptions {
        let url = format!("tls://127.0.0.1:{}", self.port);
        jobs(BusOptions::new(url, deployment.identity(name))).operation_timeout(PATIENCE)
    }

    fn set(&self, open: bool) {
        self.open.send_replace(open);
    }
}

async fn pass(client: TcpStream, server: u16, mut open: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let onward = async {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let _ = open.wait_for(|open| *open).await;
            match from_client.read(&mut bytes).await {
                Ok(length @ 1..) => {
                    // What was on its way already when the gate was shut waits as well.
                    let _ = open.wait_for(|open| *open).await;
                    if to_server.write_all(&bytes[..length]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    tokio::select! {
        () = onward => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

/// Sends commands, of which each goes alone and at once, until the connection takes no more, nor a while later.
async fn fill(bus: &BusClient, to: &Endpoint) {
    let mut given_up = 0;
    while given_up < 2 {
        match timeout(A_WHILE, bus.send(to, kill(0))).await {
            Ok(Ok(())) => given_up = 0,
            Ok(Err(PublishError::TimedOut { .. })) | Err(_) => given_up += 1,
            Ok(Err(error)) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_urgent_subject_goes_first() {
    let deployment = with_jobs().await;
    deployment.publish_sealing_key(OTHER).await;
    let nobody = endpoint(OTHER);
    let gate = Gate::before(&deployment);
    let core = BusClient::connect(jobs(deployment.options(CORE))).await.unwrap();
    let mut events = core.subscribe::<AnyPayload>().await.unwrap();
    let agent = BusClient::connect(gate.options(&deployment, AGENT)).await.unwrap();
    let alert = AlertEvent { threat_type: "t".into(), severity: Severity::High.into(), description: String::new() };
    let load = TelemetryEvent { cpu_usage: 1.0, ram_usage: 1.0 };
    // The broker is seen to accept each type.
    agent.publish(beat(0)).await.unwrap();
    agent.publish(alert.clone()).await.unwrap();
    agent.publish(load).await.unwrap();
    agent.publish(job(0)).await.unwrap();
    agent.send(&nobody, kill(0)).await.unwrap();
    for _ in 0..4 {
        next(&mut events).await.unwrap();
    }

    gate.set(false);
    fill(&agent, &nobody).await;
    // The task that sends has this one in hand, and nowhere to put it.
    agent.publish(job(1)).await.unwrap();
    tokio::time::sleep(A_WHILE / 10).await;
    let with_priority = |payload: AnyPayload, priority| {
        let mut envelope = agent.envelope(payload).unwrap();
        envelope.priority = priority;
        envelope
    };
    agent.publish(with_priority(AnyPayload::Telemetry(load), 1)).await.unwrap();
    agent.publish(beat(2)).await.unwrap();
    agent.publish(with_priority(AnyPayload::Alert(alert), 9)).await.unwrap();
    gate.set(true);

    let mut order = Vec::new();
    for _ in 0..4 {
        let received = next(&mut events).await;
        order.push(
            received.map_or_else(|rejected| rejected.reason().to_owned(), |next| next.message_type().to_string()),
        );
    }
    // The core does not know the type of jobs here: they are refused, and it is that which shows their place.
    assert_eq!(order, ["x-job", "Alert", "Heartbeat", "Telemetry"]);
    agent.flush().await.unwrap();
    assert_eq!(agent.stats().unsent, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_given_up_while_nothing_goes_out_loses_nothing_that_waits() {
    let deployment = with_jobs().await;
    deployment.publish_sealing_key(OTHER).await;
    let nobody = endpoint(OTHER);
    let gate = Gate::before(&deployment);
    let agent = BusClient::connect(jobs(deployment.options(AGENT))).await.unwrap();
    let mut inbox = agent.subscribe_inbox::<Registered<Job>>().await.unwrap();
    let core = BusClient::connect(gate.options(&deployment, CORE)).await.unwrap();
    let to = endpoint(AGENT);
    core.send(&to, job(0)).await.unwrap();
    core.publish(beat(0)).await.unwrap();
    core.send(&nobody, kill(0)).await.unwrap();
    // The subscription for answers is there before the connection is blocked.
    let asked = core.request_within::<CommandResult>(&to, job(1), Duration::from_millis(500)).await;
    assert!(matches!(asked, Err(RequestError::TimedOut { .. })), "{asked:?}");

    gate.set(false);
    fill(&core, &nobody).await;
    // The task that sends is busy with another subject.
    core.publish(beat(1)).await.unwrap();
    tokio::time::sleep(A_WHILE / 10).await;
    for number in 2..100 {
        core.send(&to, job(number)).await.unwrap();
    }
    // This takes along what waits for the same subject, and is given up with that in hand.
    let asked = core.request_within::<CommandResult>(&to, job(100), A_WHILE / 3).await;
    assert!(matches!(asked, Err(RequestError::TimedOut { .. })), "{asked:?}");
    gate.set(true);

    core.send(&to, job(101)).await.unwrap();
    core.flush().await.expect("nothing is waited for in vain");
    let mut arrived = Vec::new();
    while arrived.last() != Some(&101) {
        arrived.push(next(&mut inbox).await.unwrap().payload().0.number);
    }
    arrived.retain(|number| *number != 100);
    assert!(arrived.iter().copied().eq((0..100).chain([101])), "{arrived:?}");
    assert_eq!((inbox.missed(), core.stats().unsent), (0, 0));
    core.drain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_while_nothing_goes_out_arrives_once_in_order() {
    let deployment = with_jobs().await;
    deployment.publish_sealing_key(OTHER).await;
    let nobody = endpoint(OTHER);
    let gate = Gate::before(&deployment);
    let core = BusClient::connect(jobs(deployment.options(CORE))).await.unwrap();
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let agent = BusClient::connect(gate.options(&deployment, AGENT)).await.unwrap();
    agent.publish(beat(0)).await.unwrap();
    agent.send(&nobody, kill(0)).await.unwrap();
    gate.set(false);
    fill(&agent, &nobody).await;
    let mut waiting = 1;
    // Until there is no room for more; the publish that is given up leaves nothing behind.
    while let Ok(published) = timeout(A_WHILE, agent.publish(beat(waiting))).await {
        published.unwrap();
        waiting += 1;
    }
    assert!((1_024..5_000).contains(&waiting), "{waiting} messages wait");
    // What waits is signed with the key that is in use when it goes.
    let (rotated, ()) = tokio::join!(agent.rotate_signing_key(), async { gate.set(true) });
    rotated.unwrap();
    agent.publish(beat(waiting)).await.unwrap();
    expect_beats(&mut beats, 0..=waiting).await;
    assert!(core.refusals().is_empty() && beats.missed() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_in_time_is_told_and_never_arrives() {
    let deployment = with_jobs().await;
    deployment.publish_sealing_key(OTHER).await;
    let nobody = endpoint(OTHER);
    let gate = Gate::before(&deployment);
    let core = BusClient::connect(jobs(deployment.options(CORE))).await.unwrap();
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let options = gate.options(&deployment, AGENT).operation_timeout(A_WHILE).max_batch(64);
    let agent = BusClient::connect(options).await.unwrap();
    let mut events = agent.events();
    agent.publish(beat(0)).await.unwrap();
    expect_beats(&mut beats, [0]).await;
    agent.send(&nobody, kill(0)).await.unwrap();
    gate.set(false);
    fill(&agent, &nobody).await;
    let before = agent.stats();
    for uptime in 1..=500 {
        agent.publish(beat(uptime)).await.unwrap();
    }
    // The system may have found a little more room for some of them.
    let (mut told, mut sent) = (0, 0);
    while told + sent < 500 {
        if let Ok(event) = timeout(A_WHILE, events.recv()).await
            && let BusEvent::Unsent { subject, messages, .. } = event.unwrap()
        {
            assert_eq!(subject, "ransomeye.events.heartbeat.agent.agent-01");
            told += messages as u64;
        }
        sent = agent.stats().published - before.published;
    }
    assert_eq!((told + sent, agent.stats().unsent), (500, told));
    assert!(told > 0);
    gate.set(true);
    soon("the connection", async { while agent.flush().await.is_err() {} }).await;
    agent.publish(beat(501)).await.unwrap();
    let mut arrived = Vec::new();
    while arrived.last() != Some(&501) {
        arrived.push(next(&mut beats).await.unwrap().payload().uptime);
    }
    assert!(arrived.is_sorted_by(|one, next| one < next), "{arrived:?}");
    assert_eq!(arrived.len() as u64, sent + 1, "what was sent, and the last one");
    assert_eq!(beats.missed(), 0, "what was not sent used up no number");
    agent.drain().await.unwrap();
}
