//! All that a run has found out: as JSON, and as the tables that people read.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cells::Cell;
use crate::figures::{added_us, median, ratio, total_cpu};
use crate::goal::Goal;
use crate::idle::Crowd;
use crate::latency::{PACES, Pace, Trips};
use crate::peers::Name;
use crate::rounds::{Series, Slice};

#[derive(Serialize)]
pub(crate) struct Measured {
    pub(crate) cell: Cell,
    pub(crate) name: String,
    pub(crate) series: Vec<Series>,
}

#[derive(Default, Serialize)]
pub(crate) struct Report {
    pub(crate) versions: Vec<String>,
    /// How it was run.
    pub(crate) run: String,
    pub(crate) cells: Vec<Measured>,
    pub(crate) trips: Vec<Trips>,
    pub(crate) crowds: Vec<Crowd>,
    pub(crate) goals: Vec<Goal>,
    /// What is not in here, and why.
    pub(crate) left_out: Vec<String>,
}

/// Above this, other processes had a say in the numbers.
const QUIET: f64 = 0.05;

impl Report {
    pub(crate) fn failures(&self) -> usize {
        let cells = self.cells.iter().flat_map(|c| &c.series).filter(|s| s.failed.is_some()).count();
        cells
            + self.trips.iter().filter(|t| t.failed.is_some()).count()
            + self.crowds.iter().filter(|c| c.failed.is_some()).count()
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("# Side by side\n\n{}\n\n", self.run);
        for version in &self.versions {
            let _ = writeln!(text, "- {version}");
        }
        text.push('\n');
        let others = median(self.cells.iter().flat_map(|c| &c.series).flat_map(|s| &s.slices).map(|s| s.others));
        if others.is_finite() {
            let verdict = if others > QUIET { ": not a quiet machine, do not quote these numbers" } else { "" };
            let _ = writeln!(text, "Other processes used {:.0} % of the machine (median){verdict}.\n", others * 100.0);
        }
        for cell in &self.cells {
            text.push_str(&cell.markdown());
        }
        if !self.trips.is_empty() {
            text.push_str(&self.trips_table());
        }
        if !self.crowds.is_empty() {
            text.push_str(&self.crowds_table());
        }
        text.push_str("## Goals\n\n| goal | measured | |\n| --- | --- | --- |\n");
        for goal in &self.goals {
            let met = match goal.met {
                Some(true) => "met",
                Some(false) => "**not met**",
                None => "-",
            };
            let _ = writeln!(text, "| {} | {} | {met} |", goal.wanted, goal.measured);
        }
        if !self.left_out.is_empty() {
            text.push_str("\n## Left out\n\n");
            for line in &self.left_out {
                let _ = writeln!(text, "- {line}");
            }
        }
        text
    }

    fn trips_table(&self) -> String {
        let mut text = "## One connection alone: GET, not pipelined\n\n".to_owned();
        for pace in PACES {
            let title = match pace {
                Pace::BackToBack => "as fast as replies come",
                Pace::ThousandASecond => "a thousand a second",
            };
            let _ = writeln!(text, "| {title} | p50 us | p99 us | p99.9 us | adds to Redis alone (p50) |");
            text.push_str("| --- | ---: | ---: | ---: | ---: |\n");
            for trips in self.trips.iter().filter(|t| t.pace == pace) {
                let _ = write!(text, "| {} ", trips.peer.title());
                if let Some(why) = &trips.failed {
                    let _ = writeln!(text, "| failed: {} ||||", first_line(why));
                    continue;
                }
                for values in [&trips.p50, &trips.p99, &trips.p999] {
                    let _ = write!(text, "| {:.1} ", median(values.iter().copied()));
                }
                let added = added_us(&self.trips, trips.peer, pace).filter(|_| trips.peer != Name::Redis);
                let _ = writeln!(text, "| {} |", added.map_or(String::new(), |us| format!("{us:+.1} us")));
            }
            text.push('\n');
        }
        text
    }

    fn crowds_table(&self) -> String {
        let mut text = format!("## {} idle clients\n\n", self.crowds[0].clients);
        text.push_str("Memory for each client, in bytes: Redis + proxy. Rate: connected and first PING answered.\n\n");
        text.push_str("| | accepted/s | x Redis | p99 ms | connected | after one command |\n");
        text.push_str("| --- | ---: | ---: | ---: | ---: | ---: |\n");
        let direct = self.crowds.iter().find(|c| c.peer == Name::Redis).map(|c| median(c.per_second.iter().copied()));
        for crowd in &self.crowds {
            let _ = write!(text, "| {} ", crowd.peer.title());
            if let Some(why) = &crowd.failed {
                let _ = writeln!(text, "| failed: {} |||||", first_line(why));
                continue;
            }
            let rate = median(crowd.per_second.iter().copied());
            let compared = direct.map_or(String::new(), |d| format!("{:.2}", rate / d));
            let p99 = median(crowd.p99_ms.iter().copied());
            let _ = write!(text, "| {rate:.0} | {compared} | {p99:.1} ");
            for memory in [crowd.connected, crowd.used] {
                let shown = memory.map_or(String::new(), |m| {
                    if crowd.peer == Name::Redis {
                        format!("{:.0}", m.server)
                    } else {
                        format!("{:.0} + {:.0}", m.server, m.proxy)
                    }
                });
                let _ = write!(text, "| {shown} ");
            }
            text.push_str("|\n");
        }
        text.push('\n');
        text
    }
}

impl Measured {
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n`{}`\n\n", self.cell.title(), self.name);
        text.push_str(
            "| | ops/s | x Redis | min..max | p50 us | p99 us | p99.9 us | Redis CPU us/op | proxy CPU us/op \
             | Redis CPU x direct | all CPU x direct | generator CPU us/op | disk B/op |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for series in &self.series {
            let _ = write!(text, "| {} ", series.peer.title());
            if let Some(why) = &series.failed {
                let _ = writeln!(text, "| failed: {} ||||||||||||", first_line(why));
                continue;
            }
            let of = |what: fn(&Slice) -> f64| median(series.slices.iter().map(what));
            let to_direct = |what: fn(&Slice) -> f64| {
                let ratio = ratio(&self.series, series.peer, Name::Redis, what);
                ratio.map_or(String::new(), |r| format!("{r:.2}"))
            };
            let rates = || series.slices.iter().map(|s| s.per_second / 1e3);
            let (least, most) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
            let or_none = |value: f64, digits: usize| {
                if value.is_finite() { format!("{value:.digits$}") } else { String::new() }
            };
            let _ = writeln!(
                text,
                "| {:.1}k | {} | {least:.1}k..{most:.1}k | {:.0} | {:.0} | {} | {:.2} | {} | {} | {} | {} | {} |",
                of(|s| s.per_second) / 1e3,
                to_direct(|s| s.per_second),
                of(|s| s.p50),
                of(|s| s.p99),
                or_none(of(|s| s.p999.unwrap_or(f64::NAN)), 0),
                of(|s| s.server_cpu),
                or_none(of(|s| if s.proxy_cpu > 0.0 { s.proxy_cpu } else { f64::NAN }), 2),
                to_direct(|s| s.server_cpu),
                to_direct(total_cpu),
                or_none(of(|s| s.generator_cpu.unwrap_or(f64::NAN)), 2),
                or_none(of(|s| if s.kept_bytes > 0.0 { s.kept_bytes } else { f64::NAN }), 0),
            );
        }
        text.push('\n');
        text
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
