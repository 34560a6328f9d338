//! Payloads, for people and as JSON.

use bus_proto::AnyPayload;
use bus_proto::v1::{CommandStatus, CommandType, ErrorCode, Sealed, Severity};
use serde_json::{Value, json};

use crate::escape::plain;

/// The payload as JSON, under the field names of the protobuf schema.
pub(crate) fn to_json(payload: &AnyPayload) -> Value {
    match payload {
        AnyPayload::Telemetry(event) => json!({ "cpu_usage": event.cpu_usage, "ram_usage": event.ram_usage }),
        AnyPayload::Alert(alert) => json!({
            "threat_type": alert.threat_type,
            "severity": severity(alert.severity),
            "description": alert.description,
        }),
        AnyPayload::Command(command) => {
            json!({ "command_type": command_type(command.command_type), "target_pid": command.target_pid })
        }
        AnyPayload::Heartbeat(beat) => json!({ "uptime": beat.uptime, "version": beat.version }),
        AnyPayload::CommandResult(result) => json!({ "status": status(result.status), "detail": result.detail }),
        AnyPayload::Error(error) => json!({ "code": error_code(error.code), "message": error.message }),
        AnyPayload::Custom(custom) => json!({ "type_name": custom.type_name, "bytes": custom.value.len() }),
        AnyPayload::Sealed(sealed) => json!({ "sealed_to": sealed_to(sealed), "bytes": sealed.ciphertext.len() }),
        AnyPayload::Batch(_) | AnyPayload::Compressed(_) => Value::Null,
    }
}

/// The payload on one line. Text of a peer is shown escaped, so that it cannot steer the terminal.
pub(crate) fn to_text(payload: &AnyPayload) -> String {
    match payload {
        AnyPayload::Telemetry(event) => format!("cpu {:.1} %  ram {:.1} %", event.cpu_usage, event.ram_usage),
        AnyPayload::Alert(alert) => {
            format!("{} {}: {}", severity(alert.severity), plain(&alert.threat_type), plain(&alert.description))
        }
        AnyPayload::Command(command) => format!("{} {}", command_type(command.command_type), command.target_pid),
        AnyPayload::Heartbeat(beat) => format!("uptime {} s  version {}", beat.uptime, plain(&beat.version)),
        AnyPayload::CommandResult(result) => format!("{}: {}", status(result.status), plain(&result.detail)),
        AnyPayload::Error(error) => format!("{}: {}", error_code(error.code), plain(&error.message)),
        AnyPayload::Custom(custom) => format!("{}  {} bytes", plain(&custom.type_name), custom.value.len()),
        AnyPayload::Sealed(sealed) => match sealed_to(sealed).as_slice() {
            [] => format!("sealed  {} bytes", sealed.ciphertext.len()),
            [only] => format!("sealed to {}  {} bytes", plain(only), sealed.ciphertext.len()),
            several => format!("sealed to {} components  {} bytes", several.len(), sealed.ciphertext.len()),
        },
        AnyPayload::Batch(_) | AnyPayload::Compressed(_) => String::new(),
    }
}

/// Whom a message is sealed to, where it says so: the keys of its recipients come along from time to time.
fn sealed_to(sealed: &Sealed) -> Vec<&str> {
    sealed.wrapped_keys.iter().map(|key| key.recipient.as_str()).collect()
}

/// What a command asks for.
pub(crate) fn command_type(value: i32) -> &'static str {
    match CommandType::try_from(value) {
        Ok(CommandType::Kill) => "kill",
        Ok(CommandType::Isolate) => "isolate",
        Ok(CommandType::Unspecified) | Err(_) => "unknown",
    }
}

/// How a command ended.
pub(crate) fn status(value: i32) -> &'static str {
    match CommandStatus::try_from(value) {
        Ok(CommandStatus::Completed) => "completed",
        Ok(CommandStatus::Failed) => "failed",
        Ok(CommandStatus::Refused) => "refused",
        Ok(CommandStatus::Unspecified) | Err(_) => "unknown",
    }
}

fn severity(value: i32) -> &'static str {
    match Severity::try_from(value) {
        Ok(Severity::Info) => "info",
        Ok(Severity::Low) => "low",
        Ok(Severity::Medium) => "medium",
        Ok(Severity::High) => "high",
        Ok(Severity::Critical) => "critical",
        Ok(Severity::Unspecified) | Err(_) => "unknown",
    }
}

fn error_code(value: i32) -> &'static str {
    match ErrorCode::try_from(value) {
        Ok(ErrorCode::Unsupported) => "unsupported",
        Ok(ErrorCode::Invalid) => "invalid",
        Ok(ErrorCode::Expired) => "expired",
        Ok(ErrorCode::Busy) => "busy",
        Ok(ErrorCode::Internal) => "internal",
        Ok(ErrorCode::Unspecified) | Err(_) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus_proto::v1::AlertEvent;

    #[test]
    fn a_peers_text_cannot_steer_the_terminal() {
        let alert = AlertEvent {
            threat_type: "x".into(),
            severity: Severity::High.into(),
            description: "a\u{1b}[2Jb\nc\u{9b}d ä\u{202e}".into(),
        };
        let text = to_text(&alert.into());
        assert_eq!(text, "high x: a\\u{1b}[2Jb\\nc\\u{9b}d ä\\u{202e}");
    }
}
