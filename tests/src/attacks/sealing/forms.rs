//! What is inside of what was sealed or compressed.

use anyhow::{Context as _, Result};
use bus_proto::AnyPayload;
use bus_proto::prost::Message as _;
use bus_proto::v1::{Batch, BatchMember, CommandResult, Compressed, Envelope, Heartbeat, TelemetryEvent, batch_member};

use super::{CORE, SECOND, Scene, deliver, named, payload_of};
use crate::attacks::craft::{
    any_key, carrying, compressed, content, epoch, field, holding, recipient, sealed, sealed_content,
};
use crate::attacks::raw::soon;
use crate::attacks::scene::kill;
use crate::attacks::{Trial, craft};

/// The policy demands that telemetry and answers are sealed, and the component does not seal them.
pub(in crate::attacks) async fn not_sealed() -> Result<Trial> {
    let scene = Scene::set_where_sealing_is_required().await?;
    let mut inbox = scene.core.subscribe_inbox::<CommandResult>().await?;
    let answer = |sealed: bool| {
        let envelope = scene.compromised.directed(CORE, CommandResult::completed("done"));
        let mut epoch = scene.epoch()?;
        if sealed { craft::sealed(&scene.compromised, &mut epoch, &envelope) } else { Ok(envelope) }
    };
    let (open, closed) = (answer(false)?, answer(true)?);
    scene.send(&open).await?;
    let refused = soon("a refusal", inbox.next()).await?.context("the subscription ended")?;
    let directed = refused.err().context("an answer is accepted").and_then(|rejected| named(rejected, "not_sealed"));
    scene.send(&closed).await?;
    let opened = soon("an answer", inbox.next()).await?.context("the subscription ended")?;
    let opened = opened.map(drop).context("a sealed answer");
    let trial = deliver(scene, |scene| {
        let batch = scene.compromised.batch(100);
        let inside = compressed(&content(batch.payload.clone().context("no payload")?))?;
        Ok(vec![
            ("as it is", scene.compromised.telemetry(), "not_sealed"),
            ("a batch", scene.compromised.batch(3), "not_sealed"),
            ("compressed", holding(&scene.compromised.telemetry(), inside), "not_sealed"),
        ])
    })
    .await?;
    Ok(Trial { refusal: directed.and(trial.refusal), control: opened.and(trial.control) })
}

fn batch_of(payload: &batch_member::Payload, members: usize) -> AnyPayload {
    let member = |_| {
        let single = crate::attacks::raw::telemetry("agent-01");
        let (message_id, timestamp_utc) = (single.message_id, single.timestamp_utc);
        BatchMember { message_id, timestamp_utc, payload: Some(payload.clone()), ..BatchMember::default() }
    };
    AnyPayload::Batch(Batch { members: (0..members).map(member).collect() })
}

/// Under telemetry, something else is sealed or compressed.
pub(in crate::attacks) async fn type_inside() -> Result<Trial> {
    deliver(Scene::set().await?, |scene| {
        let own = || scene.compromised.telemetry();
        let seals = |inside: &[u8]| sealed_content(&scene.compromised, &mut scene.epoch()?, &own(), inside);
        let commands = content(batch_of(&batch_member::Payload::Command(kill(4_242)), 100));
        let heartbeat = AnyPayload::Heartbeat(Heartbeat { uptime: 1, version: "1".into() });
        Ok(vec![
            ("a command", seals(&content(kill(4_242).into()))?, "type_mismatch"),
            ("a heartbeat", seals(&content(heartbeat))?, "type_mismatch"),
            ("commands", seals(&commands)?, "type_mismatch"),
            ("compressed commands", seals(&content(compressed(&commands)?))?, "type_mismatch"),
            ("compressed commands, not sealed", holding(&own(), compressed(&commands)?), "type_mismatch"),
        ])
    })
    .await
}

/// A frame of Zstandard that stores what it holds as it is (RFC 8878, section 3.1.1).
fn stored(content: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(content.len())?;
    // One segment, whose length stands in four bytes; one block, the last.
    let head = [&MAGIC[..], &[0xa0], &length.to_le_bytes(), &(length << 3 | 1).to_le_bytes()[..3]].concat();
    Ok([&head, content].concat())
}

const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// The same as a payload.
fn stored_payload(content: &[u8]) -> Result<AnyPayload> {
    Ok(AnyPayload::Compressed(Compressed { length: u32::try_from(content.len())?, frame: stored(content)?.into() }))
}

/// Forms inside of forms that may not hold them, and what is no one payload.
pub(in crate::attacks) async fn nested() -> Result<Trial> {
    const NESTED: &str = "content: NestedForm";
    deliver(Scene::set().await?, |scene| {
        let own = || scene.compromised.telemetry();
        let seals = |inside: &[u8]| sealed_content(&scene.compromised, &mut scene.epoch()?, &own(), inside);
        let telemetry = content(own().payload.context("no payload")?);
        let in_sealed = content(AnyPayload::Sealed(scene.sealed()?.1));
        let in_compressed = content(stored_payload(&telemetry)?);
        let member = |number: u32, form: &[u8]| {
            let single = own();
            let (message_id, timestamp_utc) = (single.message_id, single.timestamp_utc);
            let head = BatchMember { message_id, timestamp_utc, ..BatchMember::default() }.encode_to_vec();
            // What a form's encoding has after its tag and length is what the field holds.
            field(18, &field(1, &[head, field(number, form)].concat()))
        };
        let batch = Batch { members: vec![BatchMember::default()] }.encode_to_vec();
        let empty = field(18, &[]);
        let absurd = content(TelemetryEvent { cpu_usage: f64::NAN, ram_usage: 1.0 }.into());
        Ok(vec![
            ("sealed in sealed", seals(&in_sealed)?, NESTED),
            ("compressed in compressed", holding(&own(), stored_payload(&in_compressed)?), NESTED),
            ("sealed in compressed", holding(&own(), stored_payload(&in_sealed)?), NESTED),
            ("all of it, sealed", seals(&content(stored_payload(&in_compressed)?))?, NESTED),
            ("sealed in a compressed one that is sealed", seals(&content(stored_payload(&in_sealed)?))?, NESTED),
            ("a batch in a batch", seals(&member(18, &batch))?, NESTED),
            ("sealed in a batch", seals(&member(17, &scene.sealed()?.1.encode_to_vec()))?, NESTED),
            ("compressed in a batch", seals(&member(19, &in_compressed))?, NESTED),
            ("an empty batch", seals(&empty)?, "content"),
            ("two payloads", seals(&telemetry.repeat(2))?, "content: SeveralPayloads"),
            (
                "a field beside it",
                seals(&[telemetry.clone(), field(1_000, b"more")].concat())?,
                "content: UnknownField",
            ),
            ("no payload", seals(&field(1, b"id"))?, "content: UnknownField"),
            ("a whole envelope", seals(&own().encode_to_vec())?, "content: UnknownField"),
            ("another encoding", seals(&[0x52, 0x89, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0])?, "content"),
            ("random bytes", seals(&[0xff; 64])?, "content"),
            ("impossible values", seals(&absurd)?, "value"),
        ])
    })
    .await
}

/// What decompresses to much more than it is, or to something else than it says.
pub(in crate::attacks) async fn bombs() -> Result<Trial> {
    const MANY: usize = 8 * 1024 * 1024;
    const BLOCK: u32 = 128 * 1024;
    let mut scene = Scene::set().await?;
    // What is compressed as it should be, sealed and not, is taken.
    let batch =
        content(batch_of(&batch_member::Payload::Telemetry(TelemetryEvent { cpu_usage: 1.5, ram_usage: 2.5 }), 2));
    let envelope = scene.compromised.telemetry();
    let good = content(stored_payload(&batch)?);
    let honest = sealed_content(&scene.compromised, &mut scene.epoch()?, &envelope, &good)?;
    scene.send(&honest).await?;
    for member in 0..2 {
        let received = scene.telemetry.next().await.context("the subscription ended")?;
        received.with_context(|| format!("member {member} of what is compressed as it should be"))?;
    }
    deliver(scene, |scene| {
        let own = || scene.compromised.telemetry();
        let says = |length: usize, frame: Vec<u8>| {
            anyhow::Ok(AnyPayload::Compressed(Compressed { length: u32::try_from(length)?, frame: frame.into() }))
        };
        let zeros = bus_crypto::compression::compress(&vec![0; MANY], 19)?.context("zeros become shorter")?;
        // Blocks that repeat one byte, in a frame that does not say how long it is: the window is 128 KiB.
        let block = (BLOCK << 3 | 1 << 1).to_le_bytes();
        let blocks = [&block[..3], &[0]].concat().repeat(MANY / BLOCK as usize);
        let unstated = [&MAGIC[..], &[0, 0x38], &blocks, &(1 << 1 | 1_u32).to_le_bytes()[..3], &[0]].concat();
        let telemetry = content(own().payload.context("no payload")?);
        let frame = stored(&telemetry)?;
        let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"skip"].concat();
        let with_dictionary = {
            let mut frame = frame.clone();
            frame[4] |= 1;
            frame.insert(5, 7);
            frame
        };
        let mut damaged = frame.clone();
        damaged.truncate(frame.len() - 1);
        let length = telemetry.len();
        let bombs = vec![
            ("much, as it says", says(MANY, zeros.clone())?, "compression: TooLong"),
            ("much, and it says little", says(100, zeros)?, "compression: Length"),
            ("much, and the frame does not say", says(100, unstated.clone())?, "compression: Damaged"),
            ("much, and it says so", says(MANY, unstated)?, "compression: TooLong"),
            ("less than it says", says(length + 1, frame.clone())?, "compression: Length"),
            ("more than it says", says(length - 1, frame.clone())?, "compression: Length"),
            ("two frames", says(length, frame.repeat(2))?, "compression: NotOneFrame"),
            ("bytes behind it", says(length, [&frame[..], b"more"].concat())?, "compression: NotOneFrame"),
            ("a frame to skip before it", says(length, [skippable, frame].concat())?, "compression: NotOneFrame"),
            ("a dictionary", says(length, with_dictionary)?, "compression: Dictionary"),
            ("cut off", says(length, damaged)?, "compression: NotOneFrame"),
        ];
        let mut attempts: Vec<(&'static str, Envelope, &'static str)> = Vec::new();
        for (what, bomb, name) in bombs {
            let inside = content(bomb.clone());
            attempts.push((what, sealed_content(&scene.compromised, &mut scene.epoch()?, &own(), &inside)?, name));
            attempts.push((what, holding(&own(), bomb), name));
        }
        let beyond = AnyPayload::Compressed(Compressed { length: u32::MAX, frame: stored(&telemetry)?.into() });
        attempts.push(("a length beyond all", holding(&own(), beyond), "encoding"));
        Ok(attempts)
    })
    .await
}

/// The wrapped keys stand in another order than that of their recipients, or one of these has two.
pub(in crate::attacks) async fn unordered_recipients() -> Result<Trial> {
    deliver(Scene::set().await?, |scene| {
        let both = [scene.core(), recipient(SECOND, 3, any_key()?.public_key())];
        let seal = || {
            let envelope = scene.compromised.telemetry();
            let made = sealed(&scene.compromised, &mut epoch(&scene.compromised, &both)?, &envelope)?;
            anyhow::Ok((envelope, payload_of(made)?))
        };
        let (first, mut reversed) = seal()?;
        reversed.wrapped_keys.reverse();
        let (second, mut twice) = seal()?;
        let again = twice.wrapped_keys[0].clone();
        twice.wrapped_keys.insert(1, again);
        let (third, mut unversioned) = seal()?;
        unversioned.wrapped_keys[0].key_version = 0;
        let (fourth, mut long) = seal()?;
        long.wrapped_keys[0].wrapped = vec![7; 2_049].into();
        let (fifth, mut nameless) = seal()?;
        nameless.wrapped_keys[1].recipient = "spiffe://x/".repeat(60);
        Ok(vec![
            ("reversed", carrying(&first, reversed), "encoding: UnorderedRecipients"),
            ("twice", carrying(&second, twice), "encoding: UnorderedRecipients"),
            ("without a version", carrying(&third, unversioned), "encoding: key_version"),
            ("a long wrapped key", carrying(&fourth, long), "encoding: wrapped"),
            ("a long name", carrying(&fifth, nameless), "encoding: recipient"),
        ])
    })
    .await
}
