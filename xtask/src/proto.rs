//! `cargo xtask proto`: the generated protobuf code, made without a `protoc`.
//!
//! Two files are committed: the Rust code and the descriptor set. `--check` fails when either differs from what
//! `proto/` now gives, or when `proto/` breaks what the committed descriptor set promised to peers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use prost::Message;
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor};

const FILES: [&str; 3] = ["ransomeye/v1/envelope.proto", "ransomeye/v1/keys.proto", "ransomeye/v1/messages.proto"];
const PACKAGE: &str = "ransomeye.v1";
const CODE: &str = "crates/bus-proto/src/generated/ransomeye.v1.rs";
const DESCRIPTORS: &str = "proto/descriptors.bin";

/// Writes the generated files below `root`, or with `check` compares them with what is committed.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let descriptors = compile(root)?;
    let committed = fs::read(root.join(DESCRIPTORS)).unwrap_or_default();
    if !committed.is_empty() {
        let breaking = breaking_changes(&pool(&committed)?, &pool(&descriptors)?);
        if !breaking.is_empty() {
            bail!(
                "proto/ breaks what peers rely on:\n  {}\nadd new fields and leave the old ones as they are; before a \
                 first release, delete {DESCRIPTORS} to start afresh",
                breaking.join("\n  ")
            );
        }
    }
    let code = generate(&descriptors)?;
    for (path, fresh) in [(CODE, code.as_bytes()), (DESCRIPTORS, descriptors.as_slice())] {
        let path = root.join(path);
        if check {
            if fs::read(&path).unwrap_or_default() != fresh {
                bail!("{} is out of date: run `cargo xtask proto` and commit it", path.display());
            }
        } else {
            fs::write(&path, fresh).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

fn compile(root: &Path) -> Result<Vec<u8>> {
    let include = root.join("proto");
    let set = protox::Compiler::new([include])
        .context("cannot read proto/")?
        .include_source_info(true)
        .open_files(FILES)
        .map_err(|error| anyhow::anyhow!("{error:?}"))?
        .encode_file_descriptor_set();
    Ok(set)
}

fn generate(descriptors: &[u8]) -> Result<String> {
    let set = prost_types::FileDescriptorSet::decode(descriptors).context("the compiled descriptors are malformed")?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).enable_type_names();
    let requests: Vec<_> =
        set.file.into_iter().map(|file| (prost_build::Module::from_protobuf_package_name(PACKAGE), file)).collect();
    let modules = config.generate(requests).context("prost-build failed")?;
    let code: Vec<_> = modules.into_values().collect();
    match code.as_slice() {
        [code] => Ok(code.clone()),
        other => bail!("expected one generated module, got {}", other.len()),
    }
}

fn pool(descriptors: &[u8]) -> Result<DescriptorPool> {
    DescriptorPool::decode(descriptors).context("malformed descriptor set")
}

/// What a peer that was built from `old` could no longer rely on in `new`, one sentence each.
fn breaking_changes(old: &DescriptorPool, new: &DescriptorPool) -> Vec<String> {
    let mut found = Vec::new();
    for message in old.all_messages() {
        match new.get_message_by_name(message.full_name()) {
            Some(now) => message_changes(&message, &now, &mut found),
            None => found.push(format!("message {} is gone", message.full_name())),
        }
    }
    for old_enum in old.all_enums() {
        match new.get_enum_by_name(old_enum.full_name()) {
            Some(now) => enum_changes(&old_enum, &now, &mut found),
            None => found.push(format!("enum {} is gone", old_enum.full_name())),
        }
    }
    found
}

fn message_changes(old: &MessageDescriptor, new: &MessageDescriptor, found: &mut Vec<String>) {
    for field in old.fields() {
        match new.get_field(field.number()) {
            None => found.push(format!("field {} = {} is gone", field.full_name(), field.number())),
            Some(now) if shape(&now) != shape(&field) => {
                found.push(format!("field {} changed from {} to {}", field.full_name(), shape(&field), shape(&now)));
            }
            Some(_) => {}
        }
    }
}

/// What the wire and the generated code depend on.
fn shape(field: &FieldDescriptor) -> String {
    let oneof = field.containing_oneof().map(|oneof| oneof.name().to_owned());
    format!("{} {:?} {:?} in {oneof:?}", field.name(), field.cardinality(), field.kind())
}

fn enum_changes(old: &EnumDescriptor, new: &EnumDescriptor, found: &mut Vec<String>) {
    for value in old.values() {
        let kept = new.get_value(value.number()).is_some_and(|now| now.name() == value.name());
        if !kept {
            found.push(format!("value {} = {} is gone or renamed", value.full_name(), value.number()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile_text(text: &str) -> DescriptorPool {
        let file = protox_file(text);
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_proto(file).unwrap();
        pool
    }

    fn protox_file(text: &str) -> prost_types::FileDescriptorProto {
        // Tests run beside each other, and two of them compile the same text: each time has a folder of its own.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.proto"), text).unwrap();
        let set = protox::compile(["a.proto"], [folder.path()]).unwrap();
        set.file.into_iter().next().unwrap()
    }

    const OLD: &str =
        r#"syntax = "proto3"; package t; message M { string a = 1; int64 b = 2; } enum E { Z = 0; Y = 1; }"#;

    #[test]
    fn the_committed_code_is_what_the_schema_gives() {
        run(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), true).unwrap();
    }

    #[test]
    fn adding_a_field_breaks_nothing() {
        let new = r#"syntax = "proto3"; package t; message M { string a = 1; int64 b = 2; bool c = 3; } enum E { Z = 0; Y = 1; X = 2; }"#;
        assert!(breaking_changes(&compile_text(OLD), &compile_text(new)).is_empty());
    }

    #[test]
    fn removing_retyping_and_renaming_are_breaking() {
        let new = r#"syntax = "proto3"; package t; message M { int64 b = 1; } enum E { Z = 0; W = 1; }"#;
        let found = breaking_changes(&compile_text(OLD), &compile_text(new));
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
