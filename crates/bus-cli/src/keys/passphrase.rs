//! The passphrase of an export: from a file, from the environment, or from whoever sits at the terminal.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bus_client::SecretString;
use bus_crypto::zeroize::Zeroizing;
use clap::Args;

use crate::exit::Failure;
use crate::settings::{SEALING_PASSPHRASE_VARIABLE, sealing_passphrase};

/// The longest passphrase, in bytes.
const MAX_LEN: usize = 1024;

/// Where the passphrase of an export is.
#[derive(Debug, Args)]
pub(crate) struct PassphraseArgs {
    /// File whose first line is the passphrase of the export [env: RANSOMEYE_SEALING_PASSPHRASE, the passphrase itself]
    /// [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    /// The passphrase. One that is chosen now is asked for twice.
    pub(super) fn read(&self, is_new: bool) -> anyhow::Result<SecretString> {
        if let Some(path) = &self.passphrase_file {
            return from_file(path);
        }
        if let Some(passphrase) = sealing_passphrase()? {
            return Ok(passphrase);
        }
        let passphrase = ask("passphrase of the export: ")?;
        if is_new && *ask("the same again: ")? != *passphrase {
            return Err(Failure::usage("the two passphrases differ"));
        }
        Ok(SecretString::from(passphrase.as_str()))
    }
}

fn from_file(path: &Path) -> anyhow::Result<SecretString> {
    let failed = |error| Failure::usage(format!("passphrase file `{}` cannot be read: {error}", path.display()));
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
    File::open(path).and_then(|file| file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes)).map_err(failed)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(text) if line.len() <= MAX_LEN => Ok(SecretString::from(text)),
        _ => Err(Failure::usage(format!(
            "passphrase file `{}`: its first line has to be UTF-8, and at most {MAX_LEN} bytes",
            path.display()
        ))),
    }
}

fn no_terminal() -> anyhow::Error {
    Failure::usage(format!("no passphrase: give --passphrase-file FILE or {SEALING_PASSPHRASE_VARIABLE}"))
}

#[cfg(not(unix))]
fn ask(_: &str) -> anyhow::Result<Zeroizing<String>> {
    Err(no_terminal())
}

/// Asks on the terminal, which shows nothing of what is typed.
#[cfg(unix)]
fn ask(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    use std::io::Write as _;

    let mut terminal = File::options().read(true).write(true).open("/dev/tty").map_err(|_| no_terminal())?;
    let silence = Silence::over(&terminal)?;
    terminal.write_all(prompt.as_bytes())?;
    let mut typed = Zeroizing::new(Vec::with_capacity(MAX_LEN));
    let mut byte = [0];
    loop {
        // Control-C and control-D give up, as does a terminal that goes away.
        match (terminal.read(&mut byte)?, byte[0]) {
            (0, _) | (_, 3 | 4) => {
                return Err(Failure::failed("no passphrase was given"));
            }
            (_, b'\r' | b'\n') => break,
            (_, 8 | 127) => drop(typed.pop()),
            (_, other) if typed.len() < MAX_LEN => typed.push(other),
            _ => return Err(Failure::usage(format!("a passphrase has at most {MAX_LEN} bytes"))),
        }
    }
    drop(silence);
    terminal.write_all(b"\n")?;
    let text = std::str::from_utf8(&typed).map_err(|_| Failure::usage("the passphrase is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A terminal that shows nothing and leaves control-C to us, until this is dropped: a program that a signal ended could not
/// restore it.
#[cfg(unix)]
struct Silence {
    terminal: File,
    former: rustix::termios::Termios,
}

#[cfg(unix)]
impl Silence {
    fn over(terminal: &File) -> anyhow::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let former = tcgetattr(terminal)?;
        let mut silent = former.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        let terminal = terminal.try_clone()?;
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, former })
    }
}

#[cfg(unix)]
impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        let _ = rustix::termios::tcsetattr(&self.terminal, rustix::termios::OptionalActions::Flush, &self.former);
    }
}
