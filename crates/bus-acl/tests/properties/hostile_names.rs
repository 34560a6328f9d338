//! Names that would be more than one subject token never reach a subject.

use bus_acl::can_publish;
use bus_proto::{ComponentId, CustomType, MessageType, Principal, Role};
use proptest::prelude::*;

/// Whether a text is one of the bus's names, by the grammar in so many words.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Nothing in the crate takes this text for a name.
fn is_refused(name: &str) {
    assert!(Role::new(name).is_err(), "{name:?}");
    assert!(ComponentId::new(name).is_err(), "{name:?}");
    assert!(CustomType::new(name).is_err(), "{name:?}");
    // Behind `x-`, a leading hyphen is an inner one.
    let custom = format!("x-{name}");
    assert_eq!(CustomType::new(&custom).is_ok(), is_name(&custom), "{name:?}");
    assert!(format!("spiffe://home/{name}/a1").parse::<Principal>().is_err(), "{name:?}");
    assert!(format!("spiffe://home/agent/{name}").parse::<Principal>().is_err(), "{name:?}");
    for message_type in MessageType::BUILT_IN {
        assert!(!can_publish(name, message_type.token()), "{name:?}");
    }
    assert!(!can_publish("agent", &format!("x-{name}")), "{name:?}");
    #[cfg(feature = "toml")]
    is_refused_in_a_policy(name);
}

#[cfg(feature = "toml")]
fn is_refused_in_a_policy(name: &str) {
    use bus_acl::Policy;

    // `*` is a role, and `inbox:agent/*` a destination, by the language of policies. Neither is a name.
    let wildcard = name == "*";
    let escaped: String = name.chars().map(|character| format!("\\U{:08x}", u32::from(character))).collect();
    let policy = |role: &str, component: &str, message_type: &str, to: &str| {
        let text = format!(
            "version = 1\n[[rule]]\nrole = \"{role}\"\ncomponent = \"{component}\"\naction = \"publish\"\n\
             types = [\"{message_type}\"]\nto = \"inbox:{to}\"\n"
        );
        Policy::from_toml(&text)
    };
    assert!(policy("agent", "a1", "x-a", "core/c1").is_ok());
    assert_eq!(policy(&escaped, "a1", "x-a", "core/c1").is_ok(), wildcard, "{name:?}");
    assert!(policy("agent", &escaped, "x-a", "core/c1").is_err(), "{name:?}");
    assert!(policy("agent", "a1", &escaped, "core/c1").is_err(), "{name:?}");
    let custom = policy("agent", "a1", &format!("x-{escaped}"), "core/c1");
    assert_eq!(custom.is_ok(), is_name(&format!("x-{name}")), "{name:?}");
    assert!(policy("agent", "a1", "x-a", &format!("{escaped}/c1")).is_err(), "{name:?}");
    assert_eq!(policy("agent", "a1", "x-a", &format!("core/{escaped}")).is_ok(), wildcard, "{name:?}");
}

#[test]
fn hostile_names_are_refused_everywhere() {
    let long = "a".repeat(10_000);
    for name in [
        "",
        ".",
        "..",
        "a.b",
        "a.",
        ".a",
        "*",
        ">",
        "a.*",
        "a.>",
        "*.*",
        "a b",
        " ",
        "a ",
        "\t",
        "a\n",
        "a\r\n",
        "a\0",
        "a/b",
        "/",
        "-",
        "-a",
        "a-",
        "A",
        "ä",
        "а",
        "𝒂",
        "a\u{200b}",
        "$SYS",
        "$JS",
        "_INBOX",
        "a\"",
        "a\\",
        &long,
    ] {
        is_refused(name);
    }
}

proptest! {
    #[test]
    fn a_text_outside_the_grammar_is_refused_everywhere(name in "\\PC{0,70}") {
        prop_assume!(!is_name(&name));
        is_refused(&name);
    }

    #[test]
    fn can_publish_is_true_for_nothing_but_what_it_lists(
        role in prop_oneof![Just("agent".to_owned()), Just("core".to_owned()), "\\PC{0,8}", "[a-z]{1,6}"],
        message_type in prop_oneof!["\\PC{0,12}", "(x-)?[a-z]{1,10}", "(Telemetry|Alert|Heartbeat|Command|Error)(Event|Request)?"],
    ) {
        let reports = ["Telemetry", "TelemetryEvent", "telemetry", "Alert", "AlertEvent", "alert", "Heartbeat", "heartbeat"];
        let commands = ["Command", "CommandRequest", "command"];
        let expected = match role.as_str() {
            "agent" => reports.contains(&message_type.as_str()),
            "core" => commands.contains(&message_type.as_str()),
            _ => false,
        };
        prop_assert_eq!(can_publish(&role, &message_type), expected);
    }
}
