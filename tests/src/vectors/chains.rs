//! Certificate chains of components.

use std::collections::BTreeMap;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};

use super::file::{Bytes, ChainVector, File, Leaf, Outcome, unhex};
use super::form::refused;
use super::identities::{Authority, CHAIN_END, NOW, TRUST_DOMAIN, World, at, leaf_params};
use super::signer::Signer;

const AGENT: &str = "spiffe://ransomeye.test/agent/agent-01";

/// An RSA key of 1,024 bits, made for this by OpenSSL.
const SHORT_RSA: &str = "30819f300d06092a864886f70d010101050003818d0030818902818100c8e306b81e5ae53376a6f98f38b1cd7c1b771b573955d8\
                         24a553d17e68a8c6e26bae37247790cf0dc51143cd9a267d80df24a7180044a07f731f8a9cb83d564a5aba81610f2c1dbccc0c2b\
                         47c84e65d177a3c5104bcda54086828bf3a54daab526e0143af3efa84ed129b492ea01eb7ed09409fec6a8a334bbcfe7f33a55d7\
                         3f0203010001";

struct Vectors<'a> {
    world: &'a World<'a>,
    all: Vec<ChainVector>,
}

impl Vectors<'_> {
    fn add(&mut self, name: &str, comment: &str, chain: Vec<Vec<u8>>, outcome: Outcome<Leaf>) {
        self.all.push(ChainVector {
            name: name.into(),
            comment: comment.into(),
            chain: chain.into_iter().map(Bytes).collect(),
            roots: self.world.roots(),
            trust_domain: TRUST_DOMAIN.into(),
            clock: at(NOW),
            outcome,
        });
    }

    fn refuse(&mut self, name: &str, comment: &str, chain: Vec<Vec<u8>>, reason: &str) {
        self.add(name, comment, chain, refused(&format!("Chain.{reason}"), None));
    }

    /// A chain whose leaf is not as it should be.
    fn refuse_leaf(
        &mut self,
        name: &str,
        comment: &str,
        reason: &str,
        change: impl FnOnce(&mut CertificateParams) -> Result<()>,
    ) -> Result<()> {
        let mut params = leaf_params(0x10, AGENT)?;
        change(&mut params)?;
        let chain = self.world.chain(&params, &Signer::ed25519([0x1e; 32]).spki)?;
        self.refuse(name, comment, chain, reason);
        Ok(())
    }
}

fn proven(principal: &str, chain_not_after: i64) -> Outcome<Leaf> {
    Outcome::Accepted(Leaf { principal: principal.into(), chain_not_after: chain_not_after.to_string() })
}

pub(crate) fn file(world: &World<'_>) -> Result<File<ChainVector>> {
    let mut vectors = Vectors { world, all: Vec::new() };
    accepted(&mut vectors)?;
    leaves(&mut vectors)?;
    names(&mut vectors)?;
    paths(&mut vectors)?;
    keys(&mut vectors)?;
    Ok(File {
        about:
            "Certificate chains, the leaf first, without the root. `chain_not_after` is the earliest end of the chain."
                .into(),
        bundles: BTreeMap::default(),
        vectors: vectors.all,
    })
}

fn accepted(vectors: &mut Vectors<'_>) -> Result<()> {
    let world = vectors.world;
    for (name, key) in [
        ("Ed25519", Signer::ed25519([0x1e; 32])),
        ("P-256", Signer::p256()),
        ("P-384", Signer::p384()),
        ("RSA", Signer::rsa()),
    ] {
        let chain = world.chain(&leaf_params(0x10, AGENT)?, &key.spki)?;
        vectors.add(&format!("{name} leaf"), "below an intermediate", chain, proven(AGENT, CHAIN_END));
    }
    let spki = Signer::ed25519([0x1e; 32]).spki;
    let direct = vec![world.root.issue(&leaf_params(0x10, AGENT)?, &spki)?];
    vectors.add("leaf below the root", "no intermediate", direct, proven(AGENT, CHAIN_END));

    let mut params = leaf_params(0x10, AGENT)?;
    params.key_usages.clear();
    let chain = world.chain(&params, &spki)?;
    vectors.add("leaf without key usage", "the key may be used for anything", chain, proven(AGENT, CHAIN_END));

    let mut params = leaf_params(0x10, AGENT)?;
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let chain = world.chain(&params, &spki)?;
    vectors.add("leaf that also serves", "clientAuth beside serverAuth", chain, proven(AGENT, CHAIN_END));

    let short =
        world.root.below(0xa3, "short-lived intermediate", |it| it.not_after = rcgen::date_time_ymd(2100, 1, 1))?;
    let chain = vec![short.issue(&leaf_params(0x10, AGENT)?, &spki)?, short.der.clone()];
    let comment = "the intermediate ends first, and the chain with it";
    vectors.add("intermediate that ends first", comment, chain, proven(AGENT, 4_102_444_800_000));
    Ok(())
}

fn leaves(vectors: &mut Vectors<'_>) -> Result<()> {
    vectors.refuse_leaf("expired leaf", "its last second is in 2025", "Expired", |it| {
        it.not_after = rcgen::date_time_ymd(2025, 1, 1);
        Ok(())
    })?;
    vectors.refuse_leaf("leaf of the future", "it begins in 2110", "NotYetValid", |it| {
        it.not_before = rcgen::date_time_ymd(2110, 1, 1);
        Ok(())
    })?;
    vectors.refuse_leaf("authority as leaf", "an authority is no component", "CaAsLeaf", |it| {
        it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(())
    })?;
    vectors.refuse_leaf("leaf that may not sign", "keyAgreement alone", "NoDigitalSignature", |it| {
        it.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        Ok(())
    })?;
    vectors.refuse_leaf("leaf that serves only", "serverAuth alone", "NoClientAuth", |it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(())
    })?;
    vectors.refuse_leaf(
        "leaf without extended key usage",
        "absent is too much: it could play a server",
        "NoClientAuth",
        |it| {
            it.extended_key_usages.clear();
            Ok(())
        },
    )?;
    vectors.refuse_leaf("leaf for any purpose", "anyExtendedKeyUsage is not clientAuth", "NoClientAuth", |it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
        Ok(())
    })?;
    vectors.refuse_leaf("unknown critical extension", "RFC 5280, section 4.2", "InvalidChain", |it| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        it.custom_extensions = vec![extension];
        Ok(())
    })?;
    Ok(())
}

fn names(vectors: &mut Vectors<'_>) -> Result<()> {
    let uri = |text: &str| -> Result<SanType> { Ok(SanType::URI(text.try_into()?)) };
    vectors.refuse_leaf("no name", "no subject alternative name at all", "NoIdentity", |it| {
        it.subject_alt_names.clear();
        Ok(())
    })?;
    vectors.refuse_leaf("host name alone", "a host is no component", "NoIdentity", |it| {
        it.subject_alt_names = vec![SanType::DnsName("agent-01.example".try_into()?)];
        Ok(())
    })?;
    vectors.refuse_leaf("two identities", "exactly one", "SeveralIdentities", |it| {
        it.subject_alt_names.push(uri("spiffe://ransomeye.test/core/core-01")?);
        Ok(())
    })?;
    vectors.refuse_leaf("identity and host name", "a broker might know it by the other name", "ExtraName", |it| {
        it.subject_alt_names.push(SanType::DnsName("agent-01.example".try_into()?));
        Ok(())
    })?;
    vectors.refuse_leaf(
        "identity and mail address",
        "a broker might know it by the other name",
        "ExtraName",
        |it| {
            it.subject_alt_names.push(SanType::Rfc822Name("agent@ransomeye.test".try_into()?));
            Ok(())
        },
    )?;
    vectors.refuse_leaf("identity and another URI", "a broker might know it by the other name", "ExtraName", |it| {
        it.subject_alt_names.push(uri("https://ransomeye.test/agent-01")?);
        Ok(())
    })?;
    for (name, id) in [
        ("identity with capitals", "spiffe://ransomeye.test/agent/Agent-01"),
        ("identity without component", "spiffe://ransomeye.test/agent"),
        ("identity with a third part", "spiffe://ransomeye.test/agent/agent-01/x"),
        ("identity with a dot", "spiffe://ransomeye.test/agent/agent.01"),
        ("identity that ends with a hyphen", "spiffe://ransomeye.test/agent/agent-"),
        ("identity with a port", "spiffe://ransomeye.test:443/agent/agent-01"),
        ("identity with a query", "spiffe://ransomeye.test/agent/agent-01?a=b"),
        ("identity with another scheme's capitals", "SPIFFE://ransomeye.test/agent/agent-01"),
    ] {
        vectors.refuse_leaf(name, "not the form of an identity", "MalformedIdentity", |it| {
            it.subject_alt_names = vec![uri(id)?];
            Ok(())
        })?;
    }
    vectors.refuse_leaf(
        "another trust domain",
        "roots vouch for their own domain alone",
        "ForeignTrustDomain",
        |it| {
            it.subject_alt_names = vec![uri("spiffe://elsewhere.test/agent/agent-01")?];
            Ok(())
        },
    )?;
    Ok(())
}

fn paths(vectors: &mut Vectors<'_>) -> Result<()> {
    let world = vectors.world;
    let (params, spki) = (leaf_params(0x10, AGENT)?, Signer::ed25519([0x1e; 32]).spki);
    let good = world.chain(&params, &spki)?;
    vectors.refuse("no certificate", "there is nothing to validate", Vec::new(), "MalformedCertificate");
    vectors.refuse("not a certificate", "not DER", vec![b"certificate".to_vec()], "MalformedCertificate");
    let tail = [&good[0][..], &[0]].concat();
    vectors.refuse(
        "a byte behind the leaf",
        "not one element of DER",
        vec![tail, good[1].clone()],
        "MalformedCertificate",
    );
    vectors.refuse("no intermediate", "the path to the root is not there", good[..1].to_vec(), "UnknownIssuer");
    let mut altered = good.clone();
    *altered[0].last_mut().expect("bytes") ^= 1;
    vectors.refuse("altered signature of the leaf", "one bit", altered, "UnknownIssuer");
    let mut altered = good.clone();
    *altered[1].last_mut().expect("bytes") ^= 1;
    vectors.refuse("altered signature of the intermediate", "one bit", altered, "UnknownIssuer");

    let stranger = Authority::root(0xb1, "root of the test vectors", TRUST_DOMAIN)?;
    let comment = "same name and trust domain, another key";
    vectors.refuse("another root", comment, vec![stranger.issue(&params, &spki)?], "UnknownIssuer");
    let comment = "a root that comes along is not trusted for that";
    vectors.refuse(
        "root in the chain",
        comment,
        vec![stranger.issue(&params, &spki)?, stranger.der.clone()],
        "UnknownIssuer",
    );

    let past = world.root.below(0xa4, "past intermediate", |it| it.not_after = rcgen::date_time_ymd(2025, 1, 1))?;
    let chain = vec![past.issue(&params, &spki)?, past.der.clone()];
    vectors.refuse("expired intermediate", "its last second is in 2025", chain, "InvalidChain");
    let plain = world.root.below(0xa5, "no authority", |it| it.is_ca = IsCa::ExplicitNoCa)?;
    let chain = vec![plain.issue(&params, &spki)?, plain.der.clone()];
    vectors.refuse("intermediate that is no authority", "CA is false", chain, "InvalidChain");
    let deep = world.intermediate.below(0xa6, "too deep an intermediate", |_| ())?;
    let chain = vec![deep.issue(&params, &spki)?, deep.der.clone(), good[1].clone()];
    vectors.refuse("too long a path", "the first intermediate has pathLenConstraint 0", chain, "InvalidChain");
    Ok(())
}

fn keys(vectors: &mut Vectors<'_>) -> Result<()> {
    let world = vectors.world;
    let params = leaf_params(0x10, AGENT)?;
    let chain = world.chain(&params, &unhex(SHORT_RSA).expect("hexadecimal"))?;
    vectors.refuse("RSA of 1,024 bits", "at least 2,048", chain, "WeakRsaKey");
    let mut k256 =
        b"\x30\x56\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x0a\x03\x42\x00\x04".to_vec();
    k256.extend([0x42; 64]);
    vectors.refuse("secp256k1", "a curve that TLS 1.3 does not have", world.chain(&params, &k256)?, "UnsupportedKey");
    Ok(())
}
