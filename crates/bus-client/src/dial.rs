//! How a connection is made: addresses, options, pauses, and what went wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{ConnectErrorKind, ConnectOptions, ServerAddr};
use bus_proto::Principal;
use bus_proto::subject::reply_prefix;

use crate::connection::random;
use crate::error::ConnectError;
use crate::options::BusOptions;
use crate::shared::Shared;
use crate::status::BusEvent;

/// How often a silent connection is asked whether it still lives; after two unanswered questions it is given up.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// The first pause before a reconnect is spread over this long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The server's address in the one form that async-nats is given.
pub(crate) fn address(url: &str) -> Result<ServerAddr, ConnectError> {
    let refused = || ConnectError::Address { url: url.to_owned() };
    let host_and_port = match url.split_once("://") {
        Some(("tls", rest)) => rest,
        Some(_) => return Err(refused()),
        None => url,
    };
    if host_and_port.is_empty() || host_and_port.contains(['@', '/', '?', '#']) {
        return Err(refused());
    }
    format!("tls://{host_and_port}").parse().map_err(|_| refused())
}

pub(crate) fn connect_options(options: &BusOptions, shared: &Arc<Shared>) -> ConnectOptions {
    // None of the callbacks keeps the client's state alive.
    let (of_events, of_attempts) = (Arc::downgrade(shared), Arc::downgrade(shared));
    let max_delay = options.reconnect_max_delay;
    let was_connected = Arc::new(AtomicBool::new(false));
    let dialling = Arc::clone(&was_connected);
    let (of_pauses, servers) = (Arc::downgrade(shared), options.servers.len());
    ConnectOptions::new()
        .tls_client_config((*options.identity.client_config()).clone())
        .require_tls(true)
        .tls_first()
        .name(shared.principal.endpoint.to_string())
        .connection_timeout(options.connect_timeout)
        .ping_interval(PING_INTERVAL)
        .ignore_discovered_servers()
        .custom_inbox_prefix(reply_prefix(&shared.principal.endpoint))
        .reconnect_delay_callback(move |attempt| {
            // Who leaves a lame duck has paused before, and tries each server once without another pause.
            let leaves = || attempt <= servers && of_pauses.upgrade().is_some_and(|shared| shared.is_leaving());
            let at_once = !dialling.load(Ordering::Acquire) || leaves();
            if at_once { Duration::ZERO } else { reconnect_delay(attempt, max_delay) }
        })
        .reconnect_to_server_callback(move |servers, _| {
            let park = of_attempts.upgrade().is_none_or(|shared| {
                report_failures(&shared, &servers);
                shared.is_parked()
            });
            // async-nats cannot be told to stop reconnecting. A callback that never answers does it: the connection's
            // two tasks then wait until the runtime ends.
            async move { if park { std::future::pending().await } else { None } }
        })
        .event_callback(move |event| {
            if event == async_nats::Event::Connected {
                was_connected.store(true, Ordering::Release);
            }
            if let Some(shared) = of_events.upgrade() {
                shared.on_event(event);
            }
            async {}
        })
}

/// Before an attempt: why the last one failed, for each server where it did.
fn report_failures(shared: &Shared, servers: &[async_nats::Server]) {
    for server in servers.iter().filter(|server| server.failed_attempts > 0) {
        if let Some(reason) = &server.last_error {
            shared.emit(BusEvent::ReconnectFailed { reason: format!("{server}: {reason}") });
        }
    }
}

/// Exponential with full jitter: evenly spread between nothing and a ceiling that doubles from 200 ms up to `max`.
fn reconnect_delay(attempt: usize, max: Duration) -> Duration {
    let exponent = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let ceiling = FIRST_PAUSE.saturating_mul(1 << exponent).min(max);
    spread(ceiling)
}

/// Evenly spread between nothing and `max`.
pub(crate) fn spread(max: Duration) -> Duration {
    let share = random::<4>().map_or(1.0, |bytes| f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX));
    max.mul_f64(share)
}

pub(crate) fn connect_error(
    error: &async_nats::ConnectError,
    servers: &str,
    principal: &Principal,
    limit: Duration,
) -> ConnectError {
    let servers = servers.to_owned();
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => ConnectError::Refused { principal: principal.clone() },
        ConnectErrorKind::TimedOut => ConnectError::TimedOut { servers, timeout_ms: limit.as_millis() },
        _ => match tls_reason(error) {
            Some(reason) => ConnectError::Handshake { servers, reason },
            None => ConnectError::Unreachable { servers, reason: innermost(error) },
        },
    }
}

/// What rustls says, where the failure is one of TLS. The server's own refusal of a client certificate arrives as an
/// alert on the first read (RFC 8446, section 4.4.2.4).
fn tls_reason(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls.to_string());
        }
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(tls) = inside.and_then(|inside| inside.downcast_ref::<rustls::Error>()) {
            return Some(tls.to_string());
        }
        current = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_with_tls_are_accepted() {
        for good in ["tls://localhost:4222", "localhost:4222", "tls://127.0.0.1:4222", "tls://[::1]:4222"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["nats://localhost:4222", "ws://a:1", "wss://a:1", "http://a:1", "", "tls://", "tls://u:p@a:1"] {
            assert!(matches!(address(bad), Err(ConnectError::Address { .. })), "{bad}");
        }
    }

    #[test]
    fn reconnects_are_spread_and_bounded() {
        let max = Duration::from_secs(30);
        for attempt in [1, 2, 10, usize::MAX] {
            let delays: Vec<_> = (0..100).map(|_| reconnect_delay(attempt, max)).collect();
            assert!(delays.iter().all(|delay| *delay <= max), "{attempt}");
            let distinct: std::collections::HashSet<_> = delays.into_iter().collect();
            assert!(distinct.len() > 50, "no jitter at attempt {attempt}");
        }
        assert!((0..100).all(|_| reconnect_delay(1, max) <= FIRST_PAUSE));
    }
}
