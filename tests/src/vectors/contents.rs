//! What was sealed or compressed, after it was opened or decompressed.

use std::collections::BTreeMap;

use super::corruptions::{Subject, ignored};
use super::file::{Bytes, ContentVector, File, Holding, Outcome};
use super::form::{bytes, number, refused};
use super::scans::{ID, heartbeat, member, payloads, replacements};

/// The longest content, in bytes.
const MAX_CONTENT: usize = 8 * 1024 * 1024;

/// The two kinds of content that hold a payload.
const WITH_PAYLOAD: [&str; 2] = ["sealed", "compressed"];

struct Vectors(Vec<ContentVector>);

impl Vectors {
    fn add(&mut self, of: &str, name: &str, comment: &str, content: Vec<u8>, outcome: Outcome<Holding>) {
        let (name, comment) = (format!("{of}: {name}"), comment.into());
        self.0.push(ContentVector { name, comment, of: of.into(), content: Bytes(content), outcome });
    }

    fn accept(&mut self, of: &str, name: &str, comment: &str, field: u64, payload: &[u8], members: usize) {
        let content = bytes(field, payload);
        let range = [usize::try_from(field).expect("a small number"), content.len() - payload.len(), content.len()];
        self.add(of, name, comment, content, Outcome::Accepted(Holding::Payload { payload: range, members }));
    }

    fn refuse(&mut self, of: &str, name: &str, comment: &str, content: Vec<u8>, reason: &str, place: &str) {
        self.add(of, name, comment, content, refused(&format!("Scan.{reason}"), Some(place)));
    }

    fn corrupt(&mut self, of: &str, subject: &Subject, wrap: impl Fn(&[u8]) -> Vec<u8>) {
        for it in subject.corruptions() {
            let outcome = refused(&it.reason, Some(subject.place));
            self.add(of, &it.name, &it.comment, wrap(&it.message), outcome);
        }
    }
}

pub(crate) fn file() -> File<ContentVector> {
    let mut vectors = Vectors(Vec::new());
    for of in WITH_PAYLOAD {
        accepted(&mut vectors, of);
        contents(&mut vectors, of);
        insides(&mut vectors, of);
    }
    nested(&mut vectors);
    references(&mut vectors);
    File {
        about:
            "What was opened or decompressed, held to the canonical encoding: `of` says whether it is the content of a \
                `sealed` payload, of a `compressed` one, or of sealed `references`."
                .into(),
        bundles: BTreeMap::default(),
        vectors: vectors.0,
    }
}

fn accepted(vectors: &mut Vectors, of: &str) {
    for (field, name, fields) in payloads() {
        vectors.accept(of, name, "a payload with all of its fields", field.into(), &fields.concat(), 0);
    }
    vectors.accept(of, "an empty payload", "every field has its default, so none is encoded", 13, &[], 0);
    let comment = "within the payload, numbers from 1,000 on are ignored";
    vectors.accept(of, "unknown fields in the payload", comment, 13, &ignored(), 0);
    for count in [1, 2, 256] {
        let members = bytes(1, &member(13, &heartbeat().concat())).repeat(count);
        vectors.accept(of, &format!("batch of {count}"), "members of one kind", 18, &members, count);
    }
    let filled = |count| bytes(16, &bytes(2, &vec![0; count]));
    let payload = bytes(2, &vec![0; MAX_CONTENT - 100 + (MAX_CONTENT - filled(MAX_CONTENT - 100).len())]);
    vectors.accept(of, "as long as it may be", "8,388,608 bytes", 16, &payload, 0);
}

fn contents(vectors: &mut Vectors, of: &str) {
    let good = bytes(13, &heartbeat().concat());
    let subject = Subject {
        place: "content",
        title: "content",
        fields: vec![good.clone()],
        once: None,
        closed: true,
        replacements: vec![
            ("a payload as a number", "wire type 2", 0, number(13, 1), "WrongWireType"),
            ("two payloads", "of different kinds", 0, [bytes(10, &[]), bytes(13, &[])].concat(), "SeveralPayloads"),
            ("a payload twice", "of the same kind", 0, good.repeat(2), "SeveralPayloads"),
            ("no payload", "a content of no bytes", 0, Vec::new(), "NoPayload"),
            ("a field of the envelope before it", "exactly one field", 0, number(8, 1), "UnknownField"),
            (
                "a field of the envelope behind it",
                "exactly one field",
                0,
                [good, bytes(20, b"tag")].concat(),
                "UnknownField",
            ),
        ],
        mandatory: Vec::new(),
    };
    vectors.corrupt(of, &subject, <[u8]>::to_vec);
    let long = bytes(16, &bytes(2, &vec![0; MAX_CONTENT]));
    vectors.refuse(of, "too long", "more than 8,388,608 bytes", long, "TooLong", "content");
    let both = [bytes(13, &[0x80]), number(24, 1)].concat();
    vectors.refuse(of, "the content comes first", "its payload is wrong as well", both, "UnknownField", "content");
}

/// Within the payload, the rules are those of an envelope's.
fn insides(vectors: &mut Vectors, of: &str) {
    for (field, title, fields) in payloads() {
        let fields_of = replacements(title);
        let (place, once, closed, mandatory) = ("payload", Some(0), false, Vec::new());
        let subject = Subject { place, title, fields, once, closed, replacements: fields_of, mandatory };
        // The endings are alike for all of them, and in the file of scans.
        for it in subject.corruptions().into_iter().filter(|it| title == "heartbeat" || it.reason == "Scan.OutOfBounds")
        {
            vectors.add(of, &it.name, &it.comment, bytes(field.into(), &it.message), refused(&it.reason, Some(place)));
        }
    }
    let good = bytes(1, &member(13, &heartbeat().concat()));
    for (name, members, reason, place) in [
        ("no members", Vec::new(), "EmptyBatch", "batch"),
        ("257 members", good.repeat(257), "TooManyMembers", "batch"),
        ("members of two kinds", [good.clone(), bytes(1, &member(10, &[]))].concat(), "MixedBatch", "member 1"),
        (
            "a member without a time",
            bytes(1, &[bytes(1, ID.as_bytes()), bytes(13, &[])].concat()),
            "Missing",
            "member 0",
        ),
        ("a truncated member", [good.clone(), bytes(1, &[0x80])].concat(), "Truncated", "member 1"),
        ("a compressed member", bytes(1, &member(19, &[])), "NestedForm", "member 0"),
        ("a sealed member", bytes(1, &member(17, &[])), "NestedForm", "member 0"),
        ("a batch as a member", bytes(1, &member(18, &[])), "NestedForm", "member 0"),
    ] {
        vectors.refuse(of, &format!("batch: {name}"), "as in an envelope", bytes(18, &members), reason, place);
    }
}

fn nested(vectors: &mut Vectors) {
    let frame = [number(1, 300), bytes(2, &[0x28; 40])];
    vectors.accept("sealed", "compressed", "what was compressed is sealed", 19, &frame.concat(), 0);
    let empty = "a form that may not stand there is not looked into";
    vectors.refuse("sealed", "sealed", empty, bytes(17, &[]), "NestedForm", "content");
    vectors.refuse("compressed", "sealed", empty, bytes(17, &[]), "NestedForm", "content");
    vectors.refuse("compressed", "compressed", empty, bytes(19, &frame.concat()), "NestedForm", "content");
    let wrong = bytes(19, &frame[..1].concat());
    vectors.refuse("sealed", "compressed without a frame", "as in an envelope", wrong, "Missing", "payload");
}

fn reference(kind: &str, value: &str) -> Vec<u8> {
    bytes(1, &[bytes(1, kind.as_bytes()), bytes(2, value.as_bytes())].concat())
}

fn references(vectors: &mut Vectors) {
    let of = "references";
    let mut accept = |name: &str, comment: &str, content: Vec<u8>, references: Vec<(String, String)>| {
        vectors.add(of, name, comment, content, Outcome::Accepted(Holding::References(references)));
    };
    let two = [("case", "4711"), ("host", "https://cmdb.example/hosts/7")];
    let owned = |(kind, value): (&str, &str)| (kind.to_owned(), value.to_owned());
    let encoded: Vec<u8> = two.iter().flat_map(|(kind, value)| reference(kind, value)).collect();
    accept("two", "each with its kind and value", encoded.clone(), two.map(owned).to_vec());
    let with_unknown = [encoded, ignored()].concat();
    accept("unknown fields", "numbers from 1,000 on are ignored", with_unknown, two.map(owned).to_vec());
    let same = ("case", "4711");
    let repeated = reference(same.0, same.1).repeat(64);
    accept("64", "as many as there may be, alike or not, in any order", repeated, vec![owned(same); 64]);
    let (kind, value) = ("k".repeat(64), "v".repeat(1_024));
    accept("every bound", "as long as each may be", reference(&kind, &value), vec![(kind, value)]);

    let subject = Subject {
        place: "references",
        title: "list",
        fields: vec![reference("case", "4711")],
        once: None,
        closed: false,
        replacements: vec![
            ("a reference as a number", "wire type 2", 0, number(1, 1), "WrongWireType"),
            ("65 references", "at most 64", 0, reference("case", "4711").repeat(65), "OutOfBounds"),
            ("no references", "at least one", 0, Vec::new(), "Missing"),
        ],
        mandatory: Vec::new(),
    };
    vectors.corrupt(of, &subject, <[u8]>::to_vec);
    for (place, title, before) in [("reference 0", "first", 0), ("reference 2", "third", 2)] {
        let subject = Subject {
            place,
            title,
            fields: vec![bytes(1, b"case"), bytes(2, b"4711")],
            once: Some(0),
            closed: false,
            replacements: vec![
                ("kind too long", "65 bytes", 0, bytes(1, &[b'k'; 65]), "OutOfBounds"),
                ("kind empty", "1 to 64 bytes", 0, bytes(1, b""), "ExplicitDefault"),
                ("kind not UTF-8", "not UTF-8", 0, bytes(1, &[0xff]), "NotUtf8"),
                ("value too long", "1,025 bytes", 1, bytes(2, &[b'v'; 1_025]), "OutOfBounds"),
                ("value as a number", "wire type 2", 1, number(2, 1), "WrongWireType"),
            ],
            mandatory: vec![(0, "kind"), (1, "value")],
        };
        vectors.corrupt(of, &subject, |message| [reference("case", "4711").repeat(before), bytes(1, message)].concat());
    }
    let long = bytes(1_000, &vec![0; MAX_CONTENT]);
    vectors.refuse(of, "too long", "more than 8,388,608 bytes", long, "TooLong", "references");
}
