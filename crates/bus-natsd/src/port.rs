//! Ports that are free now, and stay free while a server is away.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, TcpListener};
use std::ops::Range;

use crate::error::ServerError;

/// Below the ports that Linux, macOS and Windows give to outgoing connections: one of those could take the port of a node
/// that is down, or even reach itself when it dials it.
const RANGE: Range<u16> = 15_000..32_000;

const ATTEMPTS: usize = 200;

/// A port that nobody listens on at the moment, and that is none of `taken`.
pub(crate) fn free_port(host: IpAddr, taken: &HashSet<u16>) -> Result<u16, ServerError> {
    // The standard library's one source of random numbers. They only have to differ between programs.
    let random = RandomState::new();
    let mut candidates = (0..ATTEMPTS).map(|attempt| {
        let offset = random.hash_one(attempt) % u64::from(RANGE.end - RANGE.start);
        u16::try_from(offset).unwrap_or_default() + RANGE.start
    });
    let is_free = |port: &u16| !taken.contains(port) && TcpListener::bind((host, *port)).is_ok();
    candidates.find(is_free).ok_or(ServerError::NoPort { host })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_free_port_is_in_range_and_none_that_is_taken() {
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut taken = HashSet::new();
        for _ in 0..50 {
            let port = free_port(host, &taken).unwrap();
            assert!(RANGE.contains(&port) && taken.insert(port), "{port}");
        }
    }

    #[test]
    fn without_a_free_port_there_is_an_error() {
        let everything = RANGE.collect();
        let error = free_port(Ipv4Addr::LOCALHOST.into(), &everything).unwrap_err();
        assert!(matches!(error, ServerError::NoPort { .. }), "{error}");
    }
}
