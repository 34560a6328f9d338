//! Key bundles.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use bus_proto::prost::Message as _;
use bus_proto::v1::{KeyBundle, KeyStatement};

use super::corruptions::{Corruption, Subject, ignored};
use super::file::{BundleVector, Bytes, File, Key, Outcome, Time};
use super::form::{bytes, field, number, refused};
use super::identities::{CHAIN_END, Component, HOUR, NOW, SKEW, TRUST_DOMAIN, World, at, leaf_params};
use super::sha256;
use super::signer::Signer;

const AGENT: &str = "spiffe://ransomeye.test/agent/agent-01";

/// The order of P-256, big-endian.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

struct Vectors<'a> {
    world: &'a World<'a>,
    agent: Component<'a>,
    all: Vec<BundleVector>,
}

impl Vectors<'_> {
    fn add(&mut self, name: &str, comment: &str, bundle: Vec<u8>, clock: Time, outcome: Outcome<Key>) {
        self.all.push(BundleVector {
            name: name.into(),
            comment: comment.into(),
            bundle: Bytes(bundle),
            roots: self.world.roots(),
            trust_domain: TRUST_DOMAIN.into(),
            clock,
            outcome,
        });
    }

    fn accept(&mut self, name: &str, comment: &str, component: &Component<'_>, bundle: Vec<u8>, clock: Time) {
        let key = Key {
            key_id: Bytes(sha256(&bundle).to_vec()),
            principal: component.principal.clone(),
            public_key: Bytes(component.session.ed25519_public().to_vec()),
        };
        self.add(name, comment, bundle, clock, Outcome::Accepted(key));
    }

    fn refuse(&mut self, name: &str, comment: &str, bundle: Vec<u8>, reason: &str) {
        self.add(name, comment, bundle, at(NOW), refused(reason, None));
    }

    /// The agent's bundle, signed as it should be, with a statement that is not as it should be.
    fn refuse_statement(
        &mut self,
        name: &str,
        comment: &str,
        reason: &str,
        change: impl FnOnce(&mut KeyStatement),
    ) -> Result<()> {
        let bundle = self.agent.bundle_with(change)?;
        self.refuse(name, comment, bundle, reason);
        Ok(())
    }

    /// The agent's bundle, changed outside of its statement.
    fn refuse_altered(
        &mut self,
        name: &str,
        comment: &str,
        reason: &str,
        change: impl FnOnce(&mut KeyBundle),
    ) -> Result<()> {
        let mut bundle = KeyBundle::decode(self.agent.bundle()?.as_slice())?;
        change(&mut bundle);
        self.refuse(name, comment, bundle.encode_to_vec(), reason);
        Ok(())
    }
}

pub(crate) fn file(world: &World<'_>) -> Result<File<BundleVector>> {
    let mut vectors = Vectors { world, agent: world.agent()?, all: Vec::new() };
    accepted(&mut vectors)?;
    encodings(&mut vectors)?;
    statements(&mut vectors)?;
    times(&mut vectors)?;
    signatures(&mut vectors)?;
    certificates(&mut vectors)?;
    orders(&mut vectors)?;
    Ok(File {
        about: "Key bundles, their chains included, as a receiver with these roots and this clock verifies them."
            .into(),
        bundles: BTreeMap::default(),
        vectors: vectors.all,
    })
}

fn accepted(vectors: &mut Vectors<'_>) -> Result<()> {
    let world = vectors.world;
    for (name, leaf) in [
        ("scheme 0x0807", Signer::ed25519([0x1e; 32])),
        ("scheme 0x0403", Signer::p256()),
        ("scheme 0x0503", Signer::p384()),
        ("scheme 0x0804", Signer::rsa()),
    ] {
        let component = world.component(AGENT, 7, leaf)?;
        vectors.accept(name, "a good bundle", &component, component.bundle()?, at(NOW));
    }
    let p256 = world.component(AGENT, 7, Signer::p256())?;
    let mut twin = KeyBundle::decode(p256.bundle()?.as_slice())?;
    twin.leaf_signature = twin_of(&twin.leaf_signature).context("an ECDSA signature")?.into();
    let comment = "(r, n - s) holds as well: a bundle that anybody can make, with a key id that nobody signs under";
    vectors.accept("the twin of an ECDSA signature", comment, &p256, twin.encode_to_vec(), at(NOW));

    let agent = world.agent()?;
    let encoded = agent.statement().encode_to_vec();
    let later = agent.seal(&[encoded, ignored()].concat())?.encode_to_vec();
    vectors.accept("a statement with unknown fields", "both signatures cover them", &agent, later, at(NOW));
    let bundle = agent.bundle()?;
    let statement = agent.statement();
    let early = at(statement.not_before - SKEW);
    vectors.accept("as early as it may be", "not_before less the skew", &agent, bundle.clone(), early);
    let late = at(statement.verify_until);
    vectors.accept("as late as it may be", "verify_until itself, without a skew", &agent, bundle.clone(), late);
    let offline = Time { now: None, skew: SKEW.to_string() };
    vectors.accept("evidence", "whoever verifies it years later knows no now", &agent, bundle, offline);
    let lasting = agent.bundle_with(|it| it.verify_until = CHAIN_END)?;
    vectors.accept("as lasting as its chain", "to the last millisecond", &agent, lasting, at(NOW));
    let brief = agent.bundle_with(|it| {
        it.sign_until = it.not_before + 1;
        it.verify_until = it.sign_until;
    })?;
    vectors.accept("as brief as it may be", "one millisecond", &agent, brief, at(NOW));
    let mut direct = world.agent()?;
    direct.chain = vec![world.root.issue(&leaf_params(7, AGENT)?, &direct.leaf.spki)?];
    vectors.accept("a leaf below the root", "a chain of one", &direct, direct.bundle()?, at(NOW));
    Ok(())
}

/// The other ECDSA signature that holds for the same key and message.
fn twin_of(der: &[u8]) -> Option<Vec<u8>> {
    let (r, rest) = integer(der.get(2..)?)?;
    let (s, _) = integer(rest)?;
    let mut padded = [0_u8; 32];
    padded[32 - s.len()..].copy_from_slice(s);
    let (mut other, mut borrow) = ([0_u8; 32], 0_i16);
    for index in (0..32).rev() {
        let difference = i16::from(P256_ORDER[index]) - i16::from(padded[index]) - borrow;
        borrow = i16::from(difference < 0);
        [other[index], _] = difference.to_le_bytes();
    }
    let content = [written(r), written(&other)].concat();
    Some([vec![0x30, u8::try_from(content.len()).ok()?], content].concat())
}

/// The digits of a DER integer, and what follows it.
fn integer(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (digits, rest) = der.get(2..)?.split_at_checked(usize::from(*der.get(1)?))?;
    Some((digits.strip_prefix(&[0]).unwrap_or(digits), rest))
}

/// A DER integer of these digits.
fn written(digits: &[u8]) -> Vec<u8> {
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let digits = &digits[zeros..];
    let sign = if digits.first().is_some_and(|digit| *digit > 0x7f) { &[0][..] } else { &[] };
    let length = (digits.len() + sign.len()).to_le_bytes()[0];
    [&[2, length][..], sign, digits].concat()
}

fn encodings(vectors: &mut Vectors<'_>) -> Result<()> {
    let good = KeyBundle::decode(vectors.agent.bundle()?.as_slice())?;
    let outer = Subject {
        place: "bundle",
        title: "bundle",
        fields: vec![
            bytes(1, &good.statement),
            bytes(2, &good.possession_signature),
            number(3, good.scheme.into()),
            bytes(4, &good.leaf_signature),
        ],
        once: Some(2),
        closed: true,
        replacements: vec![
            ("possession_signature short", "63 bytes", 1, bytes(2, &[1; 63]), "OutOfBounds"),
            (
                "scheme above 0xffff",
                "a decoder would cut nothing off, but TLS has 16 bits",
                2,
                number(3, 0x1_0807),
                "OutOfBounds",
            ),
            ("scheme 0", "0 is not encoded", 2, number(3, 0), "ExplicitDefault"),
            ("scheme as bytes", "wire type 0", 2, bytes(3, &[8, 7]), "WrongWireType"),
            ("leaf_signature long", "1,025 bytes", 3, bytes(4, &[1; 1_025]), "OutOfBounds"),
            ("leaf_signature empty", "from 1 byte", 3, bytes(4, b""), "ExplicitDefault"),
        ],
        mandatory: vec![(0, "statement"), (1, "possession_signature"), (2, "scheme"), (3, "leaf_signature")],
    };
    for Corruption { name, comment, message, reason } in outer.corruptions() {
        vectors.add(&name, &comment, message, at(NOW), refused(&reason, Some(outer.place)));
    }
    let inner = inner(&vectors.agent.statement());
    for Corruption { name, comment, message, reason } in inner.corruptions() {
        let bundle = vectors.agent.seal(&message)?.encode_to_vec();
        vectors.add(&name, &comment, bundle, at(NOW), refused(&reason, Some(inner.place)));
    }
    let empty = refused("Scan.Missing", Some("bundle"));
    vectors.add("bundle: no bytes", "nothing is there", Vec::new(), at(NOW), empty);
    let long = bytes(1, &vec![0; 16_384]);
    vectors.add("bundle: too long", "more than 16,384 bytes", long, at(NOW), refused("Scan.TooLong", Some("bundle")));
    let both = vectors.agent.seal(&[0x80])?.encode_to_vec();
    let outcome = refused("Scan.UnknownField", Some("bundle"));
    let comment = "the statement is wrong as well, and comes later";
    vectors.add("bundle: the bundle comes first", comment, [both, number(5, 1)].concat(), at(NOW), outcome);
    Ok(())
}

/// What can be wrong with the encoding of a statement.
fn inner(good: &KeyStatement) -> Subject {
    let moment = |field_number, value: i64| number(field_number, value.unsigned_abs());
    Subject {
        place: "statement",
        title: "statement",
        fields: vec![
            bytes(1, good.principal.as_bytes()),
            bytes(2, &good.public_key),
            moment(3, good.not_before),
            moment(4, good.sign_until),
            moment(5, good.verify_until),
            good.chain.iter().map(|der| bytes(6, der)).collect::<Vec<_>>().concat(),
        ],
        once: Some(1),
        closed: false,
        replacements: vec![
            ("principal too long", "513 bytes", 0, bytes(1, &[b'p'; 513]), "OutOfBounds"),
            ("principal not UTF-8", "not UTF-8", 0, bytes(1, &[0xff]), "NotUtf8"),
            ("public_key short", "31 bytes", 1, bytes(2, &[1; 31]), "OutOfBounds"),
            ("not_before 0", "0 is not encoded", 2, number(3, 0), "ExplicitDefault"),
            ("sign_until negative", "-1 as protobuf writes it", 3, number(4, u64::MAX), "OutOfBounds"),
            ("verify_until in eight bytes", "wire type 0", 4, field(5, 1, &[1; 8]), "WrongWireType"),
            ("five certificates", "at most 4", 5, bytes(6, b"der").repeat(5), "OutOfBounds"),
            ("an empty certificate", "none of them", 5, bytes(6, b""), "OutOfBounds"),
            ("a certificate as a number", "wire type 2", 5, number(6, 1), "WrongWireType"),
        ],
        mandatory: vec![
            (0, "principal"),
            (1, "public_key"),
            (2, "not_before"),
            (3, "sign_until"),
            (4, "verify_until"),
            (5, "chain"),
        ],
    }
}

fn statements(vectors: &mut Vectors<'_>) -> Result<()> {
    for (name, principal) in [
        ("a principal without scheme", "ransomeye.test/agent/agent-01"),
        ("a principal without component", "spiffe://ransomeye.test/agent"),
        ("a principal in capitals", "spiffe://ransomeye.test/AGENT/agent-01"),
        ("a principal with a wildcard", "spiffe://ransomeye.test/agent/*"),
        ("a principal with a dot", "spiffe://ransomeye.test/agent/agent.01"),
    ] {
        vectors.refuse_statement(name, "no SPIFFE ID of the bus", "Principal", |it| it.principal = principal.into())?;
    }
    for role in ["broker", "relay"] {
        let principal = format!("spiffe://ransomeye.test/{role}/nats-1");
        let comment = "what stands between components vouches for no message";
        vectors
            .refuse_statement(&format!("the role {role}"), comment, "ReservedRole", |it| it.principal = principal)?;
    }
    for (name, principal) in [
        ("another component's name", "spiffe://ransomeye.test/agent/agent-02"),
        ("another role's name", "spiffe://ransomeye.test/core/agent-01"),
        ("another trust domain's name", "spiffe://elsewhere.test/agent/agent-01"),
    ] {
        let comment = "the statement names somebody else than the certificate";
        vectors.refuse_statement(name, comment, "OtherPrincipal", |it| it.principal = principal.into())?;
    }
    for (name, key, reason) in [
        ("a key of small order, y = 1", small_order(&[1]), "SigningKey.SmallOrder"),
        ("a key of small order, y = 0", small_order(&[]), "SigningKey.SmallOrder"),
        ("a key of small order, y = 0, sign set", with_sign(small_order(&[])), "SigningKey.SmallOrder"),
        ("a key of small order, y = -1", vec_of(0xec, 0x7f), "SigningKey.SmallOrder"),
        ("a key of small order, y = p", vec_of(0xed, 0x7f), "SigningKey.SmallOrder"),
        ("a key of small order, y = p + 1", vec_of(0xee, 0x7f), "SigningKey.SmallOrder"),
        ("a key of order 8", order_8(), "SigningKey.SmallOrder"),
        ("the other key of order 8", order_8_negated(), "SigningKey.SmallOrder"),
        ("a key that is not canonical, y = p + 2", vec_of(0xef, 0x7f), "SigningKey.NotCanonical"),
        ("a key that is not canonical, y = 2^255 - 1", vec_of(0xff, 0xff), "SigningKey.NotCanonical"),
        // y = 2 is on no point of the curve.
        ("a key that is no point", small_order(&[2]), "Possession.Mismatch"),
    ] {
        let comment = "refused whenever it is loaded: others than a holder could sign for it";
        vectors.refuse_statement(name, comment, reason, |it| it.public_key = key.into())?;
    }
    Ok(())
}

fn small_order(start: &[u8]) -> Vec<u8> {
    let mut key = vec![0; 32];
    key[..start.len()].copy_from_slice(start);
    key
}

fn with_sign(mut key: Vec<u8>) -> Vec<u8> {
    key[31] |= 0x80;
    key
}

fn vec_of(first: u8, last: u8) -> Vec<u8> {
    let mut key = vec![0xff; 32];
    (key[0], key[31]) = (first, last);
    key
}

fn order_8() -> Vec<u8> {
    let text = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
    super::file::unhex(text).expect("hexadecimal")
}

fn order_8_negated() -> Vec<u8> {
    let text = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    super::file::unhex(text).expect("hexadecimal")
}

fn times(vectors: &mut Vectors<'_>) -> Result<()> {
    let order = "not_before < sign_until <= verify_until, within 24 hours";
    vectors.refuse_statement("no time to sign", order, "Lifetime", |it| it.sign_until = it.not_before)?;
    vectors.refuse_statement("more than 24 hours", order, "Lifetime", |it| it.sign_until += 1)?;
    vectors.refuse_statement("verified for less than signed", order, "Lifetime", |it| {
        it.verify_until = it.sign_until - 1;
    })?;
    vectors.refuse_statement("from 1 to the end of time", "differences do not overflow", "Lifetime", |it| {
        (it.not_before, it.sign_until, it.verify_until) = (1, i64::MAX, i64::MAX);
    })?;
    let comment = "one millisecond more than the chain";
    vectors.refuse_statement("outlives its chain", comment, "OutlivesChain", |it| it.verify_until = CHAIN_END + 1)?;
    let bundle = vectors.agent.bundle()?;
    let statement = vectors.agent.statement();
    let after = at(statement.verify_until + 1);
    vectors.add("expired", "no skew is granted", bundle.clone(), after, refused("Expired", None));
    let before = at(statement.not_before - SKEW - 1);
    vectors.add("not yet valid", "by one millisecond more than the skew", bundle, before, refused("NotYetValid", None));
    Ok(())
}

fn signatures(vectors: &mut Vectors<'_>) -> Result<()> {
    let (world, agent) = (vectors.world, vectors.world.agent()?);
    let recorder = world.recorder;
    let statement = agent.statement().encode_to_vec();
    let victim = Signer::ed25519([8; 32]).ed25519_public().to_vec();
    let comment = "whoever registers a key has to hold it";
    vectors.refuse_statement("another's key", comment, "Possession.Mismatch", |it| it.public_key = victim.into())?;
    for (name, signed) in [
        ("possession without its context", statement.clone()),
        ("possession with the envelope's context", [b"ransomeye.v1 envelope\0", &statement[..]].concat()),
        ("possession without the zero byte", [b"ransomeye.v1 key possession", &statement[..]].concat()),
        ("possession of a digest", [b"ransomeye.v1 key possession\0", &sha256(&statement)[..]].concat()),
    ] {
        let signature = agent.session.sign(&signed, recorder)?;
        vectors.refuse_altered(name, "another domain", "Possession.Mismatch", |it| {
            it.possession_signature = signature.into();
        })?;
    }
    vectors.refuse_altered("possession of small order", "R is the neutral point", "Possession.SmallOrder", |it| {
        let mut signature = it.possession_signature.to_vec();
        signature[..32].copy_from_slice(&small_order(&[1]));
        it.possession_signature = signature.into();
    })?;
    let scheme = agent.leaf.scheme();
    let context = &b"ransomeye.v1 key bundle\0"[..];
    let in_tls = agent.leaf_message(b"TLS 1.3, client CertificateVerify\0", scheme, &statement);
    for (name, signed) in [
        ("leaf signature of a TLS handshake", in_tls),
        ("leaf signature without the zero byte", agent.leaf_message(b"ransomeye.v1 key bundle", scheme, &statement)),
        ("leaf signature without its context", agent.leaf_message(b"", scheme, &statement)),
        ("leaf signature without padding", agent.leaf_message(context, scheme, &statement)[64..].to_vec()),
        ("leaf signature over another scheme", agent.leaf_message(context, 0x0403, &statement)),
    ] {
        let signature = agent.leaf.sign(&signed, recorder)?;
        let comment = "another domain than that of bundles";
        vectors.refuse_altered(name, comment, "LeafSignature", |it| it.leaf_signature = signature.into())?;
    }
    vectors.refuse_altered("leaf signature altered", "one bit", "LeafSignature", |it| {
        let mut signature = it.leaf_signature.to_vec();
        signature[40] ^= 1;
        it.leaf_signature = signature.into();
    })?;
    let rsa = world.component(AGENT, 7, Signer::rsa())?;
    let mut bundle = KeyBundle::decode(rsa.bundle()?.as_slice())?;
    let signed = rsa.leaf_message(context, 0x0804, &bundle.statement);
    bundle.leaf_signature = Signer::rsa_pkcs1().sign(&signed, recorder)?.into();
    let comment = "scheme 0x0804 with the padding of 0x0401";
    vectors.refuse("PKCS#1 v1.5 under another name", comment, bundle.encode_to_vec(), "LeafSignature");
    Ok(())
}

fn certificates(vectors: &mut Vectors<'_>) -> Result<()> {
    let world = vectors.world;
    for scheme in [0x0401, 0x0403, 0x0804, 0x0809, 0xffff] {
        let name = format!("scheme {scheme:#06x} with an Ed25519 certificate");
        vectors.refuse_altered(&name, "the key allows one", "SchemeMismatch", |it| it.scheme = scheme)?;
    }
    let mut rsa = world.component(AGENT, 7, Signer::rsa())?;
    rsa.leaf = Signer::rsa_pkcs1();
    let comment = "TLS 1.3 knows it for certificates only";
    vectors.refuse("scheme 0x0401 with an RSA certificate", comment, rsa.bundle()?, "SchemeMismatch");

    let mut weak = world.agent()?;
    let neutral = [&weak.leaf.spki[..12], &small_order(&[1])].concat();
    weak.chain = world.chain(&leaf_params(7, AGENT)?, &neutral)?;
    let comment = "the rules for signing keys hold for the certificate's as well";
    vectors.refuse("a certificate with a key of small order", comment, weak.bundle()?, "LeafKey.SmallOrder");
    let large = [&weak.leaf.spki[..12], &vec_of(0xef, 0x7f)].concat();
    weak.chain = world.chain(&leaf_params(7, AGENT)?, &large)?;
    vectors.refuse("a certificate with a key that is not canonical", comment, weak.bundle()?, "LeafKey.NotCanonical");

    let mut bare = world.component(AGENT, 7, Signer::rsa_pkcs1())?;
    let spki = without_null(&bare.leaf.spki).context("an RSA key")?;
    bare.chain = world.chain(&leaf_params(7, AGENT)?, &spki)?;
    let comment = "the AlgorithmIdentifier is compared byte for byte";
    vectors.refuse("an RSA certificate without parameters", comment, bare.bundle()?, "UnsupportedLeafKey");

    let mut swapped = world.agent()?;
    swapped.chain.reverse();
    let comment = "the first certificate is the leaf: here, an authority is";
    vectors.refuse("the intermediate first", comment, swapped.bundle()?, "Chain.CaAsLeaf");
    let mut alone = world.agent()?;
    alone.chain.truncate(1);
    vectors.refuse("no intermediate", "the chain does not reach a root", alone.bundle()?, "Chain.UnknownIssuer");
    let mut past = world.agent()?;
    let mut params = leaf_params(7, AGENT)?;
    params.not_after = rcgen::date_time_ymd(2025, 1, 1);
    past.chain = world.chain(&params, &past.leaf.spki)?;
    vectors.refuse("an expired certificate", "it ended before the bundle begins", past.bundle()?, "Chain.Expired");
    Ok(())
}

/// An RSA public key whose algorithm lacks the parameter NULL.
fn without_null(spki: &[u8]) -> Option<Vec<u8>> {
    // SEQUENCE of a length in two bytes, then the algorithm of 15 bytes.
    let (head, rest) = spki.split_at_checked(4)?;
    let key = rest.strip_prefix(b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00")?;
    let length = u16::from_be_bytes([head[2], head[3]]).checked_sub(2)?.to_be_bytes();
    let algorithm = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    Some([&head[..2], &length, &algorithm[..], key].concat())
}

/// Where two things are wrong, the first in the order of checks is the reason.
fn orders(vectors: &mut Vectors<'_>) -> Result<()> {
    let comment = "the first check that fails gives the reason";
    vectors.refuse_statement("reserved role and bad times", comment, "ReservedRole", |it| {
        it.principal = "spiffe://ransomeye.test/relay/nats-1".into();
        it.sign_until = it.not_before;
    })?;
    vectors.refuse_statement("bad times and no chain to a root", comment, "Lifetime", |it| {
        it.sign_until = it.not_before;
        it.chain.truncate(1);
    })?;
    vectors.refuse_statement("other principal and too long", comment, "OtherPrincipal", |it| {
        it.principal = "spiffe://ransomeye.test/agent/agent-02".into();
        it.verify_until = CHAIN_END + 1;
    })?;
    vectors.refuse_statement("too long and not yet valid", comment, "OutlivesChain", |it| {
        it.not_before += 2 * HOUR;
        it.sign_until += HOUR;
        it.verify_until = CHAIN_END + 1;
    })?;
    vectors.refuse_statement("not yet valid and a weak key", comment, "NotYetValid", |it| {
        it.not_before += 2 * HOUR;
        it.public_key = small_order(&[1]).into();
    })?;
    vectors.refuse_altered("no possession and another scheme", comment, "Possession.Mismatch", |it| {
        it.possession_signature = vec![0x42; 64].into();
        it.scheme = 0x0403;
    })?;
    Ok(())
}
