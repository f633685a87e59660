//! What one connection alone waits for one unpipelined GET: as fast as replies come, and a thousand a second,
//! where every process sleeps between two requests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::cpu;
use crate::load::histogram;
use crate::peers::{Binary, Name, Peer};
use crate::process::local;
use crate::rounds::{Field, Plan};

/// The two paces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pace {
    BackToBack,
    ThousandASecond,
}

pub(crate) const PACES: [Pace; 2] = [Pace::BackToBack, Pace::ThousandASecond];

/// Quantiles of a round trip in microseconds, one for each round.
#[derive(Serialize)]
pub(crate) struct Trips {
    pub(crate) peer: Name,
    pub(crate) pace: Pace,
    pub(crate) p50: Vec<f64>,
    pub(crate) p99: Vec<f64>,
    pub(crate) p999: Vec<f64>,
    pub(crate) failed: Option<String>,
}

const VALUE: [u8; 64] = [b'v'; 64];

pub(crate) fn measure(names: &[Name], plan: &Plan, binary: &Binary, dir: &Path) -> Vec<Trips> {
    let mut field = Field::start(names, binary, false, dir);
    let trips = |&peer: &Name| {
        PACES.map(|pace| Trips { peer, pace, p50: Vec::new(), p99: Vec::new(), p999: Vec::new(), failed: None })
    };
    let mut all: Vec<Trips> = names.iter().flat_map(trips).collect();
    for round in 0..plan.rounds {
        for pace in PACES {
            field.each(round, |peer| {
                let quantiles = round_trips(peer, pace, plan.time / 2)?;
                for trips in all.iter_mut().filter(|t| t.peer == peer.name && t.pace == pace) {
                    trips.p50.push(quantiles[0]);
                    trips.p99.push(quantiles[1]);
                    trips.p999.push(quantiles[2]);
                }
                Ok(())
            });
        }
    }
    for trips in &mut all {
        trips.failed = field.failure(trips.peer);
    }
    all
}

fn round_trips(peer: &Peer, pace: Pace, time: Duration) -> Result<[f64; 3]> {
    let mut stream = TcpStream::connect(local(peer.port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let set = [b"*3\r\n$3\r\nSET\r\n$4\r\ntrip\r\n$64\r\n", VALUE.as_slice(), b"\r\n"].concat();
    ask(&mut stream, &set, b"+OK\r\n")?;
    cpu::wait_quiet(&peer.pids(), Duration::from_secs(2))?;
    let expected = [b"$64\r\n", VALUE.as_slice(), b"\r\n"].concat();
    let (started, mut seen) = (Instant::now(), histogram());
    // The first trips find cold caches.
    for n in 0.. {
        if started.elapsed() >= time {
            break;
        }
        let sent = Instant::now();
        ask(&mut stream, b"*2\r\n$3\r\nGET\r\n$4\r\ntrip\r\n", &expected)?;
        if n >= 20 {
            seen.saturating_record(sent.elapsed().as_nanos() as u64);
        }
        if pace == Pace::ThousandASecond {
            std::thread::sleep(Duration::from_millis(1).saturating_sub(sent.elapsed()));
        }
    }
    Ok([0.5, 0.99, 0.999].map(|quantile| seen.value_at_quantile(quantile) as f64 / 1e3))
}

fn ask(stream: &mut TcpStream, request: &[u8], expected: &[u8]) -> Result<()> {
    let mut reply = [0; 128];
    stream.write_all(request)?;
    stream.read_exact(&mut reply[..expected.len()])?;
    ensure!(&reply[..expected.len()] == expected, "not the reply that was due: {}", reply.escape_ascii());
    Ok(())
}
