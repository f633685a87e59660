//! Where log lines go: to stderr. For what runs on (`proxy`, `follow`), by a thread of its own.
//!
//! ```text
//! who logs ─► whole lines ─► queue (LINES_MAX) ─► thread "log" ─► write(2)
//! ```
//!
//! Invariants: who logs never waits, never fails and never panics. A line that finds the queue full (nobody reads the
//! pipe), or that cannot be written (the reader is gone, the disk is full), is lost and counted; when lines can be
//! written again, the log says how many are missing, and `/metrics` shows it at any time.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Lines that wait to be written.
const LINES_MAX: usize = 2048;
/// A longer line is cut.
const LINE_MAX: usize = 16 * 1024;
/// So long an end of the process waits for what was logged before it.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Pause before a write that would have to wait is tried again, if another process made stderr non-blocking.
const WRITE_AGAIN: Duration = Duration::from_millis(20);
/// Pause before a flush that finds the queue full asks again.
const FLUSH_AGAIN: Duration = Duration::from_millis(10);

/// The queue of this process, once there is one.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// Begins to log; `json`: in JSON lines. `apart`: by a thread of its own.
pub(crate) fn start(filter: tracing_subscriber::EnvFilter, json: bool, apart: bool) {
    let queue = apart.then(start_thread).flatten();
    let colored = io::IsTerminal::is_terminal(&io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(colored)
        // It would say so on stderr, and panic where that cannot be written.
        .log_internal_errors(false)
        .with_writer(move || -> Box<dyn Write> {
            match &queue {
                Some(queue) => Box::new(queue.clone()),
                None => Box::new(io::stderr()),
            }
        });
    if json {
        log.json().init();
    } else {
        log.init();
    }
}

/// `None` = there is no thread for it.
fn start_thread() -> Option<LogQueue> {
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from).ok()?;
    let (queue, output) = LogQueue::new(stderr);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || output.run()).ok()?;
    Some(QUEUE.get_or_init(|| queue).clone())
}

/// Lines that were lost so far.
pub(crate) fn lost_lines() -> Arc<AtomicU64> {
    QUEUE.get().map(|queue| queue.lost.clone()).unwrap_or_default()
}

/// Says something that is not a log line, for a person at the terminal, behind all that was logged before.
pub(crate) fn say(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push(text.as_bytes()),
        // Who cannot read it does not miss it.
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits until all that was said before is written, [`FLUSH_MAX`] at most.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_MAX);
    }
}

enum Item {
    Line(Box<[u8]>),
    /// All before it is written.
    Flush(SyncSender<()>),
}

/// Where lines wait; clones share it. Each `write` is one line.
#[derive(Clone)]
struct LogQueue {
    lines: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

impl LogQueue {
    fn new<W: Write>(to: W) -> (Self, Output<W>) {
        let (lines, waiting) = sync_channel(LINES_MAX);
        let lost = Arc::<AtomicU64>::default();
        let output = Output { waiting, to, lost: lost.clone(), told: 0, cut_off: false };
        (Self { lines, lost }, output)
    }

    fn push(&self, line: &[u8]) {
        let line = if line.len() > LINE_MAX { [&line[..LINE_MAX], b"\n"].concat().into() } else { line.into() };
        if self.lines.try_send(Item::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let (done, written) = sync_channel(1);
        let mut item = Item::Flush(done);
        loop {
            match self.lines.try_send(item) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => item = back,
                Err(_) => return,
            }
            std::thread::sleep(FLUSH_AGAIN);
        }
        // What is not written by then is not waited for.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's end of the queue.
struct Output<W> {
    waiting: Receiver<Item>,
    to: W,
    lost: Arc<AtomicU64>,
    /// Lost lines of which the log has told.
    told: u64,
    /// A line was written in part.
    cut_off: bool,
}

impl<W: Write> Output<W> {
    fn run(mut self) {
        while let Ok(item) = self.waiting.recv() {
            match item {
                Item::Line(line) => self.write(&line),
                // Who has asked may have given up.
                Item::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn write(&mut self, line: &[u8]) {
        if self.cut_off && self.write_all(b"\n").is_ok() {
            self.cut_off = false;
        }
        if self.write_all(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost = self.lost.load(Ordering::Relaxed);
        let missing = lost - self.told;
        if missing > 0 {
            self.told = lost;
            // By the queue, as any other: should there be no room again, it is one more that is missing.
            tracing::warn!(lines = missing, "log lines are missing: stderr was not read or could not be written");
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.to.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.cut_off = n < bytes.len();
                    bytes = &bytes[n..];
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(WRITE_AGAIN),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A stderr that takes so many bytes and then fails, or stalls until it is let go.
    #[derive(Clone, Default)]
    struct Stderr {
        room: Arc<Mutex<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
        held: Arc<Mutex<()>>,
    }

    impl Stderr {
        fn with_room(bytes: usize) -> Self {
            let stderr = Self::default();
            stderr.set_room(bytes);
            stderr
        }

        fn set_room(&self, bytes: usize) {
            *self.room.lock().expect("room") = bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.written.lock().expect("text").clone()).expect("text")
        }
    }

    impl Write for Stderr {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _held = self.held.lock().expect("held");
            let mut room = self.room.lock().expect("room");
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let n = bytes.len().min(*room);
            *room -= n;
            self.written.lock().expect("text").extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn started(stderr: &Stderr) -> LogQueue {
        let (queue, output) = LogQueue::new(stderr.clone());
        std::thread::spawn(move || output.run());
        queue
    }

    #[test]
    fn lines_are_written_in_order_and_long_ones_are_cut() {
        let stderr = Stderr::with_room(usize::MAX);
        let queue = started(&stderr);
        queue.push(b"one\n");
        queue.push(&vec![b'x'; 2 * LINE_MAX]);
        queue.push(b"two\n");
        queue.flush(Duration::from_secs(10));
        assert_eq!(stderr.text(), format!("one\n{}\ntwo\n", "x".repeat(LINE_MAX)));
        assert_eq!(queue.lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_line_that_can_not_be_written_is_counted_and_the_next_begins_anew() {
        let stderr = Stderr::with_room(6);
        let queue = started(&stderr);
        for line in ["one\n", "two\n", "three\n"] {
            queue.push(line.as_bytes());
        }
        queue.flush(Duration::from_secs(10));
        assert_eq!((stderr.text().as_str(), queue.lost.load(Ordering::Relaxed)), ("one\ntw", 2));
        stderr.set_room(usize::MAX);
        queue.push(b"four\n");
        queue.flush(Duration::from_secs(10));
        assert_eq!(stderr.text(), "one\ntw\nfour\n");
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_nobody_waits() {
        let stderr = Stderr::with_room(usize::MAX);
        let queue = started(&stderr);
        let held = stderr.held.lock().expect("held");
        let begun = Instant::now();
        let lines = 3 * LINES_MAX;
        for n in 0..lines {
            queue.push(format!("{n}\n").as_bytes());
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        queue.flush(Duration::from_millis(50));
        assert!(begun.elapsed() < Duration::from_secs(2), "an end waits for a reader: {:?}", begun.elapsed());
        let lost = queue.lost.load(Ordering::Relaxed) as usize;
        assert!((lines - LINES_MAX - 1..=lines - LINES_MAX).contains(&lost), "{lost}");
        drop(held);
        queue.flush(Duration::from_secs(10));
        assert_eq!(stderr.text().lines().count(), lines - lost);
    }
}
