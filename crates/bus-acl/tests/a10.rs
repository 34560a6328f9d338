//! Requirement A10: who may publish what, as a function of two texts.

use bus_acl::can_publish;

#[test]
fn agent_may_publish_telemetry_alert_and_heartbeat() {
    for message_type in
        ["Telemetry", "TelemetryEvent", "telemetry", "Alert", "AlertEvent", "alert", "Heartbeat", "heartbeat"]
    {
        assert!(can_publish("agent", message_type), "{message_type}");
    }
}

#[test]
fn agent_may_not_publish_commands() {
    for message_type in ["CommandRequest", "Command", "command"] {
        assert!(!can_publish("agent", message_type), "{message_type}");
    }
}

#[test]
fn core_may_publish_commands() {
    for message_type in ["CommandRequest", "Command", "command"] {
        assert!(can_publish("core", message_type), "{message_type}");
    }
}

#[test]
fn anything_else_is_denied() {
    for message_type in ["Telemetry", "Alert", "Heartbeat"] {
        assert!(!can_publish("core", message_type), "{message_type}");
    }
    for message_type in
        ["CommandResult", "Result", "result", "Error", "error", "x-disk", "Nonsense", "COMMANDREQUEST", ""]
    {
        for role in ["agent", "core", "watcher", "*", ""] {
            assert!(!can_publish(role, message_type), "{role} {message_type}");
        }
    }
    let long = "a".repeat(10_000);
    for role in [
        "watcher",
        "Agent",
        "AGENT",
        "agent ",
        " agent",
        "agent.core",
        "agent-",
        "*",
        ">",
        "",
        "ägent",
        "agent\0",
        &long,
    ] {
        for message_type in ["Telemetry", "Alert", "Heartbeat", "CommandRequest", &long] {
            assert!(!can_publish(role, message_type), "{role:?} {message_type}");
        }
    }
}
