//! The implementation in another language: its interpreter, its packages and its programs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python program of `tests/interop`, ready to be run: `BUS_PYTHON_PACKAGES` says where its packages are, else they are where
/// `cargo xtask test --suite interop` put them, below the target directory.
///
/// # Panics
///
/// When the packages are not there.
#[must_use]
pub fn program(name: &str) -> Command {
    let mut python = Command::new(if cfg!(windows) { "python" } else { "python3" });
    python
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name))
        .env("PYTHONPATH", packages())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONNOUSERSITE", "1");
    python
}

fn packages() -> PathBuf {
    if let Some(path) = std::env::var_os("BUS_PYTHON_PACKAGES") {
        return path.into();
    }
    let own = std::env::current_exe().expect("the path of this program");
    own.ancestors()
        .map(|folder| folder.join("python"))
        .find(|folder| folder.join("nats").is_dir())
        .expect("the Python packages are not there: run `cargo xtask test --suite interop`")
}
