//! Messages with and without a trailer.

use super::file::{Bytes, File, Outcome, Parts, TrailerVector};
use super::form;
use super::identities::with_trailer;

pub(crate) fn file() -> File<TrailerVector> {
    let prefix = form::bytes(2, b"agent-01");
    let (key_id, signature) = ([7; 32], [9; 64]);
    let good = with_trailer(&prefix, &key_id, &signature);
    let start = prefix.len();
    let parts = |prefix_length| {
        Outcome::Accepted(Parts { prefix_length, key_id: Bytes(key_id.to_vec()), signature: Bytes(signature.to_vec()) })
    };
    let mut vectors = vec![
        vector("a trailer", "the last 106 bytes, in their one form", good.clone(), parts(start)),
        vector("nothing but a trailer", "the prefix is for the scan to refuse", good[start..].to_vec(), parts(0)),
    ];
    let twice = with_trailer(&good, &key_id, &signature);
    let comment = "the last one counts, and the scan will find the other in the prefix";
    vectors.push(vector("two trailers", comment, twice, parts(good.len())));

    let mut refuse = |name: &str, comment: &str, message: Vec<u8>| {
        vectors.push(vector(name, comment, message, form::refused("Trailer", None)));
    };
    refuse("no bytes", "there is no message", Vec::new());
    refuse("no trailer", "an unsigned message is refused in every mode", prefix.clone());
    refuse("one byte short", "the last byte is missing", good[..good.len() - 1].to_vec());
    refuse("one byte more", "a trailer is the end", [&good[..], &[0]].concat());
    refuse("half a trailer", "the message begins within the trailer", good[start + 1..].to_vec());
    for offset in [0, 1, 4, 5, 6, 7, 40, 41] {
        let mut message = good.clone();
        message[start + offset] ^= 1;
        let name = format!("another byte at offset {offset}");
        refuse(&name, "only the key id and the signature may vary", message);
    }
    let empty = [&prefix[..], b"\xfa\xff\xff\xff\x0f\x24\x0a\x20", &key_id, b"\x12\x00"].concat();
    refuse("an empty signature", "the schema allows it, and it proves nothing", empty);
    let absent = [&prefix[..], b"\xfa\xff\xff\xff\x0f\x22\x0a\x20", &key_id].concat();
    refuse("no signature", "a key id alone proves nothing", absent);
    let swapped = [&prefix[..], b"\xfa\xff\xff\xff\x0f\x64\x12\x40", &signature, b"\x0a\x20", &key_id].concat();
    refuse("signature before key id", "protobuf would accept this order", swapped);
    let overlong = [&prefix[..], b"\xfa\xff\xff\xff\x0f\xe4\x00\x0a\x20", &key_id, b"\x12\x40", &signature].concat();
    refuse("a padded length", "100 written in two bytes: not the one form", overlong);

    File {
        about: "Taking a message apart: prefix, key id, signature. Nothing is verified.".into(),
        bundles: std::collections::BTreeMap::default(),
        vectors,
    }
}

fn vector(name: &str, comment: &str, message: Vec<u8>, outcome: Outcome<Parts>) -> TrailerVector {
    TrailerVector { name: name.into(), comment: comment.into(), message: Bytes(message), outcome }
}
