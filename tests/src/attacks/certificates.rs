//! A stranger shows the broker no certificate, or one that does not count.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use bus_proto::TrustDomain;
use bus_tls::pki::{Authority, CaOptions, IssuedFiles, Profile};

use super::raw::{Attacker, Session, options, soon, tls, unix_ms};
use super::scene::COMPROMISED;
use super::{Evidence, Trial};
use crate::deployment::{Deployment, TRUST_DOMAIN};

const DAY: i64 = 24 * 60 * 60;

/// A CA of the attacker's own, which claims the deployment's trust domain.
pub(super) fn rogue_authority(folder: &Path) -> Result<Authority> {
    Ok(Authority::create(folder.join("rogue"), TrustDomain::new(TRUST_DOMAIN)?, &CaOptions::default())?)
}

fn agent_profile() -> Result<Profile> {
    Ok(Profile::component("agent".parse()?, COMPROMISED.parse()?)?)
}

pub(super) async fn no_certificate() -> Result<Trial> {
    present(|_| Ok(None)).await
}

pub(super) async fn another_ca() -> Result<Trial> {
    present(|deployment| {
        let issued = rogue_authority(deployment.path())?.issue(&agent_profile()?)?;
        Ok(Some(issued.write(deployment.path().join("rogue"), false)?))
    })
    .await
}

pub(super) async fn expired() -> Result<Trial> {
    present(|deployment| {
        let now = unix_ms() / 1_000;
        let profile = agent_profile()?.not_before(now - 2 * DAY).not_after(now - DAY);
        Ok(Some(deployment.authority.issue(&profile)?.write(deployment.path(), true)?))
    })
    .await
}

/// Opens a raw TLS connection with the certificate that `make` gives, and one with a good certificate.
async fn present(make: impl FnOnce(&Deployment) -> Result<Option<IssuedFiles>>) -> Result<Trial> {
    let deployment = Deployment::start(&["agent/agent-01"]);
    let (port, trust_root) = (deployment.server.port(), deployment.authority.ca_path());
    let files = make(&deployment)?;
    let refusal = match soon("an answer", Session::open(port, tls(&trust_root, files.as_ref())?)).await? {
        Ok(_) => Err(anyhow!("the server greets it")),
        Err(error) => Evidence::of_raw_socket(&error).with_context(|| format!("another error: {error}")),
    };
    let good = deployment.issue("agent/agent-01");
    let control = soon("a greeting", Session::open(port, tls(&trust_root, Some(&good))?)).await?;
    Ok(Trial { refusal, control: control.map(drop).context("the good certificate") })
}

pub(super) async fn another_trust_domain() -> Result<Trial> {
    let deployment = Deployment::start(&["agent/agent-01"]);
    let foreign = forge(&deployment, "spiffe://elsewhere.test/agent/agent-01", "foreign")?;
    let own = forge(&deployment, "spiffe://ransomeye.test/agent/agent-01", "own")?;
    let trust_root = deployment.authority.ca_path();
    let refusal = Attacker::refused(&deployment, options(tls(&trust_root, Some(&foreign))?)).await;
    let control = Attacker::connect(&deployment, options(tls(&trust_root, Some(&own))?)).await;
    Ok(Trial { refusal, control: control.map(drop).context("the same with the deployment's trust domain") })
}

/// Signs a client certificate for any SPIFFE id with the deployment's CA key, which our own tools would not do.
fn forge(deployment: &Deployment, spiffe_id: &str, name: &str) -> Result<IssuedFiles> {
    let authority = &deployment.authority;
    let authority_key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(authority.dir().join("ca.key"))?)?;
    let authority_certificate = std::fs::read_to_string(authority.ca_path())?;
    let issuer = rcgen::Issuer::from_ca_cert_pem(&authority_certificate, &authority_key)?;
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(spiffe_id.try_into()?)];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = rcgen::KeyPair::generate()?;
    let mut files = deployment.issue("agent/agent-01");
    files.certificate.set_file_name(format!("{name}.crt"));
    files.key.set_file_name(format!("{name}.key"));
    std::fs::write(&files.certificate, params.signed_by(&key, &issuer)?.pem())?;
    std::fs::write(&files.key, key.serialize_pem())?;
    Ok(files)
}
