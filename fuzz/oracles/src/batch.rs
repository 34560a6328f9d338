//! Batches, changed member by member.

use bus_proto::prost::Message;
use bus_proto::v1::batch_member::Payload;
use bus_proto::v1::envelope;
use bus_proto::v1::{AlertEvent, Batch, BatchMember, CommandRequest, CommandResult, Custom, Error};
use bus_proto::v1::{Heartbeat, TelemetryEvent};

use crate::envelope::insider;
use crate::fixture::{NOW, SENDER};
use crate::script::Script;

/// The most members that a script makes: more than a batch may have.
const MOST_MEMBERS: usize = 300;

/// Instructions that change the members of a valid batch, and then single bytes of what encodes them. An insider signs the
/// result.
pub fn batch(data: &[u8]) {
    let mut script = Script::new(data);
    let mut members: Vec<BatchMember> = (0..2).map(member).collect();
    let mut changed = true;
    while changed && !script.is_over() {
        changed = change(&mut script, &mut members);
    }
    let mut envelope = SENDER.heartbeat();
    envelope.payload = Some(envelope::Payload::Batch(Batch { members }));
    let mut prefix = envelope.encode_to_vec();
    while !script.is_over() {
        change_bytes(&mut script, &mut prefix);
    }
    insider(&prefix);
}

fn member(uptime: u64) -> BatchMember {
    BatchMember {
        message_id: "0199f1a2-0000-7000-8000-000000000000".into(),
        timestamp_utc: NOW,
        payload: Some(Payload::Heartbeat(Heartbeat { uptime, version: "0.1.0".into() })),
        ..BatchMember::default()
    }
}

/// Carries out one instruction. `false` where the changes of the bytes begin.
fn change(script: &mut Script<'_>, members: &mut Vec<BatchMember>) -> bool {
    let instruction = script.byte() % 12;
    if instruction == 11 {
        return false;
    }
    if members.is_empty() || instruction == 0 {
        members.push(member(script.number()));
        return true;
    }
    let at = script.index(members.len());
    let one = &mut members[at];
    match instruction {
        1 => drop(members.remove(at)),
        2 => {
            let other = script.index(members.len());
            members.swap(at, other);
        }
        3 => {
            let room = MOST_MEMBERS.saturating_sub(members.len());
            let copies = vec![members[at].clone(); script.index(MOST_MEMBERS).min(room)];
            members.extend(copies);
        }
        4 => one.message_id = script.text(),
        5 => {
            let mut id = std::mem::take(&mut one.message_id).into_bytes();
            if !id.is_empty() {
                let place = script.index(id.len());
                id[place] = script.byte();
            }
            one.message_id = String::from_utf8_lossy(&id).into_owned();
        }
        6 => one.timestamp_utc = script.number().cast_signed(),
        7 => one.expires_at = script.number().cast_signed(),
        8 => one.correlation_id = script.some_bytes().into(),
        9 => one.payload = payload(script),
        _ => {
            let payload = payload(script);
            members.iter_mut().for_each(|member| member.payload.clone_from(&payload));
        }
    }
    true
}

fn payload(script: &mut Script<'_>) -> Option<Payload> {
    let load = |script: &mut Script<'_>| f64::from_bits(script.number());
    let enumeration = |script: &mut Script<'_>| i32::from_le_bytes(std::array::from_fn(|_| script.byte()));
    Some(match script.byte() % 8 {
        0 => Payload::Telemetry(TelemetryEvent { cpu_usage: load(script), ram_usage: load(script) }),
        1 => Payload::Alert(AlertEvent {
            threat_type: script.text(),
            severity: enumeration(script),
            description: script.text(),
        }),
        2 => Payload::Command(CommandRequest {
            command_type: enumeration(script),
            target_pid: u32::from_le_bytes(std::array::from_fn(|_| script.byte())),
        }),
        3 => Payload::Heartbeat(Heartbeat { uptime: script.number(), version: script.text() }),
        4 => Payload::CommandResult(CommandResult { status: enumeration(script), detail: script.text() }),
        5 => Payload::Error(Error { code: enumeration(script), message: script.text() }),
        6 => Payload::Custom(Custom { type_name: script.text(), value: script.some_bytes().into() }),
        _ => return None,
    })
}

fn change_bytes(script: &mut Script<'_>, bytes: &mut Vec<u8>) {
    let instruction = script.byte() % 5;
    if bytes.is_empty() || instruction == 0 {
        bytes.extend(script.some_bytes());
        return;
    }
    let at = script.index(bytes.len());
    match instruction {
        1 => bytes[at] = script.byte(),
        2 => bytes.insert(at, script.byte()),
        3 => drop(bytes.remove(at)),
        _ => {
            let end = at.saturating_add(usize::from(script.byte())).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = script.index(bytes.len());
            bytes.splice(to..to, piece);
        }
    }
}
