//! What the policy wants compressed takes fewer bytes, and says the same.

use bus_crypto::trailer;

use super::*;

const COMPRESS: &str = "[[form]]\ntypes = [\"Alert\"]\nto = \"events\"\ncompress = true\n";

/// Publishes alerts so fast that they share envelopes, or one by one, and returns how many bytes of them passed.
async fn bytes_on_the_wire(deployment: &Deployment, forms: &str, sealed: bool, max_batch: usize) -> usize {
    let broker = Broker::before(deployment).await.unwrap();
    let core = connect(deployment, CORE, forms).await;
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    let options = knowing(BusOptions::new(broker.url(), deployment.identity(AGENT)), forms).max_batch(max_batch);
    let agent = BusClient::connect(options).await.unwrap();
    let mut seen = all_from(&broker, AGENT);
    let of = |number: usize| alert(format!("{number}: {}", "C:\\Users\\somebody\\Documents\\ ".repeat(number % 40)));
    for number in 0..400 {
        agent.publish(of(number)).await.unwrap();
    }
    agent.flush().await.unwrap();
    let mut batched = 0;
    for number in 0..400 {
        let received = next(&mut alerts).await.unwrap();
        assert_eq!(received.payload(), &of(number));
        assert_eq!(received.is_sealed(), sealed);
        batched += usize::from(received.batch_index().is_some());
    }
    assert_eq!(batched > 0, max_batch > 1);
    assert!(core.refusals().is_empty() && agent.stats().unsent == 0);
    let seen = passed(&mut seen);
    let messages = of_the_bus(&seen);
    assert!(messages.iter().all(|message| trailer::split(&message.payload).is_ok()));
    messages.iter().map(|message| message.payload.len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compressed_takes_fewer_bytes_and_says_the_same() {
    let deployment = deploy().await;
    for (sealing, sealed) in [("", false), (TO_CORE, true)] {
        for max_batch in [1, 256] {
            let plain = bytes_on_the_wire(&deployment, sealing, sealed, max_batch).await;
            let forms = format!("{sealing}{COMPRESS}");
            let compressed = bytes_on_the_wire(&deployment, &forms, sealed, max_batch).await;
            assert!(compressed < plain * 3 / 4, "{compressed} of {plain}, sealed: {sealed}, batches of {max_batch}");
        }
    }
}

/// As compression cannot tell beforehand what becomes of a message, it is never what makes one too large.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compressed_goes_as_it_is() {
    let deployment = deploy().await;
    let core = connect(&deployment, CORE, COMPRESS).await;
    let agent = BusClient::connect(options(&deployment, AGENT, COMPRESS).max_payload(4_096)).await.unwrap();
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    // Digits of one generator, of which none repeats what was before.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from_u32(0x21 + u32::try_from(state % 0x5d).unwrap()).unwrap()
    };
    let texts: Vec<String> = (0..200).map(|number| (0..number * 5).map(|_| random()).collect()).collect();
    for text in &texts {
        agent.publish(alert(text.clone())).await.unwrap();
    }
    agent.flush().await.unwrap();
    assert_eq!(agent.stats().unsent, 0);
    for text in &texts {
        assert_eq!(next(&mut alerts).await.unwrap().payload(), &alert(text.clone()));
    }
    assert!(core.refusals().is_empty());
}

/// A policy that says nothing of compression does not keep anybody from reading what is compressed.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_compress_reads_what_others_compress() {
    let deployment = deploy().await;
    let core = connect(&deployment, CORE, "").await;
    let agent = connect(&deployment, AGENT, COMPRESS).await;
    let mut alerts = core.subscribe::<AlertEvent>().await.unwrap();
    let mut all = core.subscribe::<AnyPayload>().await.unwrap();
    agent.publish(alert("a".repeat(4_000))).await.unwrap();
    assert_eq!(next(&mut alerts).await.unwrap().payload(), &alert("a".repeat(4_000)));
    assert_eq!(next(&mut all).await.unwrap().payload(), &AnyPayload::Alert(alert("a".repeat(4_000))));
}
