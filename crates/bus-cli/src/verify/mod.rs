//! `bus verify`: a captured message, checked against a CA: without a connection, without an identity, and years later.

mod report;

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bus_client::leaf_facts;
use bus_crypto::trailer::TRAILER_LEN;
use bus_crypto::{
    Clock, Lifetime, MAX_BUNDLE_LEN, MAX_PREFIX_LEN, PayloadView, Scan, Unverified, UnverifiedBundle, VerifiedPrefix,
};
use bus_proto::{Address, AnyPayload, Destination, MessageType, Principal};
use bus_tls::{OfflineTrust, TRUST_ROOT_VARIABLE, TlsError, VerifiedLeaf};
use clap::Args;

use crate::capture::bundle_name;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::settings::Settings;

use report::Report;

pub(crate) const EXAMPLES: &str = "\
Examples:
  bus sub --capture evidence --as core/core-01
  bus verify evidence/DIGEST.envelope --ca pki/ca.crt --crl pki/crl.pem
  bus verify message.envelope --bundle message.bundle --ca ca-of-2026.crt --json

The certificate of the signer is judged as of the time that the message states. Exit code 0: it is
proven who signed; 1: it is not, or the certificate is revoked; 2: usage. Without a revocation list
nothing is known about revocation, and the output says so.";

/// How far the clocks of a message's sender and of the key's maker may differ, in milliseconds, as on a live bus.
const SKEW_MS: i64 = 30_000;

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The captured message: the bytes as they arrived
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Bundle of the key that signed it, unless the message carries that [default: KEY_ID.bundle beside FILE]
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// Checks the message, and says what is proven and what is not.
pub(crate) fn run(args: &VerifyArgs, settings: &Settings, output: Output) -> anyhow::Result<Outcome> {
    let ca = settings.ca().ok_or_else(|| {
        Failure::usage(format!("no CA certificate: give --ca FILE, {TRUST_ROOT_VARIABLE}, or `ca` in bus.toml"))
    })?;
    let file = &args.file;
    // Whatever is wrong, it comes to the same: nothing is proven.
    let not_verified = |error| Failure::failed(format!("`{}` is not verified: {error:#}", file.display()));
    let bytes = read(file, MAX_PREFIX_LEN + TRAILER_LEN).map_err(not_verified)?;
    let proof = Proof::new(&bytes, args, settings, &ca).map_err(not_verified)?;
    Report { file, crl: settings.crl(), proof: &proof }.print(output)?;
    Ok(if proof.revocation.is_none() { Outcome::Done } else { Outcome::Failed })
}

/// What a captured message proves.
struct Proof<'a> {
    message: VerifiedPrefix<'a>,
    lifetime: Lifetime,
    leaf: VerifiedLeaf,
    /// There is one if the certificate, or one above it, is revoked.
    revocation: Option<Revocation>,
    address: Address,
    items: Vec<Item<'a>>,
}

/// That a certificate is revoked.
struct Revocation {
    since_unix_ms: i64,
    serial: String,
}

/// One message of the envelope.
struct Item<'a> {
    message_id: &'a str,
    timestamp: i64,
    expires_at: Option<i64>,
    payload: AnyPayload,
}

impl<'a> Proof<'a> {
    fn new(bytes: &'a [u8], args: &VerifyArgs, settings: &Settings, ca: &Path) -> anyhow::Result<Self> {
        let unverified = Unverified::read(bytes)?;
        let encoded = bundle_of(&unverified, args)?;
        let bundle = UnverifiedBundle::read(&encoded).context("the key bundle")?;
        let (leaf, revocation) = judge(bundle.chain(), ca, settings.crl(), unverified.scan().timestamp())?;
        let facts = leaf_facts(&leaf)?;
        let clock = Clock::dangerous_without_now(SKEW_MS);
        let bundle = bundle.verify(&facts, &clock).context("the key bundle")?;
        let trust_domain = settings.trust_domain.as_ref().unwrap_or(&facts.principal.trust_domain);
        let message = unverified.verify(&bundle, trust_domain, &clock)?;
        let address = settings.root().parse(message.scan().subject()).context("give the --root of the deployment")?;
        check_destination(message.scan(), &address, message.principal())?;
        let items = items(message.scan(), &address.message_type)?;
        Ok(Self { message, lifetime: bundle.lifetime(), leaf, revocation, address, items })
    }
}

fn read(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).context("it cannot be read")?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        bail!("it has more than {limit} bytes, which nothing of its kind has");
    }
    Ok(bytes)
}

/// The bundle of the key that a message names.
fn bundle_of<'a>(message: &Unverified<'a>, args: &VerifyArgs) -> anyhow::Result<Cow<'a, [u8]>> {
    if let Some(inline) = message.scan().bundle() {
        return Ok(inline.into());
    }
    let beside = || args.file.with_file_name(bundle_name(&message.key_id()));
    let path = args.bundle.clone().unwrap_or_else(beside);
    let bytes = read(&path, MAX_BUNDLE_LEN).with_context(|| {
        format!(
            "it carries no key bundle, and `{}` is none of its key {}: give --bundle FILE; `bus keys fetch` gets it as long \
             as the keys stream has it",
            path.display(),
            message.key_id()
        )
    })?;
    Ok(bytes.into())
}

/// Whose certificate it was at that time. One that is revoked is judged nevertheless, and the revocation told.
fn judge(
    chain: &[&[u8]],
    ca: &Path,
    crl: Option<&Path>,
    at_unix_ms: i64,
) -> Result<(VerifiedLeaf, Option<Revocation>), TlsError> {
    match OfflineTrust::load(ca, crl, at_unix_ms)?.verify(chain) {
        Ok(leaf) => Ok((leaf, None)),
        Err(TlsError::RevokedSince { since_unix_ms, serial, .. }) => {
            let leaf = OfflineTrust::load(ca, None, at_unix_ms)?.verify(chain)?;
            Ok((leaf, Some(Revocation { since_unix_ms, serial })))
        }
        Err(error) => Err(error),
    }
}

/// A message that contradicts itself about its receiver was accepted by none.
fn check_destination(scan: &Scan<'_>, address: &Address, signer: &Principal) -> anyhow::Result<()> {
    let meant = match &address.destination {
        Destination::Events => None,
        Destination::Inbox(endpoint) => {
            Some(Principal { trust_domain: signer.trust_domain.clone(), endpoint: endpoint.clone() }.spiffe_id())
        }
    };
    if scan.destination() != meant.as_deref() {
        bail!("its destination is another one than its subject names");
    }
    Ok(())
}

/// The messages in an envelope, all of the type that its subject names.
fn items<'a>(scan: &Scan<'a>, message_type: &MessageType) -> anyhow::Result<Vec<Item<'a>>> {
    let item = |message_id, timestamp, expires_at, payload: &PayloadView<'_>| -> anyhow::Result<Item<'a>> {
        // Which custom type a name stands for, only the programs know that registered it.
        if !payload.kind().may_be(message_type) {
            bail!("its payload is of another type than its subject names, {message_type}");
        }
        Ok(Item { message_id, timestamp, expires_at, payload: payload.decode()? })
    };
    if scan.members().is_empty() {
        return Ok(vec![item(scan.message_id(), scan.timestamp(), scan.expires_at(), scan.payload())?]);
    }
    let members = scan.members().iter();
    members.map(|member| item(member.message_id(), member.timestamp(), member.expires_at(), member.payload())).collect()
}
