//! Room on the disk that is kept for draining: removing what was sent needs some, and a full disk has none.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::file;

/// A file of nothing, of a certain length. It is removed when the disk is full, and made again before anything is accepted.
pub(super) struct Reserve {
    path: PathBuf,
    len: u64,
    held: bool,
}

impl Reserve {
    /// The reserve of the spool in a file. It is not there yet.
    pub(super) fn of(spool: &Path, len: u64) -> Self {
        Self { path: file::beside(spool, "-reserve"), len, held: false }
    }

    /// Makes the reserve, if it is not there.
    pub(super) fn take(&mut self) -> io::Result<()> {
        if self.held || self.len == 0 {
            return Ok(());
        }
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == self.len) {
            self.held = true;
            return Ok(());
        }
        self.give_up();
        // Asked first, so that a disk that is nearly full is not filled up to see whether it is.
        if free_bytes(&self.path)?.is_some_and(|free| free < self.len) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.write();
        match &written {
            Ok(()) => self.held = true,
            // A piece of it is of no use.
            Err(_) => drop(self.give_up()),
        }
        written
    }

    /// Gives the room up, also what an earlier process left. Whether there was any.
    pub(super) fn give_up(&mut self) -> bool {
        self.held = false;
        fs::remove_file(&self.path).is_ok()
    }

    fn write(&self) -> io::Result<()> {
        // Not zeros, which some file systems do not store.
        let piece = [0xa5; 1 << 16];
        let mut file = file::create_new(&self.path)?;
        let mut left = self.len;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(piece.len()).min(piece.len());
            file.write_all(&piece[..part])?;
            left -= part as u64;
        }
        file.sync_all()
    }
}

/// How many bytes the file system of a file that may not exist has left for this process, where that can be asked.
#[cfg(unix)]
fn free_bytes(path: &Path) -> io::Result<Option<u64>> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let figures = rustix::fs::statvfs(parent)?;
    Ok(Some(figures.f_bavail.saturating_mul(figures.f_frsize)))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> io::Result<Option<u64>> {
    Ok(None)
}
