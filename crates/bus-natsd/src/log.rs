//! What a server says: its last lines, and waiting for the next ones.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many lines are kept. Older ones are forgotten, so that a long run takes bounded memory.
const CAPACITY: usize = 100_000;

/// Gets each line as it arrives.
pub(crate) type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// The log of one server, over all its restarts. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    sink: Option<Sink>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    forgotten: usize,
    /// How many streams of the running server are still read.
    open_streams: usize,
}

impl Log {
    pub(crate) fn new(sink: Option<Sink>) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() }), sink }
    }

    /// Reads a stream to its end in a thread of its own, which ends when the server does.
    pub(crate) fn follow(&self, stream: impl Read + Send + 'static) {
        self.lock().open_streams += 1;
        let log = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(length) if length > 0) {
                log.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
            log.lock().open_streams -= 1;
            log.shared.changed.notify_all();
        });
    }

    fn push(&self, line: String) {
        if let Some(sink) = &self.sink {
            sink(&line);
        }
        let mut state = self.lock();
        if state.lines.len() == CAPACITY {
            state.lines.pop_front();
            state.forgotten += 1;
        }
        state.lines.push_back(line);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The number of lines so far, forgotten ones included.
    pub(crate) fn position(&self) -> usize {
        let state = self.lock();
        state.forgotten + state.lines.len()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    /// The last few lines, for an error message.
    pub(crate) fn tail(&self) -> String {
        let state = self.lock();
        let skipped = state.lines.len().saturating_sub(10);
        state.lines.iter().skip(skipped).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// The first line at or after `position` that fits; waits for it until the time is over or the server has ended.
    pub(crate) fn wait(&self, position: usize, fits: impl Fn(&str) -> bool, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        let mut next = position;
        let mut state = self.lock();
        loop {
            let unseen = next.saturating_sub(state.forgotten);
            if let Some(line) = state.lines.iter().skip(unseen).find(|line| fits(line)) {
                return Some(line.clone());
            }
            next = state.forgotten + state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.open_streams == 0 {
                return None;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the server has closed all its streams, which it does when it ends.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().open_streams == 0
    }

    /// Waits until everything that an ended server wrote has been read.
    pub(crate) fn wait_for_end(&self, timeout: Duration) {
        let state = self.lock();
        let reading = |state: &mut State| state.open_streams > 0;
        drop(self.shared.changed.wait_timeout_while(state, timeout, reading));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, so the state is whole in any case.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_line_is_waited_for_until_the_stream_ends() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let log = Log::new(None);
        log.follow(reader);
        std::io::Write::write_all(&mut writer, b"one\ntwo\n").unwrap();
        assert_eq!(log.wait(0, |line| line == "two", SOON).as_deref(), Some("two"));
        assert_eq!(log.position(), 2);
        assert_eq!(log.wait(1, |line| line == "one", Duration::ZERO), None);
        drop(writer);
        assert_eq!(log.wait(2, |_| true, SOON), None, "no line comes any more");
    }

    #[test]
    fn old_lines_are_forgotten_and_positions_stay() {
        let log = Log::new(None);
        for number in 0..CAPACITY + 5 {
            log.push(number.to_string());
        }
        assert_eq!(log.lines().len(), CAPACITY);
        assert_eq!(log.position(), CAPACITY + 5);
        assert_eq!(log.wait(CAPACITY + 4, |_| true, Duration::ZERO), Some((CAPACITY + 4).to_string()));
        assert_eq!(log.wait(0, |_| true, Duration::ZERO).as_deref(), Some("5"));
    }

    #[test]
    fn a_sink_gets_every_line() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let log = Log::new(Some(Arc::new(move |line: &str| sink.lock().unwrap().push(line.to_owned()))));
        log.follow(&b"a\nb"[..]);
        log.wait_for_end(SOON);
        assert_eq!(*seen.lock().unwrap(), ["a", "b"]);
    }
}
