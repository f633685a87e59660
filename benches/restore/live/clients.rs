//! Other clients of the target: each sends `GET` and `SET` in turn at a fixed rate, and times the replies.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::process::local;

/// How many there are.
pub(super) const CLIENTS: u32 = 8;
/// Keys of each.
const KEYS: u32 = 1000;

/// When a request was due, and how long after that its reply was there.
type Trip = (Instant, Duration);

/// Clients at work.
pub(super) struct Clients {
    threads: Vec<JoinHandle<Result<Vec<Trip>>>>,
    stop: Arc<AtomicBool>,
}

/// What they have seen.
pub(super) struct Trips(Vec<Trip>);

impl Clients {
    /// `rate`: requests a second of all together.
    pub(super) fn start(port: u16, rate: u32) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let every = Duration::from_secs(1) * CLIENTS / rate;
        let mut threads = Vec::new();
        for number in 0..CLIENTS {
            let mut stream = TcpStream::connect(local(port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_mins(1)))?;
            let stop = Arc::clone(&stop);
            let shift = every * number / CLIENTS;
            threads.push(std::thread::spawn(move || one(&mut stream, number, (shift, every), &stop)));
        }
        Ok(Self { threads, stop })
    }

    pub(super) fn end(self) -> Result<Trips> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in self.threads {
            all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(Trips(all))
    }
}

fn one(
    stream: &mut TcpStream,
    number: u32,
    (shift, every): (Duration, Duration),
    stop: &AtomicBool,
) -> Result<Vec<Trip>> {
    let (mut trips, mut due, mut n) = (Vec::new(), Instant::now() + shift, 0u32);
    let value = "v".repeat(64);
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let key = format!("client:{number}:{}", n / 2 % KEYS);
        let (args, expected): (&[&str], String) = if n.is_multiple_of(2) {
            (&["SET", &key, &value], "+OK\r\n".to_owned())
        } else {
            (&["GET", &key], format!("$64\r\n{value}\r\n"))
        };
        let mut request = Vec::new();
        redtape_wire::resp::encode_command(&mut request, args);
        stream.write_all(&request)?;
        let mut reply = vec![0; expected.len()];
        stream.read_exact(&mut reply)?;
        ensure!(reply == expected.as_bytes(), "not the reply that was due: {}", reply.escape_ascii());
        // From when it was due: a client that is kept waiting does not ask less often for that.
        trips.push((due, due.elapsed()));
        due += every;
        n += 1;
    }
    Ok(trips)
}

impl Trips {
    /// The longest wait in milliseconds of this share of the requests in a span of time.
    pub(super) fn quantile(&self, quantile: f64, (from, to): (Instant, Instant)) -> f64 {
        let within = self.0.iter().filter(|(due, _)| (from..to).contains(due));
        let mut waits: Vec<Duration> = within.map(|(_, wait)| *wait).collect();
        waits.sort_unstable();
        let at = ((waits.len() as f64 * quantile) as usize).min(waits.len().saturating_sub(1));
        waits.get(at).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
    }
}
