//! What the code of a crate may name.

use crate::tidy::Violation;
use crate::tidy::sources::Sources;

const PURE: &[&str] = &["crates/bus-acl/src/", "crates/bus-crypto/src/", "crates/bus-proto/src/"];

/// What is pure is in `core` and `alloc`. What only `std` has, under whatever name it is imported, is files, sockets,
/// clocks, threads and the environment: a pure crate gets what they would tell it as arguments.
const IMPURE: &[&str] = &["std::", "use std", "extern crate std", "SystemTime", "Instant::now"];

const CRYPTO: &str = "crates/bus-crypto/src/";

/// Where the crypto provider has its random source, under whatever name it is imported, and the functions that use it
/// unasked.
const RANDOMNESS: &[&str] = &["aws_lc_rs::rand", "rand::", "SystemRandom", "::generate"];

/// The provider's modules for signatures and encryption, and what a program would take from them.
const ALGORITHMS: &[&str] = &[
    "aws_lc_rs::aead",
    "aws_lc_rs::agreement",
    "aws_lc_rs::signature",
    "Ed25519KeyPair",
    "EcdsaKeyPair",
    "RsaKeyPair",
    "UnparsedPublicKey",
];

const TLS: &str = "crates/bus-tls/src/";

/// What makes a TLS configuration, and what can undo its checks or give away its keys.
const TLS_ONLY: &[&str] = &[
    "ClientConfig::builder",
    "ServerConfig::builder",
    "WebPkiServerVerifier::builder",
    "dangerous()",
    "_certificate_verifier",
    "ServerCertVerifier",
    "ClientCertVerifier",
    "KeyLog",
    "key_log",
];

/// The pure crates name nothing impure outside of their tests.
pub fn purity(sources: &Sources) -> Vec<Violation> {
    let pure = |path: &str| PURE.iter().any(|directory| path.starts_with(directory));
    mentions(sources, pure, IMPURE, "which a pure crate may not")
}

/// The crate for signatures takes random bytes as arguments, though its provider has some.
pub fn randomness(sources: &Sources) -> Vec<Violation> {
    mentions(sources, |path| path.starts_with(CRYPTO), RANDOMNESS, "and takes random bytes as arguments only")
}

/// Only `bus-crypto` names an algorithm that signs or encrypts messages.
pub fn algorithms(sources: &Sources) -> Vec<Violation> {
    let elsewhere = |path: &str| !path.starts_with(CRYPTO) && !path.starts_with("xtask/");
    mentions(sources, elsewhere, ALGORITHMS, "which only bus-crypto may")
}

/// Only `bus-tls` builds TLS configurations, and nothing loosens them afterwards.
pub fn tls_configurations(sources: &Sources) -> Vec<Violation> {
    mentions(sources, |path| !path.starts_with(TLS) && !path.starts_with("xtask/"), TLS_ONLY, "which only bus-tls may")
}

fn mentions(sources: &Sources, concerns: impl Fn(&str) -> bool, names: &[&str], objection: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in sources.product().filter(|file| concerns(&file.path)) {
        for (number, line) in file.product_lines() {
            let comment = line.trim_start().starts_with("//");
            if let Some(name) = names.iter().find(|name| !comment && is_named(line, name)) {
                violations.push(Violation::at(&file.path, number, format!("names `{name}`, {objection}")));
            }
        }
    }
    violations
}

/// Whether a line has this name. That of a module (`std::`) counts only where no longer one ends with it (`zstd::`).
fn is_named(line: &str, name: &str) -> bool {
    let begins = |place: usize| {
        let before = line.get(..place).and_then(|before| before.chars().next_back());
        !name.ends_with("::") || !before.is_some_and(is_word)
    };
    line.match_indices(name).any(|(place, _)| begins(place))
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_a_pure_crate_is_found_and_in_its_tests_is_not() {
        let code = "//! Knows no SystemTime.\nfn now() {\n    std::time::SystemTime::now();\n}\n";
        let sources: Sources = [("crates/bus-acl/src/lib.rs", code)].into_iter().collect();
        assert_eq!(
            purity(&sources),
            [Violation::at("crates/bus-acl/src/lib.rs", 3, "names `std::`, which a pure crate may not")]
        );
        let elsewhere: Sources = [
            ("crates/bus-tls/src/lib.rs", code.to_owned()),
            ("crates/bus-acl/src/rule.rs", format!("#[cfg(test)]\nmod tests {{\n{code}}}\n")),
            ("crates/bus-acl/tests/all.rs", code.to_owned()),
        ]
        .into_iter()
        .collect();
        assert_eq!(purity(&elsewhere), []);
    }

    #[test]
    fn what_is_impure_is_found_however_it_is_imported() {
        for code in [
            "use std::{env, fs, net::UdpSocket};",
            "use std::{\n    env,\n};",
            "use std as core;",
            "extern crate std as core;",
            "#[cfg(test)]\nuse a::B;\nfn f() { ::std::fs::read(0); }",
        ] {
            let sources: Sources = [("crates/bus-proto/src/lib.rs", code)].into_iter().collect();
            assert_eq!(purity(&sources).len(), 1, "{code}");
        }
        let pure = "#![cfg_attr(not(feature = \"messages\"), no_std)]\nuse core::fmt;\nuse alloc::string::String;\n";
        let sources: Sources = [("crates/bus-proto/src/lib.rs", pure)].into_iter().collect();
        assert_eq!(purity(&sources), []);
    }

    #[test]
    fn a_random_source_in_the_crate_for_signatures_is_found() {
        for code in [
            "use aws_lc_rs::rand::SystemRandom;",
            "use aws_lc_rs::{digest, rand};\nfn f() { rand::fill(0); }",
            "let pair = Ed25519KeyPair::generate();",
        ] {
            let sources: Sources = [("crates/bus-crypto/src/keys.rs", code)].into_iter().collect();
            assert_eq!(randomness(&sources).len(), 1, "{code}");
        }
        let tests: Sources =
            [("crates/bus-crypto/tests/suite/support.rs", "SystemRandom::new()")].into_iter().collect();
        assert_eq!(randomness(&tests), []);
    }

    #[test]
    fn a_second_door_to_signatures_is_found() {
        let code = "use aws_lc_rs::signature::Ed25519KeyPair;";
        let sources: Sources =
            [("crates/bus-crypto/src/keys.rs", code), ("crates/bus-client/src/shared.rs", code)].into_iter().collect();
        let found = algorithms(&sources);
        assert!(matches!(found.as_slice(), [one] if one.place == "crates/bus-client/src/shared.rs:1"), "{found:?}");
    }

    #[test]
    fn a_tls_configuration_that_is_loosened_is_found() {
        for code in [
            "config.dangerous().set_certificate_verifier(all);",
            "let config = builder.with_custom_certificate_verifier(all);",
            "config\n    .dangerous()\n",
            "config.key_log = log;",
            "use rustls::KeyLogFile;",
            "impl ServerCertVerifier for All {",
        ] {
            let elsewhere: Sources = [("crates/bus-client/src/lib.rs", code)].into_iter().collect();
            assert_eq!(tls_configurations(&elsewhere).len(), 1, "{code}");
        }
    }

    #[test]
    fn a_second_builder_of_tls_configurations_is_found() {
        let code = "let config = rustls::ClientConfig::builder();";
        let sources: Sources = [
            ("crates/bus-tls/src/client.rs", code),
            ("crates/bus-cli/src/main.rs", code),
            ("tests/suites/attacks.rs", code),
        ]
        .into_iter()
        .collect();
        let found = tls_configurations(&sources);
        assert!(
            matches!(found.as_slice(), [one] if one.to_string().starts_with("crates/bus-cli/src/main.rs:1: ")),
            "{found:?}"
        );
    }

    #[test]
    fn a_name_within_another_is_none() {
        assert!(is_named("use std::fs;", "std::"));
        assert!(is_named("    ::std::fs::read()", "std::"));
        assert!(!is_named("use zstd::bulk;", "std::"));
        assert!(is_named("let a = zstd::bulk(std::mem::take(b));", "std::"));
    }
}
