//! The dependency graph: arrows, purity, doors, bans.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::tidy::Violation;
use crate::tidy::metadata::{Metadata, Package};
use crate::workspace::{Workspace, stdout_of};

/// The floors of the house, lowest first. Arrows point down only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Pure,
    Edge,
    Composition,
    Program,
    /// Not part of the product: it may look at all of it.
    Tool,
}

/// A crate's place in the house.
struct Room {
    name: &'static str,
    layer: Layer,
    /// The crates of the workspace that it may use, tests apart. Tests may use whatever is not above them.
    uses: &'static [&'static str],
}

const fn room(name: &'static str, layer: Layer, uses: &'static [&'static str]) -> Room {
    Room { name, layer, uses }
}

/// `docs/ARCHITECTURE.md` explains this table.
const HOUSE: &[Room] = &[
    room("bus-proto", Layer::Pure, &[]),
    room("bus-acl", Layer::Pure, &["bus-proto"]),
    room("bus-crypto", Layer::Pure, &["bus-proto"]),
    room("rustls-native-certs", Layer::Edge, &[]),
    room("bus-tls", Layer::Edge, &["bus-proto"]),
    room("bus-store", Layer::Edge, &["bus-crypto"]),
    room("bus-client", Layer::Composition, &["bus-acl", "bus-crypto", "bus-proto", "bus-tls"]),
    room("bus-natsd", Layer::Composition, &["bus-acl", "bus-proto"]),
    room("ransomeye_bus", Layer::Program, &["bus-acl", "bus-client", "bus-crypto", "bus-proto", "bus-tls"]),
    room("bus-cli", Layer::Program, &["bus-acl", "bus-client", "bus-crypto", "bus-natsd", "bus-proto", "bus-tls"]),
    room(
        "bus-tests",
        Layer::Tool,
        &["bus-acl", "bus-client", "bus-crypto", "bus-natsd", "bus-proto", "bus-tls", "ransomeye_bus"],
    ),
    room("bus-fuzz-oracles", Layer::Tool, &["bus-acl", "bus-crypto", "bus-proto", "bus-tls"]),
    room("xtask", Layer::Tool, &["bus-acl", "bus-client", "bus-natsd", "bus-proto", "bus-tests", "bus-tls"]),
];

/// What a pure crate never reaches: runtimes, the broker, TLS, sockets, clocks and ambient randomness.
const IMPURE: &[&str] = &[
    "async-nats",
    "aws-lc-rs",
    "chrono",
    "futures-util",
    "getrandom",
    "jiff",
    "rusqlite",
    "rustix",
    "rustls",
    "rustls-native-certs",
    "socket2",
    "tempfile",
    "tokio",
    "tokio-rustls",
    "tokio-util",
    "tracing",
];

/// What a pure crate may reach all the same. The crypto provider has clocks and random sources only for those who ask for
/// them, and `doors::randomness` finds whoever does.
const PURE_ENOUGH: &[(&str, &[&str])] = &[("bus-crypto", &["aws-lc-rs"])];

/// The crates that only some of ours may depend on, tests included. `bus-client` and `bus-store` take random bytes
/// from the crypto provider, `bus-tls` SHA-256; signature algorithms are a door of their own, over the sources. `bus-fuzz-oracles` and the
/// test vectors of `bus-tests` play insiders, who sign and seal what this product would not.
const DOORS: &[(&str, &[&str])] = &[
    ("async-nats", &["bus-client", "bus-tests", "xtask"]),
    ("aws-lc-rs", &["bus-client", "bus-crypto", "bus-fuzz-oracles", "bus-store", "bus-tests", "bus-tls"]),
    ("rcgen", &["bus-tls", "bus-tests"]),
    ("rusqlite", &["bus-store"]),
    ("rustls-pemfile", &["bus-tls", "bus-tests"]),
    ("rustls-webpki", &["bus-tls"]),
    ("tokio-rustls", &["bus-tests"]),
    ("x509-parser", &["bus-tls", "bus-tests"]),
];

/// A second crypto provider, OpenSSL, RSA in software, the forerunner of `rustls-webpki`, and the trust stores of the
/// platform and of browsers.
const BANNED: &[&str] =
    &["ring", "openssl-sys", "native-tls", "rsa", "webpki", "rustls-platform-verifier", "webpki-roots"];

/// The packages that stand in for those of the same name, and their versions, which lie above any that they replace.
const TRUST_STORE: (&str, &str) = ("rustls-native-certs", "0.8.99");
const BROKER_CLIENT: (&str, &str) = ("async-nats", "0.51.99");

fn place(name: &str) -> Option<&'static Room> {
    HOUSE.iter().find(|room| room.name == name)
}

/// Every crate has a place, and uses only what is below it and what its place allows.
pub fn arrows(metadata: &Metadata) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in metadata.members() {
        match place(&package.name) {
            Some(room) => arrows_of(package, room, metadata, &mut violations),
            None => violations.push(Violation::new(&package.name, "has no place in the design: give it one in HOUSE")),
        }
    }
    violations
}

fn arrows_of(package: &Package, room: &Room, metadata: &Metadata, violations: &mut Vec<Violation>) {
    for dependency in &package.dependencies {
        let Some(target) = place(&dependency.name) else { continue };
        let ours = metadata.members().any(|member| member.name == target.name);
        let allowed = if dependency.is_dev() { target.layer <= room.layer } else { room.uses.contains(&target.name) };
        if ours && !allowed {
            let what = format!("may not depend on {}: the arrows of the design point down only", target.name);
            violations.push(Violation::new(&package.name, what));
        }
    }
}

/// The pure crates reach nothing impure, with all features and over any number of steps. Each is asked about by itself, as
/// features that other crates switch on are not its own.
pub fn purity(workspace: &Workspace) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for room in HOUSE.iter().filter(|room| room.layer == Layer::Pure) {
        let mut cargo = workspace.cargo();
        cargo.args(["tree", "--package", room.name, "--all-features", "--target", "all"]);
        let tree = stdout_of(cargo.args(["--edges", "normal", "--prefix", "none"]))?;
        violations.extend(impurities(room.name, &tree));
    }
    Ok(violations)
}

/// `tree` has one package per line, its name first.
fn impurities(pure: &str, tree: &str) -> Vec<Violation> {
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let allowed = PURE_ENOUGH.iter().find(|(room, _)| *room == pure).map_or(&[][..], |(_, names)| names);
    let impure = names.into_iter().filter(|name| IMPURE.contains(name) && !allowed.contains(name));
    impure.map(|name| Violation::new(pure, format!("is pure and may not reach {name}"))).collect()
}

/// The crates behind a door are used by its keeper alone.
pub fn doors(metadata: &Metadata) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in metadata.members() {
        for dependency in &package.dependencies {
            let door = DOORS.iter().find(|(name, _)| *name == dependency.name);
            if let Some((name, keepers)) = door
                && !keepers.contains(&package.name.as_str())
            {
                let what = format!("may not depend on {name}: only {} may", keepers.join(", "));
                violations.push(Violation::new(&package.name, what));
            }
        }
    }
    violations
}

/// The graph holds our stand-in for `rustls-native-certs` and nothing else of that name (requirement A3).
pub fn trust_store_stub(metadata: &Metadata) -> Vec<Violation> {
    patched(metadata, TRUST_STORE)
}

/// The graph holds the broker client that no other client's message disconnects, and nothing else of that name.
pub fn broker_client(metadata: &Metadata) -> Vec<Violation> {
    patched(metadata, BROKER_CLIENT)
}

fn patched(metadata: &Metadata, (name, version): (&str, &str)) -> Vec<Violation> {
    let found: Vec<&Package> = metadata.packages.iter().filter(|package| package.name == name).collect();
    match found.as_slice() {
        [ours] if ours.source.is_none() && ours.version == version => Vec::new(),
        [] => vec![Violation::new("Cargo.toml", format!("the graph holds no {name}: the patch is unused"))],
        others => others
            .iter()
            .filter(|package| package.source.is_some() || package.version != version)
            .map(|package| {
                Violation::new("Cargo.lock", format!("holds {name} {}: the patch is unused", package.version))
            })
            .collect(),
    }
}

/// Nothing builds a banned crate on any platform. A mention in `Cargo.lock` alone is no build.
pub fn banned(workspace: &Workspace) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for name in BANNED {
        let mut cargo = workspace.cargo();
        cargo.args(["tree", "--workspace", "--all-features", "--target", "all", "--prefix", "none"]);
        let output = cargo.args(["--edges", "normal,build,dev", "--invert", name]).output()?;
        let tree = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        let absent = complaint.contains("did not match any packages");
        if !output.status.success() && !absent {
            anyhow::bail!("cargo tree failed:\n{}", complaint.trim_end());
        }
        violations.extend(built(name, &tree));
    }
    Ok(violations)
}

/// `tree` begins with the banned package, if there is one, and is empty if nothing builds it.
fn built(name: &str, tree: &str) -> Option<Violation> {
    let package = tree.lines().find(|line| !line.trim().is_empty())?;
    Some(Violation::new(
        "Cargo.lock",
        format!("{package} is built, but {name} is banned: `cargo tree --invert` shows who brings it in"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::metadata::Dependency;
    use crate::tidy::metadata::sample::graph;

    fn texts(violations: &[Violation]) -> Vec<String> {
        violations.iter().map(ToString::to_string).collect()
    }

    /// What cargo itself says of a workspace with these packages, each with the lines of its dependency tables.
    fn real_graph(packages: &[(&str, &str)]) -> Metadata {
        let root = tempfile::tempdir().unwrap();
        let manifest = root.path().join("Cargo.toml");
        std::fs::write(&manifest, "[workspace]\nresolver = '3'\nmembers = ['*']\n").unwrap();
        for (name, tables) in packages {
            let home = root.path().join(name);
            std::fs::create_dir_all(home.join("src")).unwrap();
            std::fs::write(home.join("src/lib.rs"), "").unwrap();
            let package = format!("[package]\nname = '{name}'\nversion = '0.1.0'\nedition = '2024'\n{tables}\n");
            std::fs::write(home.join("Cargo.toml"), package).unwrap();
        }
        Metadata::read(&Workspace::of(&manifest).unwrap()).unwrap()
    }

    #[test]
    fn a_broken_arrow_in_a_real_workspace_is_found() {
        let metadata = real_graph(&[
            ("bus-proto", "[dependencies]\npolicy = { package = 'bus-acl', path = '../bus-acl' }"),
            ("bus-acl", ""),
            ("bus-client", "[target.'cfg(unix)'.build-dependencies]\nbus-acl.path = '../bus-acl'"),
            ("bus-natsd", "[dev-dependencies]\nbus-client.path = '../bus-client'"),
            ("bus-tls", "[dev-dependencies]\nbus-natsd.path = '../bus-natsd'"),
        ]);
        let mut found = texts(&arrows(&metadata));
        found.sort();
        assert_eq!(
            found,
            [
                "bus-proto: may not depend on bus-acl: the arrows of the design point down only",
                "bus-tls: may not depend on bus-natsd: the arrows of the design point down only",
            ]
        );
    }

    #[test]
    fn a_second_door_in_a_real_workspace_is_found() {
        let metadata = real_graph(&[
            ("bus-natsd", "[dependencies]\nwebpki = { package = 'rustls-webpki', path = '../rustls-webpki' }"),
            ("bus-tls", "[dependencies]\nrustls-webpki.path = '../rustls-webpki'"),
            ("rustls-webpki", ""),
        ]);
        assert_eq!(texts(&doors(&metadata)), ["bus-natsd: may not depend on rustls-webpki: only bus-tls may"]);
    }

    #[test]
    fn the_arrows_of_the_design_hold() {
        let metadata = graph(&[
            ("bus-proto", &[]),
            ("bus-acl", &["bus-proto"]),
            ("bus-tls", &["bus-proto"]),
            ("bus-client", &["bus-acl", "bus-tls"]),
        ]);
        assert_eq!(arrows(&metadata), []);
    }

    #[test]
    fn an_arrow_that_points_up_is_found() {
        let metadata = graph(&[("bus-tls", &["bus-client"]), ("bus-client", &[])]);
        let found = texts(&arrows(&metadata));
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with("bus-tls: may not depend on bus-client")),
            "{found:?}"
        );
    }

    #[test]
    fn an_arrow_between_neighbours_that_the_design_lacks_is_found() {
        let metadata =
            graph(&[("bus-proto", &["bus-acl"]), ("bus-acl", &[]), ("bus-natsd", &["bus-tls"]), ("bus-tls", &[])]);
        assert_eq!(arrows(&metadata).len(), 2);
    }

    #[test]
    fn a_test_may_look_down_and_not_up() {
        let mut metadata = graph(&[("bus-natsd", &[]), ("bus-tls", &[])]);
        let dev = |name: &str| Dependency { name: name.to_owned(), kind: Some("dev".to_owned()) };
        metadata.packages[0].dependencies.push(dev("bus-tls"));
        assert_eq!(arrows(&metadata), []);
        metadata.packages[1].dependencies.push(dev("bus-natsd"));
        assert_eq!(arrows(&metadata).len(), 1);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        let found = texts(&arrows(&graph(&[("bus-misc", &[])])));
        assert!(found[0].contains("no place"), "{found:?}");
    }

    #[test]
    fn a_pure_crate_that_reaches_tokio_is_found() {
        let tree =
            "bus-acl v0.1.0 (/src/bus-acl)\nhelper v1.0.0\ntokio v1.54.1\ntokio v1.54.1 (*)\ntokio-like v1.0.0\n";
        assert_eq!(texts(&impurities("bus-acl", tree)), ["bus-acl: is pure and may not reach tokio"]);
    }

    #[test]
    fn only_the_crate_for_signatures_may_reach_the_crypto_provider() {
        let tree = "aws-lc-rs v1.19.0\ngetrandom v0.4.3\n";
        assert_eq!(texts(&impurities("bus-crypto", tree)), ["bus-crypto: is pure and may not reach getrandom"]);
        assert_eq!(impurities("bus-acl", tree).len(), 2);
    }

    #[test]
    fn a_second_door_to_the_broker_is_found() {
        let metadata = graph(&[("bus-cli", &["async-nats"]), ("bus-client", &["async-nats"]), ("async-nats", &[])]);
        let found = texts(&doors(&metadata));
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with("bus-cli: may not depend on async-nats")),
            "{found:?}"
        );
    }

    #[test]
    fn a_banned_crate_that_is_built_is_found() {
        assert_eq!(built("ring", "\n"), None);
        assert!(
            built("ring", "ring v0.17.14\nrustls v0.23.46\n").unwrap().to_string().contains("ring v0.17.14 is built")
        );
    }

    #[test]
    fn the_real_trust_store_crate_is_found() {
        assert_eq!(trust_store_stub(&graph(&[])).len(), 1, "no stub at all");
        let mut metadata = graph(&[("rustls-native-certs", &[])]);
        metadata.packages[0].version = TRUST_STORE.1.to_owned();
        assert_eq!(trust_store_stub(&metadata), []);
        metadata.packages[0].source = Some("registry".to_owned());
        metadata.packages[0].version = "0.8.1".to_owned();
        assert_eq!(
            texts(&trust_store_stub(&metadata)),
            ["Cargo.lock: holds rustls-native-certs 0.8.1: the patch is unused"]
        );
    }

    #[test]
    fn the_released_broker_client_is_found_even_beside_ours() {
        assert_eq!(broker_client(&graph(&[])).len(), 1, "none at all");
        let mut metadata = graph(&[("async-nats", &[]), ("async-nats", &[])]);
        metadata.packages[0].version = BROKER_CLIENT.1.to_owned();
        metadata.packages[1].version = "0.51.0".to_owned();
        metadata.packages[1].source = Some("registry".to_owned());
        assert_eq!(texts(&broker_client(&metadata)), ["Cargo.lock: holds async-nats 0.51.0: the patch is unused"]);
        metadata.packages.pop();
        assert_eq!(broker_client(&metadata), []);
    }
}
