//! What is kept of a message proves it to others, and what is printed of a client betrays nothing.

use bus_client::{Evidence, leaf_facts};
use bus_crypto::{Clock, Unverified, UnverifiedBundle};
use bus_proto::TrustDomain;
use bus_tests::deployment::{TRUST_DOMAIN, principal};
use bus_tls::OfflineTrust;

use super::*;

/// Checks evidence as somebody would who has the CA's certificate and nothing else, and says what it proves: the digest, and
/// the identifier of the message at this place.
fn prove(
    deployment: &Deployment,
    evidence: &Evidence,
    at_unix_ms: i64,
    place: Option<u16>,
) -> Result<([u8; 32], String), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let trust = OfflineTrust::load(&deployment.authority.ca_path(), None, at_unix_ms).map_err(|error| text(&error))?;
    let unverified = UnverifiedBundle::read(&evidence.bundle).map_err(|error| text(&error))?;
    let leaf = trust.verify(unverified.chain()).map_err(|error| text(&error))?;
    let facts = leaf_facts(&leaf).map_err(|error| text(&error))?;
    let clock = Clock::new(at_unix_ms, 30_000);
    let bundle = unverified.verify(&facts, &clock).map_err(|error| text(&error))?;
    let message = Unverified::read(&evidence.envelope).map_err(|error| text(&error))?;
    let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
    let proven = message.verify(&bundle, &domain, &clock).map_err(|error| text(&error))?;
    assert_eq!(proven.principal(), &principal(AGENT));
    let scan = proven.scan();
    let id = place.map_or(scan.message_id(), |place| scan.members()[usize::from(place)].message_id());
    Ok((*proven.digest(), id.to_owned()))
}

#[tokio::test]
async fn kept_evidence_proves_each_message_and_a_changed_one_nothing() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let (core, agent) = (deployment.connect(CORE).await, deployment.connect(AGENT).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap().keep_evidence(true);
    agent.publish(beat(0)).await.unwrap();
    for uptime in 1..=3 {
        agent.publish(beat(uptime)).await.unwrap();
    }
    for place in [None, Some(0), Some(1), Some(2)] {
        let received = next(&mut beats).await.unwrap();
        assert_eq!(received.batch_index(), place);
        let evidence = received.evidence().expect("it is kept");
        let (digest, id) = prove(&deployment, &evidence, received.timestamp_unix_ms(), place).unwrap();
        assert_eq!((digest, id.as_str()), (received.digest(), received.message_id()));

        let mut changed = evidence.clone();
        let mut bytes = changed.envelope.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        changed.envelope = bytes.into();
        assert!(prove(&deployment, &changed, received.timestamp_unix_ms(), place).is_err());
        let stranger = Deployment::start(&[AGENT]);
        assert!(prove(&stranger, &evidence, received.timestamp_unix_ms(), place).is_err());
    }
}

#[tokio::test]
async fn evidence_is_there_when_the_bundle_was_looked_up_and_not_unless_it_was_asked_for() {
    let deployment = Deployment::start_with_key_streams(&[CORE, AGENT]).await;
    let agent = deployment.connect(AGENT).await;
    agent.publish(beat(0)).await.unwrap();
    let core = deployment.connect(CORE).await;
    stored(&core, &agent).await;
    let mut kept = core.subscribe::<Heartbeat>().await.unwrap().keep_evidence(true);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    agent.publish(beat(1)).await.unwrap();
    let received = next(&mut kept).await.unwrap();
    let evidence = received.evidence().expect("it is kept");
    prove(&deployment, &evidence, received.timestamp_unix_ms(), None).unwrap();
    assert_eq!(next(&mut beats).await.unwrap().evidence(), None);
}

/// The base64 text of a PEM file, line by line.
fn lines_of(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('-') && line.len() > 20).map(str::to_owned).collect()
}

#[tokio::test]
async fn what_is_printed_of_a_client_betrays_nothing() {
    let deployment = Deployment::start(&[CORE, AGENT]);
    let core = deployment.connect(CORE).await;
    let beats = core.subscribe::<Heartbeat>().await.unwrap();
    assert_eq!(
        format!("{core:?}"),
        "BusClient { principal: Principal { trust_domain: TrustDomain(ransomeye.test), endpoint: \
         Endpoint { role: Role(core), component: ComponentId(core-01) } }, status: Connected, .. }"
    );
    assert_eq!(format!("{beats:?}"), "Subscription { filter: \"ransomeye.events.heartbeat.>\", missed: 0, .. }");

    let files = deployment.issue(AGENT);
    let secret = lines_of(&files.key);
    assert!(!secret.is_empty());
    let options = deployment.options(CORE);
    let secret_of_core = lines_of(&deployment.path().join("core-01.key"));
    std::fs::write(&files.key, "no key").unwrap();
    let tls = bus_tls::TlsOptions::new(&files.certificate, &files.key, deployment.authority.ca_path());
    let error = bus_tls::TlsIdentity::load(tls).unwrap_err();
    let server = core.serve_commands(Deaf).await.unwrap();
    let printed =
        [format!("{options:?}"), format!("{error:?} {error}"), format!("{server:?}"), format!("{:?}", core.stats())];
    for text in printed {
        for line in secret.iter().chain(&secret_of_core) {
            assert!(!text.contains(line), "{text}");
        }
        assert!(!text.to_lowercase().contains("seed"), "{text}");
    }
}

struct Deaf;

impl bus_client::CommandHandler for Deaf {
    async fn handle(&self, _: Verified<CommandRequest>) -> bus_proto::v1::CommandResult {
        bus_proto::v1::CommandResult::refused("")
    }
}

#[test]
fn what_is_wrong_with_a_key_betrays_nothing_and_says_what_to_do() {
    let errors = [bus_client::KeyError::Expiring, bus_client::KeyError::Randomness];
    let printed: Vec<String> = errors.iter().map(|error| format!("{error} {error:?}")).collect();
    assert_eq!(
        printed,
        [
            "the certificate expires too soon to sign with it: rotate it Expiring",
            "the operating system gives no random bytes Randomness",
        ]
    );
}
