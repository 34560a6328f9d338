//! A rogue server waits for a client of ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bus_client::{BusClient, BusOptions};
use bus_natsd::NatsServer;
use bus_tls::pki::{Authority, IssuedFiles, Profile};
use bus_tls::{TlsIdentity, TlsOptions};
use tokio::process::Command;

use super::certificates::rogue_authority;
use super::raw::{Session, soon, tls};
use super::{Evidence, Trial};
use crate::deployment::{Deployment, pinned_server};

const VICTIM: &str = "agent/agent-01";

/// The rogue CA bears another name. One that bears the true one's is refused as well: the suite of `bus-tls` tries it.
const UNKNOWN_AUTHORITY: &str = "UnknownIssuer";

/// A real nats-server that presents this certificate, and admits whom the deployment's own server admits.
fn rogue_server(deployment: &Deployment, files: &IssuedFiles) -> Result<NatsServer> {
    let mut config = deployment.server.config().clone();
    config.port = 0;
    config.tls.cert.clone_from(&files.certificate);
    config.tls.key.clone_from(&files.key);
    Ok(NatsServer::start(pinned_server(), config)?)
}

/// Connects our client to a server that it must refuse.
pub(super) async fn victim_refuses(options: BusOptions) -> Result<Evidence> {
    match soon("the victim's verdict", BusClient::connect(options)).await? {
        Ok(_) => bail!("the victim connects"),
        Err(error) => Evidence::of_victim(&error).with_context(|| format!("another error: {error}")),
    }
}

fn names_reason(evidence: Evidence, reason: &str) -> Result<Evidence> {
    ensure!(evidence.to_string().contains(reason), "refused for another reason than {reason}: {evidence}");
    Ok(evidence)
}

fn broker_certificate(authority: &Authority, folder: &Path, host: &str) -> Result<IssuedFiles> {
    let profile = Profile::broker("rogue".parse()?, [host])?;
    Ok(authority.issue(&profile)?.write(folder, true)?)
}

pub(super) async fn agents_certificate() -> Result<Trial> {
    let deployment = Deployment::start(&["agent/agent-01", "agent/agent-02"]);
    let identity = deployment.identity(VICTIM);
    let rogue = rogue_server(&deployment, &deployment.issue("agent/agent-02"))?;
    let refusal = victim_refuses(BusOptions::new(rogue.url(), identity.clone())).await;
    let honest =
        rogue_server(&deployment, &broker_certificate(&deployment.authority, deployment.path(), "127.0.0.1")?)?;
    let control = BusClient::connect(BusOptions::new(honest.url(), identity)).await;
    Ok(Trial {
        refusal: refusal.and_then(|evidence| names_reason(evidence, "extended key usage for server authentication")),
        control: control.map(drop).context("the same server with a server's certificate"),
    })
}

pub(super) async fn another_ca() -> Result<Trial> {
    let deployment = Deployment::start(&[VICTIM]);
    let identity = deployment.identity(VICTIM);
    let authority = rogue_authority(deployment.path())?;
    let rogue = rogue_server(&deployment, &broker_certificate(&authority, authority.dir(), "127.0.0.1")?)?;
    let refusal = victim_refuses(BusOptions::new(rogue.url(), identity.clone())).await;
    let honest =
        rogue_server(&deployment, &broker_certificate(&deployment.authority, deployment.path(), "127.0.0.1")?)?;
    let control = BusClient::connect(BusOptions::new(honest.url(), identity)).await;
    Ok(Trial {
        refusal: refusal.and_then(|evidence| names_reason(evidence, UNKNOWN_AUTHORITY)),
        control: control.map(drop).context("the same server with a certificate of the deployment's CA"),
    })
}

pub(super) async fn another_host() -> Result<Trial> {
    let deployment = Deployment::start(&[VICTIM]);
    let identity = deployment.identity(VICTIM);
    // One server, whose certificate is good for one of its two names.
    let server =
        rogue_server(&deployment, &broker_certificate(&deployment.authority, deployment.path(), "localhost")?)?;
    let refusal = victim_refuses(BusOptions::new(server.url(), identity.clone())).await;
    let url = format!("tls://localhost:{}", server.port());
    let control = BusClient::connect(BusOptions::new(url, identity)).await;
    Ok(Trial {
        refusal: refusal.and_then(|evidence| names_reason(evidence, "not valid for name")),
        control: control.map(drop).context("the same server under the name of its certificate"),
    })
}

pub(super) async fn ca_that_the_system_trusts() -> Result<Trial> {
    let deployment = Deployment::start(&[VICTIM]);
    let authority = rogue_authority(deployment.path())?;
    let system_trust = authority.ca_path();
    let rogue = rogue_server(&deployment, &broker_certificate(&authority, authority.dir(), "127.0.0.1")?)?;
    let files = deployment.issue(VICTIM);
    let victim = Victim { files: &files, trust_root: &deployment.authority.ca_path(), system_trust: &system_trust };
    let refusal = match victim.dials(&rogue.url()).await?.strip_prefix("handshake: ") {
        Some(reason) => names_reason(Evidence::ClientHandshake(reason.into()), UNKNOWN_AUTHORITY),
        None => Err(anyhow!("the victim does not refuse the server")),
    };
    let control = async {
        // The certificate is good for whoever trusts what the variable names.
        soon("a greeting", Session::open(rogue.port(), tls(&system_trust, Some(&files))?))
            .await?
            .context("a client that trusts the system's CA")?;
        let answer = victim.dials(&deployment.server.url()).await?;
        ensure!(answer == "connected", "the victim and the true server: {answer}");
        Ok(())
    }
    .await;
    Ok(Trial { refusal, control })
}

/// A process of its own that connects with our client, while the system trusts another CA.
struct Victim<'a> {
    files: &'a IssuedFiles,
    trust_root: &'a Path,
    system_trust: &'a Path,
}

impl Victim<'_> {
    /// What it says about the server at this address.
    async fn dials(&self, url: &str) -> Result<String> {
        let output = Command::new(attacks_program()?)
            .args(["--as-victim", url])
            .args([&self.files.certificate, &self.files.key])
            .arg(self.trust_root)
            .env("SSL_CERT_FILE", self.system_trust)
            .env_remove("SSL_CERT_DIR")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output();
        let output = soon("the victim's process", output).await??;
        ensure!(output.status.success(), "the victim's process ended with {}", output.status);
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }
}

/// The program that plays the victim: this one, or the one beside the test that is running.
fn attacks_program() -> Result<PathBuf> {
    let name = format!("bus-attacks{}", std::env::consts::EXE_SUFFIX);
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).map(|folder| folder.join(&name)).find(|program| program.is_file());
    found.context("there is no bus-attacks program: build it with `cargo build -p bus-tests`")
}

/// Connects to `url` with our client and says what came of it: the part that runs in a process of its own.
///
/// # Errors
///
/// When the identity cannot be loaded: that is no verdict on the server.
pub async fn as_victim(url: &str, certificate: &str, key: &str, trust_root: &str) -> Result<String> {
    let identity = TlsIdentity::load(TlsOptions::new(certificate, key, trust_root))?;
    Ok(match BusClient::connect(BusOptions::new(url, identity)).await {
        Ok(_) => "connected".to_owned(),
        Err(error) => match Evidence::of_victim(&error) {
            Some(refusal) => format!("handshake: {refusal}"),
            None => format!("{error}"),
        },
    })
}
