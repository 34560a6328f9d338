//! Processor time of a process, from Linux's own accounts, to the nanosecond.

use std::fs;
use std::time::Duration;

/// What the threads of a process that are there now have used so far. `None` where the system does not tell.
pub(crate) fn used(pid: u32) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end while its neighbours are looked at.
        let Ok(account) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        total += Duration::from_nanos(account.split(' ').next()?.parse().ok()?);
    }
    Some(total)
}

/// The resident memory of this process, in bytes. `None` where the system does not tell.
pub(crate) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The name of this machine's processor, where the system tells.
pub(crate) fn model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
