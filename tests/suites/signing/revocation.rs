//! Certificates are revoked, and revocation lists go out of date, while everybody goes on.

use bus_tests::deployment::principal;
use bus_tls::pki::Authority;
use bus_tls::{TlsIdentity, TlsOptions};

use super::*;

/// Connects as `role/component` with the deployment's revocation list.
async fn with_list(deployment: &Deployment, name: &str) -> BusClient {
    let (files, authority) = (deployment.issue(name), &deployment.authority);
    let tls = TlsOptions::new(files.certificate, files.key, authority.ca_path()).crl(authority.crl_path());
    BusClient::connect(BusOptions::new(deployment.server.url(), TlsIdentity::load(tls).unwrap())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_revoked_sender_sends_is_refused_and_others_are_heard() {
    let deployment = Deployment::start(&[CORE, AGENT, OTHER]);
    let core = with_list(&deployment, CORE).await;
    let (agent, other) = (deployment.connect(AGENT).await, deployment.connect(OTHER).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    for (sender, uptime) in [(&agent, 1), (&other, 2)] {
        sender.publish(beat(uptime)).await.unwrap();
        expect_beats(&mut beats, [uptime]).await;
    }

    deployment.authority.revoke_principal(&principal(AGENT)).unwrap();
    refresh(&core).await;
    // The key that was known, and one whose bundle comes along.
    for uptime in [3, 4] {
        agent.publish(beat(uptime)).await.unwrap();
        let rejected = next(&mut beats).await.unwrap_err();
        assert!(matches!(rejected, Rejected::Revoked { .. }), "{rejected}");
        agent.rotate_signing_key().await.unwrap();
    }
    other.publish(beat(5)).await.unwrap();
    expect_beats(&mut beats, [5]).await;
    assert_eq!(core.refusals(), [("revoked", 2)].into());

    // A new certificate of the same component is another matter.
    let profile = bus_tls::pki::Profile::component(endpoint(AGENT).role, endpoint(AGENT).component).unwrap();
    let issued = deployment.authority.issue(&profile.despite_revocation()).unwrap();
    issued.write(deployment.path(), true).unwrap();
    refresh(&agent).await;
    agent.publish(beat(6)).await.unwrap();
    expect_beats(&mut beats, [6]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_revocation_list_refuses_everybody_until_there_is_a_fresh_one() {
    let deployment = Deployment::start(&[CORE, AGENT, OTHER]);
    let core = with_list(&deployment, CORE).await;
    let (agent, other) = (deployment.connect(AGENT).await, deployment.connect(OTHER).await);
    let mut beats = core.subscribe::<Heartbeat>().await.unwrap();
    let lifetime = Duration::from_secs(3);
    let short = Authority::open(deployment.authority.dir()).unwrap().crl_lifetime(lifetime);
    short.renew_crl().unwrap();
    refresh(&core).await;
    for (sender, uptime) in [(&agent, 1), (&other, 2)] {
        sender.publish(beat(uptime)).await.unwrap();
        expect_beats(&mut beats, [uptime]).await;
    }
    // Lists are dated in whole seconds.
    tokio::time::sleep(lifetime + Duration::from_secs(1)).await;
    for sender in [&agent, &other] {
        sender.publish(beat(3)).await.unwrap();
        let rejected = next(&mut beats).await.unwrap_err();
        assert!(matches!(rejected, Rejected::StaleRevocationList { .. }), "{rejected}");
    }
    assert_eq!(core.refusals(), [("stale_revocation_list", 2)].into());

    deployment.authority.renew_crl().unwrap();
    refresh(&core).await;
    for (sender, uptime) in [(&agent, 4), (&other, 5)] {
        sender.publish(beat(uptime)).await.unwrap();
        expect_beats(&mut beats, [uptime]).await;
    }
}
