//! What redtape wants to reach, held against what was measured.

use crate::cells::Work;
use crate::figures::{added_us, paired, ratio, total_cpu};
use crate::goal::Goal;
use crate::latency::Pace;
use crate::peers::Name::{self, Haproxy, Nutcracker, Redis, RedisAof, RedisAofAlways};
use crate::report::Report;

/// How much a proxy may add to a lone client's round trip.
const ADDED_US: f64 = 40.0;
/// How many times as fast as whom. `None`: faster.
type Than = &'static [(Name, Option<f64>)];
const SPEEDS: [(Work, usize, Than); 4] = [
    (Work::Set, 1, &UNPIPELINED),
    (Work::Get, 1, &UNPIPELINED),
    (Work::Set, 16, &[(RedisAof, Some(1.0)), (Nutcracker, None), (Haproxy, None)]),
    // A proxy moves every byte once more.
    (Work::Get, 16, &[(Redis, Some(0.85)), (Nutcracker, None), (Haproxy, None)]),
];
const UNPIPELINED: [(Name, Option<f64>); 5] =
    [(Redis, Some(1.0)), (RedisAof, None), (RedisAofAlways, None), (Nutcracker, None), (Haproxy, None)];
const SERVER_CPU: f64 = 0.5;
const TOTAL_CPU: f64 = 1.15;

pub(crate) fn judge(report: &Report) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (work, pipeline, peers) in SPEEDS {
        let name = format!("P{pipeline} {}", work.name().to_uppercase());
        let cell = report.cells.iter().find(|c| {
            (c.cell.work, c.cell.pipeline, c.cell.clients, c.cell.bytes, c.cell.tls) == (work, pipeline, 50, 64, false)
        });
        let series = cell.map_or(&[][..], |c| &c.series);
        for &(than, at_least) in peers {
            let measured = ratio(series, Name::Redtape, than, |s| s.per_second);
            goals.push(match at_least {
                Some(least) => compare(format!("{name}: >= {least:.2}x {}", than.title()), measured, |r| r >= least),
                None => compare(format!("{name}: above {}", than.title()), measured, |r| r > 1.0),
            });
        }
        if pipeline == 1 {
            let server = ratio(series, Name::Redtape, Redis, |s| s.server_cpu);
            goals.push(compare(format!("{name}: Redis's CPU for a command <= {SERVER_CPU:.2}x direct"), server, |r| {
                r <= SERVER_CPU
            }));
            let total = ratio(series, Name::Redtape, Redis, total_cpu);
            goals.push(compare(format!("{name}: all CPU <= {TOTAL_CPU:.2}x direct"), total, |r| r <= TOTAL_CPU));
        }
    }
    for pipeline in [1, 16] {
        let cell = report.cells.iter().find(|c| {
            (c.cell.work, c.cell.pipeline, c.cell.clients, c.cell.bytes, c.cell.tls)
                == (Work::Set, pipeline, 50, 64, false)
        });
        let series = cell.map_or(&[][..], |c| &c.series);
        let (name, than) = (format!("P{pipeline} SET, ack journal"), RedisAofAlways.title());
        let speed = ratio(series, Name::RedtapeAck, RedisAofAlways, |s| s.per_second);
        goals.push(compare(format!("{name}: >= 1.00x {than}"), speed, |r| r >= 1.0));
        let tail = ratio(series, Name::RedtapeAck, RedisAofAlways, |s| s.p99);
        goals.push(compare(format!("{name}: p99 <= 1.00x {than}"), tail, |r| r <= 1.0));
    }
    for pace in [Pace::BackToBack, Pace::ThousandASecond] {
        let added = added_us(&report.trips, Name::Redtape, pace);
        let pace = if pace == Pace::BackToBack { "back to back" } else { "a thousand a second" };
        goals.push(Goal {
            wanted: format!("one connection alone, {pace}: adds <= {ADDED_US:.0} us (p50)"),
            measured: added.map_or("not measured".to_owned(), |us| format!("{us:.1} us")),
            met: added.map(|us| us <= ADDED_US),
        });
    }
    for cell in report.cells.iter().filter(|c| c.cell.tls) {
        let speed = ratio(&cell.series, Name::Redtape, Redis, |s| s.per_second);
        goals.push(compare(format!("{}: >= Redis's own TLS", cell.cell.title()), speed, |r| r >= 1.0));
    }
    if !report.cells.iter().any(|c| c.cell.tls) {
        goals.push(compare("TLS: >= Redis's own TLS".to_owned(), None, |r| r >= 1.0));
    }
    let rate = |name| {
        let crowd = report.crowds.iter().find(|c| c.peer == name && c.failed.is_none())?;
        (!crowd.per_second.is_empty()).then(|| crowd.per_second.clone())
    };
    let rates = rate(Name::Redtape).zip(rate(Redis)).map(|(ours, direct)| paired(&ours, &direct));
    goals.push(compare("a crowd of idle clients: accepted as fast as by Redis".to_owned(), rates, |r| r >= 1.0));
    goals
}

fn compare(wanted: String, ratio: Option<f64>, met: impl Fn(f64) -> bool) -> Goal {
    let measured = ratio.map_or("not measured".to_owned(), |r| format!("{r:.2}x"));
    Goal { wanted, measured, met: ratio.map(met) }
}
