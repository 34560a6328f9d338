//! The `[[delivery]]` and `[[durable]]` tables: which messages are kept, and who gets them.

use alloc::format;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use bus_proto::{ComponentId, ConsumerName, Endpoint, Role};

use super::error::PolicyError;
use super::read::{Table, Text};
use super::{destinations, types};
use crate::delivery::{DeliveryError, DeliveryRule, MAX_LIFETIME_MS, MIN_LIFETIME_MS, Millis};
use crate::durable::{ACK_WAIT_MS, Durable, MAX_ACK_PENDING, MAX_DELIVER, Source};
use crate::policy::Policy;

const DELIVERY_KEYS: &[&str] = &["types", "to", "class", "max_lifetime"];
const DURABLE_KEYS: &[&str] =
    &["name", "role", "component", "types", "from", "max_deliver", "ack_wait", "max_ack_pending"];

/// The units of a span of time, and how many milliseconds each has.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];

/// This policy with what the tables say besides.
pub(super) fn delivered(
    policy: Policy,
    deliveries: &[Table<'_>],
    durables: &[Table<'_>],
) -> Result<Policy, PolicyError> {
    let rules: Vec<_> = deliveries.iter().map(delivery).collect::<Result<_, _>>()?;
    let consumers: Vec<_> = durables.iter().map(durable).collect::<Result<_, _>>()?;
    let read = policy.with_deliveries(rules).and_then(|policy| policy.with_durables(consumers));
    read.map_err(|error| {
        let (tables, number) = match &error {
            DeliveryError::Lifetime { delivery: number } => (deliveries, *number),
            DeliveryError::Overlap { every, single } => (deliveries, *every.max(single)),
            DeliveryError::Bounds { durable: number, .. }
            | DeliveryError::Repeated { durable: number, .. }
            | DeliveryError::NotKept { durable: number, .. }
            | DeliveryError::NotAllowed { durable: number, .. } => (durables, *number),
        };
        let at = tables.get(number.saturating_sub(1)).map_or(super::Position { line: 1, column: 1 }, Table::at);
        PolicyError::Delivery { at, error }
    })
}

fn delivery(table: &Table<'_>) -> Result<DeliveryRule, PolicyError> {
    table.allow_only(DELIVERY_KEYS)?;
    let (types, to) = (types(table)?, destinations(table)?);
    let class = table.required_text("class")?;
    match class.value {
        "live" => {
            table.forbid("max_lifetime", "only a delivery whose `class` is \"durable\" has a lifetime")?;
            Ok(DeliveryRule::live(types, to))
        }
        "durable" => {
            let lifetime = span(&table.required_text("max_lifetime")?, &(MIN_LIFETIME_MS..=MAX_LIFETIME_MS))?;
            Ok(DeliveryRule::durable(types, to, lifetime))
        }
        _ => Err(class.wrong("it must be \"live\" or \"durable\"")),
    }
}

fn durable(table: &Table<'_>) -> Result<Durable, PolicyError> {
    table.allow_only(DURABLE_KEYS)?;
    let name = table.required_text("name")?.parse(ConsumerName::new)?;
    let role = table.required_text("role")?.parse(Role::new)?;
    let component = table.required_text("component")?.parse(ComponentId::new)?;
    let types = types(table)?;
    let from = table.required_text("from")?;
    let from = match from.value {
        "events" => Source::Events,
        "inbox" => Source::Inbox,
        _ => return Err(from.wrong("it must be \"events\" or \"inbox\", which is the component's own")),
    };
    let mut durable = Durable::new(name, Endpoint { role, component }, types, from);
    if let Some(times) = table.integer("max_deliver", MAX_DELIVER)? {
        durable.max_deliver = times;
    }
    if let Some(wait) = table.text("ack_wait")? {
        durable.ack_wait = Duration::from_millis(span(&wait, &ACK_WAIT_MS)?);
    }
    if let Some(pending) = table.integer("max_ack_pending", MAX_ACK_PENDING)? {
        durable.max_ack_pending = pending;
    }
    Ok(durable)
}

/// A span of time, such as `90s`, in milliseconds.
fn span(text: &Text<'_>, bounds: &RangeInclusive<u64>) -> Result<u64, PolicyError> {
    let digits = text.value.bytes().take_while(u8::is_ascii_digit).count();
    let read = text.value.split_at_checked(digits).and_then(|(number, unit)| {
        let (_, length) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(length)
    });
    read.filter(|span| bounds.contains(span)).ok_or_else(|| {
        let (min, max) = (Millis(*bounds.start()), Millis(*bounds.end()));
        text.wrong(&format!("it must be a whole number and one of ms, s, m, h and d, such as \"90s\": {min} to {max}"))
    })
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::{String, ToString};
    use std::prelude::rust_2024::*;

    use bus_proto::{Destination, MessageType};

    use super::*;
    use crate::form::Destinations;
    use crate::rule::{Inboxes, Types};
    use crate::toml::{MAX_DELIVERIES, MAX_DURABLES};

    const DELIVERY: &str = "types = [\"Alert\"]\nto = \"events\"\nclass = \"durable\"\nmax_lifetime = \"12h\"";
    const DURABLE: &str =
        "name = \"alerts\"\nrole = \"core\"\ncomponent = \"core-01\"\ntypes = [\"Alert\"]\nfrom = \"events\"";
    /// The core receives every event, and everyone its own inbox.
    const RULES: &str = "[[rule]]\nrole = 'core'\naction = 'subscribe'\ntypes = '*'\nfrom = 'events'\n\
                         [[rule]]\nrole = '*'\naction = 'subscribe'\ntypes = '*'\nfrom = 'inbox'\n";

    fn error(text: &str) -> String {
        Policy::from_toml(text).unwrap_err().to_string()
    }

    /// A whole policy with this one rule about delivery, whose first line is line 3.
    fn with_delivery(delivery: &str) -> String {
        format!("version = 1\n[[delivery]]\n{delivery}\n")
    }

    /// A whole policy with this one consumer of alerts, whose first line is line 18.
    fn with_durable(durable: &str) -> String {
        format!("version = 1\n{RULES}[[delivery]]\n{DELIVERY}\n[[durable]]\n{durable}\n")
    }

    /// `text` without the line of a key, and with this line at its end; and how many lines that are.
    fn replaced(text: &str, line: &str) -> (String, usize) {
        let key = line.split(' ').next().unwrap();
        let others: Vec<_> = text.lines().filter(|line| !line.starts_with(&format!("{key} "))).collect();
        (format!("{}\n{line}", others.join("\n")), others.len() + 1)
    }

    #[test]
    fn every_form_of_a_delivery_is_read() {
        let text = "version = 1
            delivery = [
                { types = ['Alert', 'x-scan'], to = 'events', class = 'durable', max_lifetime = '7d' },
                { types = '*', to = 'inbox:agent/*', class = 'durable', max_lifetime = '90s' },
                { types = '*', to = 'events', class = 'live' },
            ]";
        let expected = [
            DeliveryRule::durable(
                Types::only([MessageType::Alert, "x-scan".parse().unwrap()]),
                Destinations::Events,
                MAX_LIFETIME_MS,
            ),
            DeliveryRule::durable(
                Types::EVERY,
                Destinations::Inboxes(Inboxes::OfRole(Role::new("agent").unwrap())),
                90_000,
            ),
            DeliveryRule::live(Types::EVERY, Destinations::Events),
        ];
        assert_eq!(Policy::from_toml(text).unwrap(), Policy::new([]).with_deliveries(expected).unwrap());
    }

    #[test]
    fn every_form_of_a_durable_is_read() {
        let text = with_durable(&format!(
            "{DURABLE}\n[[durable]]\nname = 'all'\nrole = 'core'\ncomponent = 'core-01'\ntypes = '*'\nfrom = 'events'\n\
             max_deliver = 3\nack_wait = '2m'\nmax_ack_pending = 1"
        ));
        let durable = |name: &str, types| {
            Durable::new(name.parse().unwrap(), "core/core-01".parse().unwrap(), types, Source::Events)
        };
        let mut all = durable("all", Types::EVERY);
        (all.max_deliver, all.ack_wait, all.max_ack_pending) = (3, Duration::from_secs(120), 1);
        let policy = Policy::from_toml(&text).unwrap();
        assert_eq!(policy.durables(), [durable("alerts", Types::only([MessageType::Alert])), all]);
        let alerts = policy.delivery(&MessageType::Alert, &Destination::Events);
        assert_eq!(alerts.to_string(), "durable, for at most 12h");
    }

    #[test]
    fn a_bad_value_of_a_delivery_is_reported_with_its_place_and_what_is_allowed() {
        let lifetime = "it must be a whole number and one of ms, s, m, h and d, such as \"90s\": 1s to 7d";
        let cases = [
            (
                "class = \"lasting\"",
                "column 9: `class`: found \"lasting\": it must be \"live\" or \"durable\"".to_owned(),
            ),
            (
                "class = \"live\"",
                "column 16: `max_lifetime`: found \"12h\": only a delivery whose `class` is \"durable\" has a lifetime"
                    .to_owned(),
            ),
            ("max_lifetime = \"8d\"", format!("column 16: `max_lifetime`: found \"8d\": {lifetime}")),
            ("max_lifetime = \"999ms\"", format!("column 16: `max_lifetime`: found \"999ms\": {lifetime}")),
            ("max_lifetime = \"1.5h\"", format!("column 16: `max_lifetime`: found \"1.5h\": {lifetime}")),
            ("max_lifetime = \"h\"", format!("column 16: `max_lifetime`: found \"h\": {lifetime}")),
            ("max_lifetime = \"99999999999999999999s\"", "column 16: `max_lifetime`: found \"9".to_owned()),
            ("max_lifetime = \"ä\"", "column 16: `max_lifetime`: found ".to_owned()),
            ("max_lifetime = 90", "column 16: `max_lifetime`: found 90: it must be a text in quotes".to_owned()),
            ("to = \"inbox\"", "column 6: `to`: found \"inbox\": it must be \"events\"".to_owned()),
            (
                "role = \"core\"",
                "column 1: unknown key `role`: the keys here are types, to, class, max_lifetime".to_owned(),
            ),
        ];
        for (line, expected) in cases {
            let (text, lines) = replaced(DELIVERY, line);
            let error = error(&with_delivery(&text));
            // A lifetime that has no business there is not in the line that was replaced.
            let number =
                if line.contains("live") { 4 } else { 1 } + if line.contains("live") { lines - 3 } else { lines + 1 };
            assert!(error.starts_with(&format!("line {number}, {expected}")), "{line}: {error}");
        }
    }

    #[test]
    fn a_bad_value_of_a_durable_is_reported_with_its_place_and_what_is_allowed() {
        let cases = [
            ("name = \"a.b\"", "column 8: `name`: consumer name `a.b` is malformed"),
            ("role = \"*\"", "column 8: `role`: role `*` is malformed"),
            ("component = \"*\"", "column 13: `component`: component `*` is malformed"),
            (
                "from = \"inbox:core/c1\"",
                "column 8: `from`: found \"inbox:core/c1\": it must be \"events\" or \"inbox\"",
            ),
            ("max_deliver = 0", "column 15: `max_deliver`: found 0: it must be a whole number, 1 to 1000"),
            ("max_deliver = -1", "column 15: `max_deliver`: found -1: it must be a whole number, 1 to 1000"),
            ("max_deliver = \"3\"", "column 15: `max_deliver`: found \"3\": it must be a whole number, 1 to 1000"),
            ("ack_wait = \"0s\"", "column 12: `ack_wait`: found \"0s\": it must be a whole number and one of"),
            ("ack_wait = \"2h\"", "column 12: `ack_wait`: found \"2h\": it must be a whole number and one of"),
            (
                "max_ack_pending = 100001",
                "column 19: `max_ack_pending`: found 100001: it must be a whole number, 1 to 100000",
            ),
            (
                "trust_domain = \"td\"",
                "column 1: unknown key `trust_domain`: the keys here are name, role, component, types",
            ),
        ];
        for (line, expected) in cases {
            let (text, lines) = replaced(DURABLE, line);
            let error = error(&with_durable(&text));
            assert!(error.starts_with(&format!("line {}, {expected}", 17 + lines)), "{line}: {error}");
        }
    }

    #[test]
    fn a_missing_key_is_reported_with_the_place_of_its_table() {
        for key in ["types", "to", "class", "max_lifetime"] {
            let lines: Vec<_> = DELIVERY.lines().filter(|line| !line.starts_with(key)).collect();
            let text = format!("{}[[delivery]]\n{}", with_delivery(DELIVERY), lines.join("\n"));
            assert_eq!(error(&text), format!("line 7, column 1: the key `{key}` is missing here"));
        }
        for key in ["name", "role", "component", "types", "from"] {
            let lines: Vec<_> = DURABLE.lines().filter(|line| !line.starts_with(key)).collect();
            assert_eq!(
                error(&with_durable(&lines.join("\n"))),
                format!("line 17, column 1: the key `{key}` is missing here")
            );
        }
    }

    #[test]
    fn what_does_not_fit_together_is_reported_with_the_place_of_its_table() {
        let durable = |line: &str| with_durable(&replaced(DURABLE, line).0);
        assert_eq!(
            error(&durable("role = \"agent\"")),
            "line 17, column 1: durable 1: no rule lets agent/core-01 receive Alert from events, or one denies some of it"
        );
        assert_eq!(
            error(&durable("types = [\"Alert\", \"Error\"]")),
            "line 17, column 1: durable 1: no delivery makes Error from events durable"
        );
        let nothing = durable("from = \"inbox\"").replace("types = [\"Alert\"]\nfrom", "types = '*'\nfrom");
        let nothing = nothing.replace("types = [\"Alert\"]\nmax", "types = '*'\nmax");
        assert!(error(&nothing).starts_with("line 17, column 1: durable 1: no delivery makes "), "{nothing}");
        let twice = with_durable(&format!("{DURABLE}\n[[durable]]\n{DURABLE}"));
        assert_eq!(error(&twice), "line 23, column 1: durable 2: core/core-01 has a durable of this name already");
        let overlap = "types = '*'\nto = 'inbox:core/*'\nclass = 'durable'\nmax_lifetime = '1d'\n[[delivery]]\n\
                       types = ['Alert']\nto = 'inbox:*/*'\nclass = 'durable'\nmax_lifetime = '1d'";
        assert!(error(&with_delivery(overlap)).starts_with("line 7, column 1: delivery 1 is about every type"));
    }

    #[test]
    fn tables_beyond_the_bounds_are_refused() {
        let empty = |key: &str, count: usize| format!("version = 1\n{key} = [{}]", "{},".repeat(count));
        assert!(error(&empty("delivery", MAX_DELIVERIES)).contains("`types` is missing"));
        assert!(error(&empty("durable", MAX_DURABLES)).contains("`name` is missing"));
        assert!(
            error(&empty("delivery", MAX_DELIVERIES + 1)).starts_with("the policy has 1001 deliveries, at most 1000")
        );
        assert!(error(&empty("durable", MAX_DURABLES + 1)).starts_with("the policy has 1001 durables, at most 1000"));
    }
}
