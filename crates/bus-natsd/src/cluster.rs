use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use crate::config::{TlsFiles, port_number};
use crate::error::ConfigError;
use crate::syntax::{quoted, quoted_list, quoted_path};

/// What pins the key of a node: the SHA-256 digest of the public key in its certificate (`SubjectPublicKeyInfo`, RFC 5280).
///
/// ```
/// use bus_natsd::KeyPin;
///
/// let pin: KeyPin = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse()?;
/// assert!(pin.to_string().starts_with("e3b0c442"));
/// # Ok::<(), bus_natsd::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyPin([u8; 32]);

impl KeyPin {
    /// The pin of this digest.
    #[must_use]
    pub const fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl FromStr for KeyPin {
    type Err = ConfigError;

    /// Reads 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let refused = || ConfigError::Pin { text: text.chars().take(80).collect() };
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or_else(refused)?;
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair
                .iter()
                .try_fold(0_u8, |byte, digit| Some(byte << 4 | u8::try_from(*digit).ok()?))
                .ok_or_else(refused)?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The place of one node in a cluster: where the other nodes reach it, and who they are.
///
/// Nodes know each other by their keys alone. Both ends of a route demand a certificate of the deployment's CA over TLS 1.3,
/// and that its key is one of the pinned ones, whatever the certificate says. A node needs both extended key usages there,
/// serverAuth and clientAuth, as it is dialled and dials.
///
/// Make one with [`ClusterConfig::new`], and set the fields that should differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// The cluster's name, the same on each node. Default: `bus`.
    pub name: String,
    /// The address to listen on for other nodes. Default: `127.0.0.1`.
    pub host: IpAddr,
    /// The port to listen on for other nodes. Default: 6222.
    pub port: u16,
    /// The node's certificate for its routes. It may be the one that clients see.
    pub tls: TlsFiles,
    /// The keys of all nodes. At least one, as none would let in everybody with a certificate.
    pub pins: Vec<KeyPin>,
    /// Where the other nodes are, each as `host:port`. A host is one that the node's certificate names. With JetStream, all of
    /// them: it is their number that a majority is counted from.
    pub routes: Vec<String>,
}

impl ClusterConfig {
    /// A node with the defaults that stand at each field.
    #[must_use]
    pub fn new(tls: TlsFiles, pins: Vec<KeyPin>, routes: Vec<String>) -> Self {
        Self { name: "bus".to_owned(), host: Ipv4Addr::LOCALHOST.into(), port: 6222, tls, pins, routes }
    }

    pub(crate) fn render(&self) -> Result<String, ConfigError> {
        if self.pins.is_empty() {
            return Err(ConfigError::UnpinnedCluster);
        }
        if self.routes.is_empty() {
            return Err(ConfigError::LoneNode);
        }
        let pins: Vec<String> = self.pins.iter().map(KeyPin::to_string).collect();
        let routes: Vec<String> = self.routes.iter().map(|route| route_url(route)).collect::<Result<_, _>>()?;
        let mut text = String::from("cluster {\n");
        // Writing to a string cannot fail, so the results below carry nothing.
        let _ = writeln!(text, "  name: {}", quoted("cluster name", &self.name)?);
        let _ = writeln!(text, "  host: {}", quoted("cluster host", &self.host.to_string())?);
        let _ = writeln!(text, "  port: {}", port_number(self.port));
        // Clients are told all addresses by their operator: those that a node would tell are not in its certificate.
        text.push_str("  no_advertise: true\n");
        let _ = writeln!(text, "  routes: {}", quoted_list("route", &routes)?);
        let _ = writeln!(
            text,
            "  tls {{\n    cert_file: {}\n    key_file: {}\n    ca_file: {}\n    verify: true\n    min_version: \"1.3\"\n    \
             timeout: 5\n    pinned_certs: {}\n  }}",
            quoted_path("route certificate", &self.tls.cert)?,
            quoted_path("route key", &self.tls.key)?,
            quoted_path("trust root", &self.tls.trust_root)?,
            quoted_list("pin", &pins)?,
        );
        text.push_str("}\n");
        Ok(text)
    }
}

/// The address of another node, which may hold no name and no password: keys are what counts.
fn route_url(route: &str) -> Result<String, ConfigError> {
    let refused = || ConfigError::Route { route: route.chars().take(200).collect() };
    let (host, port) = route.rsplit_once(':').ok_or_else(refused)?;
    let is_host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map_or_else(
        || !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')),
        |host| matches!(host.parse(), Ok(IpAddr::V6(_))),
    );
    match port.parse::<u16>() {
        Ok(1..) if is_host => Ok(format!("tls://{route}")),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn cluster(pins: &[&str], routes: &[&str]) -> ClusterConfig {
        let tls = TlsFiles { cert: "/n1.crt".into(), key: "/n1.key".into(), trust_root: "/ca".into() };
        let pins = pins.iter().map(|pin| pin.parse().unwrap()).collect();
        ClusterConfig::new(tls, pins, routes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn routes_demand_pinned_keys_over_tls13() {
        let text = cluster(&[PIN, &PIN.replace('e', "f")], &["n2.example:6222", "[::1]:6223"]).render().unwrap();
        for part in [
            "verify: true",
            "min_version: \"1.3\"",
            &format!("\"{PIN}\""),
            "\"tls://n2.example:6222\"",
            "\"tls://[::1]:6223\"",
            "no_advertise: true",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_cluster_without_pins_or_without_other_nodes_is_refused() {
        assert!(matches!(cluster(&[], &["n2:6222"]).render(), Err(ConfigError::UnpinnedCluster)));
        assert!(matches!(cluster(&[PIN], &[]).render(), Err(ConfigError::LoneNode)));
    }

    #[test]
    fn a_route_is_a_host_and_a_port_and_nothing_else() {
        for bad in [
            "n2",
            "n2:",
            "n2:0",
            "n2:65536",
            ":6222",
            "u:p@n2:6222",
            "tls://n2:6222",
            "n2/x:1",
            "[n2]:1",
            "[::1:1",
            "a b:1",
        ] {
            assert!(matches!(cluster(&[PIN], &[bad]).render(), Err(ConfigError::Route { .. })), "{bad}");
        }
    }

    #[test]
    fn a_pin_is_64_hexadecimal_digits() {
        assert_eq!(PIN.to_ascii_uppercase().parse::<KeyPin>().unwrap().to_string(), PIN);
        assert_eq!(KeyPin::new([0xab; 32]).to_string(), "ab".repeat(32));
        for bad in ["", &PIN[1..], &format!("{PIN}0"), &PIN.replace('e', "g"), &PIN.replacen("e3", "é", 1)] {
            assert!(matches!(bad.parse::<KeyPin>(), Err(ConfigError::Pin { .. })), "{bad}");
        }
    }
}
