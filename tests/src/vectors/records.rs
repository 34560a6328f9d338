//! Records of sealing keys.

use std::collections::BTreeMap;

use anyhow::Result;
use bus_proto::prost::Message as _;
use bus_proto::v1::{SealingKeyRecord, SealingKeyStatement};

use super::corruptions::{Corruption, Subject, ignored};
use super::epochs::OwnSealingKey;
use super::file::{Bytes, File, Outcome, RecordVector, SealingKeyProof, Time};
use super::form::{bytes, field, number, refused};
use super::identities::{CHAIN_END, Component, HOUR, NOW, SKEW, TRUST_DOMAIN, World, at, leaf_params};
use super::sha256;
use super::signer::Signer;

const CORE: &str = "spiffe://ransomeye.test/core/core-01";
const CONTEXT: &[u8] = b"ransomeye.v1 sealing key\0";
const LONGEST: i64 = 30 * 24 * HOUR;

/// The u-coordinates of order 8, on the curve and on its twist (docs/wire.md).
const ORDER_8: [&str; 2] = [
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
];

struct Vectors<'a> {
    world: &'a World<'a>,
    core: Component<'a>,
    all: Vec<RecordVector>,
}

/// What a component states of its sealing key.
fn statement(component: &Component<'_>) -> SealingKeyStatement {
    SealingKeyStatement {
        principal: component.principal.clone(),
        version: 3,
        suite: 1,
        public_key: OwnSealingKey::new([0x5e; 32]).public.to_vec().into(),
        not_before: NOW,
        not_after: NOW + LONGEST,
        chain: component.chain.iter().map(|der| der.clone().into()).collect(),
    }
}

/// The record of any statement, signed by the certificate's key.
fn sign(component: &Component<'_>, statement: &[u8]) -> Result<SealingKeyRecord> {
    let scheme = component.leaf.scheme();
    let message = component.leaf_message(CONTEXT, scheme, statement);
    let leaf_signature = component.leaf.sign(&message, component.world.recorder)?;
    Ok(SealingKeyRecord { statement: statement.to_vec().into(), scheme, leaf_signature: leaf_signature.into() })
}

fn record_with(component: &Component<'_>, change: impl FnOnce(&mut SealingKeyStatement)) -> Result<Vec<u8>> {
    let mut statement = statement(component);
    change(&mut statement);
    Ok(sign(component, &statement.encode_to_vec())?.encode_to_vec())
}

impl Vectors<'_> {
    fn add(&mut self, name: &str, comment: &str, record: Vec<u8>, clock: Time, outcome: Outcome<SealingKeyProof>) {
        self.all.push(RecordVector {
            name: name.into(),
            comment: comment.into(),
            record: Bytes(record),
            roots: self.world.roots(),
            trust_domain: TRUST_DOMAIN.into(),
            clock,
            outcome,
        });
    }

    fn accept_at(
        &mut self,
        name: &str,
        comment: &str,
        component: &Component<'_>,
        clock: Time,
        change: impl FnOnce(&mut SealingKeyStatement),
    ) -> Result<()> {
        let mut stated = statement(component);
        change(&mut stated);
        let proof = SealingKeyProof {
            principal: stated.principal.clone(),
            version: stated.version.to_string(),
            public_key: Bytes(stated.public_key.to_vec()),
            lifetime: [stated.not_before.to_string(), stated.not_after.to_string()],
        };
        let record = sign(component, &stated.encode_to_vec())?.encode_to_vec();
        self.add(name, comment, record, clock, Outcome::Accepted(proof));
        Ok(())
    }

    fn refuse(&mut self, name: &str, comment: &str, record: Vec<u8>, reason: &str) {
        self.add(name, comment, record, at(NOW), refused(reason, None));
    }

    /// The core's record, signed as it should be, with a statement that is not as it should be.
    fn refuse_statement(
        &mut self,
        name: &str,
        comment: &str,
        reason: &str,
        change: impl FnOnce(&mut SealingKeyStatement),
    ) -> Result<()> {
        let record = record_with(&self.core, change)?;
        self.refuse(name, comment, record, reason);
        Ok(())
    }

    /// The core's record, changed outside of its statement.
    fn refuse_altered(
        &mut self,
        name: &str,
        comment: &str,
        reason: &str,
        change: impl FnOnce(&mut SealingKeyRecord),
    ) -> Result<()> {
        let mut record = sign(&self.core, &statement(&self.core).encode_to_vec())?;
        change(&mut record);
        self.refuse(name, comment, record.encode_to_vec(), reason);
        Ok(())
    }
}

pub(crate) fn file(world: &World<'_>) -> Result<File<RecordVector>> {
    let core = world.component(CORE, 9, Signer::ed25519([0x2e; 32]))?;
    let mut vectors = Vectors { world, core, all: Vec::new() };
    accepted(&mut vectors)?;
    encodings(&mut vectors)?;
    statements(&mut vectors)?;
    keys(&mut vectors)?;
    times(&mut vectors)?;
    signatures(&mut vectors)?;
    certificates(&mut vectors)?;
    orders(&mut vectors)?;
    Ok(File {
        about: "Records of sealing keys, their chains included, as a sender with these roots and this clock verifies them. \
                What it remembers of earlier records is not part of these."
            .into(),
        bundles: BTreeMap::default(),
        vectors: vectors.all,
    })
}

fn accepted(vectors: &mut Vectors<'_>) -> Result<()> {
    let world = vectors.world;
    for (name, leaf) in [
        ("scheme 0x0807", Signer::ed25519([0x2e; 32])),
        ("scheme 0x0403", Signer::p256()),
        ("scheme 0x0503", Signer::p384()),
        ("scheme 0x0804", Signer::rsa()),
    ] {
        vectors.accept_at(name, "a good record", &world.component(CORE, 9, leaf)?, at(NOW), |_| ())?;
    }
    let core = world.component(CORE, 9, Signer::ed25519([0x2e; 32]))?;
    let comment = "the same key, under another certificate: with the same version";
    let renewed = world.component(CORE, 10, Signer::ed25519([0x2f; 32]))?;
    vectors.accept_at("stated again", comment, &renewed, at(NOW), |_| ())?;
    vectors.accept_at("the first version", "1", &core, at(NOW), |it| it.version = 1)?;
    vectors.accept_at("the last version", "2^64 - 1", &core, at(NOW), |it| it.version = u64::MAX)?;
    vectors.accept_at("as early as it may be", "not_before less the skew", &core, at(NOW - SKEW), |_| ())?;
    let comment = "not_after itself, without a skew";
    vectors.accept_at("as late as it may be", comment, &core, at(NOW + LONGEST), |_| ())?;
    let comment = "to the last millisecond";
    vectors.accept_at("as lasting as its chain", comment, &core, at(CHAIN_END - HOUR), |it| {
        (it.not_before, it.not_after) = (CHAIN_END - LONGEST, CHAIN_END);
    })?;
    vectors.accept_at("as brief as it may be", "one millisecond", &core, at(NOW), |it| it.not_after = NOW + 1)?;
    let stated = statement(&core).encode_to_vec();
    let proof = SealingKeyProof {
        principal: CORE.into(),
        version: "3".into(),
        public_key: Bytes(OwnSealingKey::new([0x5e; 32]).public.to_vec()),
        lifetime: [NOW.to_string(), (NOW + LONGEST).to_string()],
    };
    let later = sign(&core, &[stated, ignored()].concat())?.encode_to_vec();
    let comment = "the signature covers them";
    vectors.add("a statement with unknown fields", comment, later, at(NOW), Outcome::Accepted(proof));
    Ok(())
}

fn encodings(vectors: &mut Vectors<'_>) -> Result<()> {
    let stated = statement(&vectors.core);
    let good = sign(&vectors.core, &stated.encode_to_vec())?;
    let outer = Subject {
        place: "sealing record",
        title: "record",
        fields: vec![bytes(1, &good.statement), number(2, good.scheme.into()), bytes(3, &good.leaf_signature)],
        once: Some(1),
        closed: true,
        replacements: vec![
            ("scheme above 0xffff", "TLS has 16 bits", 1, number(2, 0x1_0807), "OutOfBounds"),
            ("scheme 0", "0 is not encoded", 1, number(2, 0), "ExplicitDefault"),
            ("scheme as bytes", "wire type 0", 1, bytes(2, &[8, 7]), "WrongWireType"),
            ("leaf_signature long", "1,025 bytes", 2, bytes(3, &[1; 1_025]), "OutOfBounds"),
            ("leaf_signature empty", "from 1 byte", 2, bytes(3, b""), "ExplicitDefault"),
        ],
        mandatory: vec![(0, "statement"), (1, "scheme"), (2, "leaf_signature")],
    };
    for Corruption { name, comment, message, reason } in outer.corruptions() {
        vectors.add(&name, &comment, message, at(NOW), refused(&reason, Some(outer.place)));
    }
    let inner = inner(&stated);
    for Corruption { name, comment, message, reason } in inner.corruptions() {
        let record = sign(&vectors.core, &message)?.encode_to_vec();
        vectors.add(&name, &comment, record, at(NOW), refused(&reason, Some(inner.place)));
    }
    let empty = refused("Scan.Missing", Some("sealing record"));
    vectors.add("record: no bytes", "nothing is there", Vec::new(), at(NOW), empty);
    let long = bytes(1, &vec![0; 16_384]);
    let outcome = refused("Scan.TooLong", Some("sealing record"));
    vectors.add("record: too long", "more than 16,384 bytes", long, at(NOW), outcome);
    let both = sign(&vectors.core, &[0x80])?.encode_to_vec();
    let outcome = refused("Scan.UnknownField", Some("sealing record"));
    let comment = "the statement is wrong as well, and comes later";
    vectors.add("record: the record comes first", comment, [both, number(4, 1)].concat(), at(NOW), outcome);
    Ok(())
}

/// What can be wrong with the encoding of a statement.
fn inner(good: &SealingKeyStatement) -> Subject {
    let moment = |field_number, value: i64| number(field_number, value.unsigned_abs());
    Subject {
        place: "sealing statement",
        title: "statement",
        fields: vec![
            bytes(1, good.principal.as_bytes()),
            number(2, good.version),
            number(3, good.suite.into()),
            bytes(4, &good.public_key),
            moment(5, good.not_before),
            moment(6, good.not_after),
            good.chain.iter().map(|der| bytes(7, der)).collect::<Vec<_>>().concat(),
        ],
        once: Some(1),
        closed: false,
        replacements: vec![
            ("principal too long", "513 bytes", 0, bytes(1, &[b'p'; 513]), "OutOfBounds"),
            ("principal not UTF-8", "not UTF-8", 0, bytes(1, &[0xff]), "NotUtf8"),
            ("version 0", "0 is not encoded", 1, number(2, 0), "ExplicitDefault"),
            ("suite 0", "0 is not encoded", 2, number(3, 0), "ExplicitDefault"),
            ("suite 2^32 + 1", "a decoder would cut it off to 1", 2, number(3, (1 << 32) + 1), "OutOfBounds"),
            ("public_key short", "31 bytes", 3, bytes(4, &[1; 31]), "OutOfBounds"),
            ("public_key long", "33 bytes", 3, bytes(4, &[1; 33]), "OutOfBounds"),
            ("public_key empty", "32 bytes", 3, bytes(4, b""), "ExplicitDefault"),
            ("not_before 0", "0 is not encoded", 4, number(5, 0), "ExplicitDefault"),
            ("not_after negative", "-1 as protobuf writes it", 5, number(6, u64::MAX), "OutOfBounds"),
            ("not_after in eight bytes", "wire type 0", 5, field(6, 1, &[1; 8]), "WrongWireType"),
            ("five certificates", "at most 4", 6, bytes(7, b"der").repeat(5), "OutOfBounds"),
            ("an empty certificate", "none of them", 6, bytes(7, b""), "OutOfBounds"),
            ("a certificate as a number", "wire type 2", 6, number(7, 1), "WrongWireType"),
        ],
        mandatory: vec![
            (0, "principal"),
            (1, "version"),
            (2, "suite"),
            (3, "public_key"),
            (4, "not_before"),
            (5, "not_after"),
            (6, "chain"),
        ],
    }
}

fn statements(vectors: &mut Vectors<'_>) -> Result<()> {
    for suite in [2, 0x647a, u32::MAX] {
        let comment = "whoever does not know it cannot seal to it";
        vectors.refuse_statement(&format!("suite {suite}"), comment, "Suite", |it| it.suite = suite)?;
    }
    let comment = "a key of another suite may have another length";
    vectors.refuse_statement("another suite and length", comment, "Suite", |it| {
        it.suite = 2;
        it.public_key = vec![7; 1_216].into();
    })?;
    for (name, principal) in [
        ("a principal without component", "spiffe://ransomeye.test/core"),
        ("a principal in capitals", "spiffe://ransomeye.test/CORE/core-01"),
        ("a principal with a wildcard", "spiffe://ransomeye.test/core/*"),
    ] {
        vectors.refuse_statement(name, "no SPIFFE ID of the bus", "Principal", |it| it.principal = principal.into())?;
    }
    for role in ["broker", "relay"] {
        let comment = "what stands between components reads nothing";
        let principal = format!("spiffe://ransomeye.test/{role}/nats-1");
        vectors
            .refuse_statement(&format!("the role {role}"), comment, "ReservedRole", |it| it.principal = principal)?;
    }
    for (name, principal) in [
        ("another component's name", "spiffe://ransomeye.test/core/core-02"),
        ("another role's name", "spiffe://ransomeye.test/agent/core-01"),
        ("another trust domain's name", "spiffe://elsewhere.test/core/core-01"),
    ] {
        let comment = "the statement names somebody else than the certificate";
        vectors.refuse_statement(name, comment, "OtherPrincipal", |it| it.principal = principal.into())?;
    }
    Ok(())
}

fn keys(vectors: &mut Vectors<'_>) -> Result<()> {
    let coordinate = |rest: u8, first: u8, last: u8| {
        let mut key = vec![rest; 32];
        (key[0], key[31]) = (first, last);
        key
    };
    let of_order_8 = ORDER_8.map(|text| super::file::unhex(text).expect("hexadecimal"));
    for (name, key, reason) in [
        ("a key of small order, u = 0", coordinate(0, 0, 0), "SealingKey.SmallOrder"),
        ("a key of small order, u = 1", coordinate(0, 1, 0), "SealingKey.SmallOrder"),
        ("a key of small order, u = -1", coordinate(0xff, 0xec, 0x7f), "SealingKey.SmallOrder"),
        ("a key of order 8", of_order_8[0].clone(), "SealingKey.SmallOrder"),
        ("the other key of order 8", of_order_8[1].clone(), "SealingKey.SmallOrder"),
        ("a key that is not canonical, u = p", coordinate(0xff, 0xed, 0x7f), "SealingKey.NotCanonical"),
        ("a key that is not canonical, u = p + 1", coordinate(0xff, 0xee, 0x7f), "SealingKey.NotCanonical"),
        ("a key that is not canonical, u = 2^255 - 1", coordinate(0xff, 0xff, 0x7f), "SealingKey.NotCanonical"),
        ("a key with its highest bit", coordinate(0, 9, 0x80), "SealingKey.NotCanonical"),
        ("0 with its highest bit", coordinate(0, 0, 0x80), "SealingKey.NotCanonical"),
    ] {
        let comment =
            "refused whenever it is loaded: everyone could read what is sealed to it, or it has a second encoding";
        vectors.refuse_statement(name, comment, reason, |it| it.public_key = key.into())?;
    }
    // Nothing proves that an X25519 key is on the curve and not on its twist, and nothing needs to.
    let core = vectors.world.component(CORE, 9, Signer::ed25519([0x2e; 32]))?;
    vectors.accept_at("a key on the twist", "u = 2", &core, at(NOW), |it| it.public_key = coordinate(0, 2, 0).into())
}

fn times(vectors: &mut Vectors<'_>) -> Result<()> {
    let order = "not_before < not_after, within 30 days";
    vectors.refuse_statement("no time to seal", order, "Lifetime", |it| it.not_after = it.not_before)?;
    vectors.refuse_statement("more than 30 days", order, "Lifetime", |it| it.not_after += 1)?;
    vectors
        .refuse_statement("an end before the beginning", order, "Lifetime", |it| it.not_after = it.not_before - 1)?;
    vectors.refuse_statement("from 1 to the end of time", "differences do not overflow", "Lifetime", |it| {
        (it.not_before, it.not_after) = (1, i64::MAX);
    })?;
    let comment = "one millisecond more than the chain";
    let outlives = record_with(&vectors.core, |it| {
        (it.not_before, it.not_after) = (CHAIN_END - HOUR, CHAIN_END + 1);
    })?;
    vectors.add("outlives its chain", comment, outlives, at(CHAIN_END - HOUR), refused("OutlivesChain", None));
    let record = record_with(&vectors.core, |_| ())?;
    let after = at(NOW + LONGEST + 1);
    vectors.add("expired", "no skew is granted", record.clone(), after, refused("Expired", None));
    let before = at(NOW - SKEW - 1);
    vectors.add("not yet valid", "by one millisecond more than the skew", record, before, refused("NotYetValid", None));
    Ok(())
}

fn signatures(vectors: &mut Vectors<'_>) -> Result<()> {
    let core = vectors.world.component(CORE, 9, Signer::ed25519([0x2e; 32]))?;
    let recorder = vectors.world.recorder;
    let stated = statement(&core).encode_to_vec();
    let scheme = core.leaf.scheme();
    for (name, signed) in [
        ("the signature of a bundle", core.leaf_message(b"ransomeye.v1 key bundle\0", scheme, &stated)),
        (
            "the signature of a TLS handshake",
            core.leaf_message(b"TLS 1.3, client CertificateVerify\0", scheme, &stated),
        ),
        ("a signature without the zero byte", core.leaf_message(b"ransomeye.v1 sealing key", scheme, &stated)),
        ("a signature without its context", core.leaf_message(b"", scheme, &stated)),
        ("a signature without padding", core.leaf_message(CONTEXT, scheme, &stated)[64..].to_vec()),
        ("a signature over another scheme", core.leaf_message(CONTEXT, 0x0403, &stated)),
        ("a signature over a digest", core.leaf_message(CONTEXT, scheme, &sha256(&stated))),
    ] {
        let signature = core.leaf.sign(&signed, recorder)?;
        let comment = "another domain than that of sealing keys";
        vectors.refuse_altered(name, comment, "LeafSignature", |it| it.leaf_signature = signature.into())?;
    }
    vectors.refuse_altered("a signature altered", "one bit", "LeafSignature", |it| {
        let mut signature = it.leaf_signature.to_vec();
        signature[40] ^= 1;
        it.leaf_signature = signature.into();
    })?;
    let mut other = statement(&core);
    other.version += 1;
    vectors.refuse_altered("a statement altered", "another version", "LeafSignature", |it| {
        it.statement = other.encode_to_vec().into();
    })?;
    for scheme in [0x0401, 0x0403, 0x0804] {
        let name = format!("scheme {scheme:#06x} with an Ed25519 certificate");
        vectors.refuse_altered(&name, "the key allows one", "SchemeMismatch", |it| it.scheme = scheme)?;
    }
    Ok(())
}

fn certificates(vectors: &mut Vectors<'_>) -> Result<()> {
    let world = vectors.world;
    let mut alone = world.component(CORE, 9, Signer::ed25519([0x2e; 32]))?;
    alone.chain.truncate(1);
    let comment = "the chain does not reach a root";
    vectors.refuse("no intermediate", comment, record_with(&alone, |_| ())?, "Chain.UnknownIssuer");
    let mut past = world.component(CORE, 9, Signer::ed25519([0x2e; 32]))?;
    let mut params = leaf_params(9, CORE)?;
    params.not_after = rcgen::date_time_ymd(2025, 1, 1);
    past.chain = world.chain(&params, &past.leaf.spki)?;
    let comment = "it ended before the record begins";
    vectors.refuse("an expired certificate", comment, record_with(&past, |_| ())?, "Chain.Expired");
    Ok(())
}

/// Where two things are wrong, the first in the order of checks is the reason.
fn orders(vectors: &mut Vectors<'_>) -> Result<()> {
    let comment = "the first check that fails gives the reason";
    vectors.refuse_statement("another suite and no principal", comment, "Suite", |it| {
        it.suite = 2;
        it.principal = "core-01".into();
    })?;
    vectors.refuse_statement("reserved role and bad times", comment, "ReservedRole", |it| {
        it.principal = "spiffe://ransomeye.test/relay/nats-1".into();
        it.not_after = it.not_before;
    })?;
    vectors.refuse_statement("bad times and no chain to a root", comment, "Lifetime", |it| {
        it.not_after = it.not_before;
        it.chain.truncate(1);
    })?;
    vectors.refuse_statement("other principal and not yet valid", comment, "OtherPrincipal", |it| {
        it.principal = "spiffe://ransomeye.test/core/core-02".into();
        it.not_before += 2 * HOUR;
    })?;
    vectors.refuse_statement("not yet valid and a weak key", comment, "NotYetValid", |it| {
        it.not_before += 2 * HOUR;
        it.public_key = vec![0; 32].into();
    })?;
    let weak = SealingKeyStatement { public_key: vec![0; 32].into(), ..statement(&vectors.core) };
    vectors.refuse_altered("a weak key and another scheme", comment, "SealingKey.SmallOrder", |it| {
        it.statement = weak.encode_to_vec().into();
        it.scheme = 0x0403;
    })?;
    vectors.refuse_altered("another scheme and a bad signature", comment, "SchemeMismatch", |it| {
        it.scheme = 0x0403;
        it.leaf_signature = vec![0x42; 64].into();
    })
}
