//! Directed messages: sealed to their destination unless somebody says otherwise.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_its_answer_are_sealed_and_nobody_on_the_way_reads_them() {
    let deployment = deploy().await;
    let broker = Broker::before(&deployment).await.unwrap();
    let core = connect_through(&broker, &deployment, CORE, "").await;
    let agent = connect_through(&broker, &deployment, AGENT, "").await;
    let mut seen = [all_from(&broker, CORE), all_from(&broker, AGENT)];
    let mut inbox = agent.subscribe_inbox::<Registered<Note>>().await.unwrap();
    let answering = agent.clone();
    let answerer = tokio::spawn(async move {
        let question = next(&mut inbox).await.unwrap();
        assert!(question.is_sealed() && question.is_directed());
        assert_eq!(question.payload(), &note(MARKER));
        answering.reply(&question, CommandResult::completed(MARKER)).await.unwrap();
    });
    let answer = core.request::<CommandResult>(&endpoint(AGENT), note(MARKER)).await.unwrap();
    assert!(answer.is_sealed());
    assert_eq!(answer.payload().detail, MARKER);
    answerer.await.unwrap();
    assert!(core.refusals().is_empty() && agent.refusals().is_empty());

    for (seen, subject) in seen.iter_mut().zip(["ransomeye.inbox.agent.agent-01.", "ransomeye.inbox.core.core-01."]) {
        let passed = passed(seen);
        assert!(passed.iter().any(|message| message.subject.starts_with(subject)), "it went by: {passed:?}");
        assert!(!passed.iter().any(|message| contains(&message.payload, MARKER)));
    }
    // What is not sealed would have been seen.
    core.publish(alert(MARKER)).await.unwrap();
    core.flush().await.unwrap();
    assert!(passed(&mut seen[0]).iter().any(|message| contains(&message.payload, MARKER)));
}

/// Whether any file in the folder has the text.
fn stored(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { stored(&path, text) } else { contains(&std::fs::read(&path).unwrap(), text) }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_stores_and_logs_has_nothing_of_what_was_sealed() {
    let mut deployment = deploy().await;
    let (core, agent) = (connect(&deployment, CORE, TO_CORE).await, connect(&deployment, AGENT, TO_CORE).await);
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    let server = agent.serve_commands(Obedient).await.unwrap();
    agent.publish(alert(MARKER)).await.unwrap();
    assert_eq!(next(&mut alerts).await.unwrap().payload(), &alert(MARKER));
    let answer = core.request::<CommandResult>(&endpoint(AGENT), kill(7)).await.unwrap();
    assert_eq!(answer.payload().detail, format!("{MARKER} 7"));
    server.stop().await;
    core.drain().await.unwrap();
    agent.drain().await.unwrap();
    deployment.server.stop().unwrap();
    let store = deployment.server.config().jetstream_dir.clone().unwrap();
    assert!(stored(&store, "ransomeye.sealing.core.core-01"), "the records are there");
    assert!(!stored(deployment.path(), MARKER));
    assert!(!deployment.server.log_lines().iter().any(|line| line.contains(MARKER)));
}

const REQUIRED: &str = r#"
[[form]]
types = ["x-note"]
to = "inbox:*/*"
seal = "required"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_wants_sealed_is_sealed_whatever_the_sender_is_told() {
    let deployment = deploy().await;
    let core = BusClient::connect(options(&deployment, CORE, REQUIRED).seal_directed(false)).await.unwrap();
    let agent = connect(&deployment, AGENT, REQUIRED).await;
    let mut inbox = agent.subscribe_inbox::<AnyPayload>().await.unwrap();
    core.send(&endpoint(AGENT), note("secret")).await.unwrap();
    core.send(&endpoint(AGENT), kill(1)).await.unwrap();
    let received = [next(&mut inbox).await.unwrap(), next(&mut inbox).await.unwrap()];
    let sealed = received.map(|message| (message.message_type().to_string(), message.is_sealed()));
    assert_eq!(sealed, [("x-note".to_owned(), true), ("Command".to_owned(), false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_has_sealed_is_sealed_though_it_demands_it_of_nobody() {
    const ON: &str = "[[form]]\ntypes = [\"x-note\"]\nto = \"inbox:*/*\"\nseal = \"on\"\n";
    let deployment = deploy().await;
    let core = BusClient::connect(options(&deployment, CORE, ON).seal_directed(false)).await.unwrap();
    let agent = connect(&deployment, AGENT, ON).await;
    let mut inbox = agent.subscribe_inbox::<Registered<Note>>().await.unwrap();
    core.send(&endpoint(AGENT), note("secret")).await.unwrap();
    assert!(next(&mut inbox).await.unwrap().is_sealed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_wants_sealed_is_refused_unsealed() {
    let deployment = deploy().await;
    // Its policy is an old one, which does not demand anything.
    let old = BusClient::connect(options(&deployment, OTHER, "").seal_directed(false)).await.unwrap();
    let (core, agent) = (connect(&deployment, CORE, REQUIRED).await, connect(&deployment, AGENT, REQUIRED).await);
    let mut inbox = agent.subscribe_inbox::<Registered<Note>>().await.unwrap();
    old.send(&endpoint(AGENT), note("for everybody")).await.unwrap();
    let rejected = next(&mut inbox).await.unwrap_err();
    assert_eq!(rejected.reason(), "not_sealed");
    assert_eq!(rejected.to_string(), "the policy demands that x-note is sealed here, and it is not");
    core.send(&endpoint(AGENT), note("secret")).await.unwrap();
    assert_eq!(next(&mut inbox).await.unwrap().payload(), &note("secret"));
    assert_eq!(agent.refusals(), [("not_sealed", 1)].into());
}

/// What is logged, as text.
#[derive(Debug, Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Logged {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// On one thread, whose log is read.
#[tokio::test]
async fn who_is_told_not_to_seal_sends_plainly_and_says_so() {
    const WARNING: &str = "directed messages are not sealed, as this client was told";
    const OFF: &str = "[[form]]\ntypes = [\"x-note\"]\nto = \"inbox:*/*\"\nseal = \"off\"\n";
    let deployment = deploy().await;
    let broker = Broker::before(&deployment).await.unwrap();
    let agent = connect(&deployment, AGENT, "").await;
    let mut inbox = agent.subscribe_inbox::<Registered<Note>>().await.unwrap();

    let logged = Logged::default();
    let writer = logged.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(log);
    let sealing = connect_through(&broker, &deployment, CORE_2, "").await;
    assert!(!logged.text().contains(WARNING));
    // Another test may have come to the same line just before this log was there, and have found nobody who listens.
    tracing::callsite::rebuild_interest_cache();
    let plain = knowing(BusOptions::new(broker.url(), deployment.identity(CORE)), "").seal_directed(false);
    let core = BusClient::connect(plain).await.unwrap();
    drop(connect_through(&broker, &deployment, CORE_2, OFF).await);
    drop(guard);
    let text = logged.text();
    assert!(text.contains("a rule of the policy has messages go unsealed"), "{text}");
    assert!(text.contains(WARNING) && text.contains("bus::security") && text.contains("core-01"), "{text}");

    let mut seen = all_from(&broker, CORE);
    core.send(&endpoint(AGENT), note(MARKER)).await.unwrap();
    let received = next(&mut inbox).await.unwrap();
    assert!(!received.is_sealed());
    assert_eq!(received.payload(), &note(MARKER));
    assert!(passed(&mut seen).iter().any(|message| contains(&message.payload, MARKER)));
    sealing.send(&endpoint(AGENT), note(MARKER)).await.unwrap();
    assert!(next(&mut inbox).await.unwrap().is_sealed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_stream_of_sealing_keys_nothing_is_sent_that_would_have_to_be_sealed() {
    let deployment = Deployment::start_with(&ALL, |config| config.policy = policy(""));
    let (core, agent) = (connect(&deployment, CORE, "").await, connect(&deployment, AGENT, "").await);
    let mut inbox = agent.subscribe_inbox::<Registered<Note>>().await.unwrap();
    let sent = core.send(&endpoint(AGENT), note("secret")).await.unwrap_err();
    assert!(matches!(sent, PublishError::NoSealingKey(NoSealingKey::NoStream { .. })), "{sent}");
    assert!(sent.to_string().contains("run `bus server provision`"), "{sent}");
    assert_eq!(core.stats().published, 0);
    // Who was told to does without.
    let plain = BusClient::connect(options(&deployment, CORE_2, "").seal_directed(false)).await.unwrap();
    plain.send(&endpoint(AGENT), note("for everybody")).await.unwrap();
    assert_eq!(next(&mut inbox).await.unwrap().payload(), &note("for everybody"));
}
