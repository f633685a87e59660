//! Which situations are measured: the matrix, and the names by which `--only` picks from it.

use std::fmt;

use serde::Serialize;

/// What the clients ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    Set,
    Get,
    /// 80 % GET, 20 % SET.
    Mixed,
    Lpush,
    Zadd,
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Get => "get",
            Self::Mixed => "mixed",
            Self::Lpush => "lpush",
            Self::Zadd => "zadd",
        }
    }

    /// Keys must be there before.
    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Mixed)
    }

    /// The data set grows while it runs.
    pub(crate) fn grows(self) -> bool {
        matches!(self, Self::Lpush | Self::Zadd)
    }
}

/// One situation: so many clients, each with so many requests under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) clients: usize,
    pub(crate) pipeline: usize,
    pub(crate) work: Work,
    pub(crate) bytes: usize,
    pub(crate) tls: bool,
}

impl Cell {
    const fn new(clients: usize, pipeline: usize, work: Work, bytes: usize, tls: bool) -> Self {
        Self { clients, pipeline, work, bytes, tls }
    }

    /// Keys over which the requests are spread: 64 MiB of values at most.
    pub(crate) fn keys(&self) -> usize {
        ((64 << 20) / self.bytes).clamp(1_000, 100_000)
    }

    pub(crate) fn title(&self) -> String {
        let work = match self.work {
            Work::Mixed => "80 % GET, 20 % SET".to_owned(),
            work => work.name().to_uppercase(),
        };
        let value = if self.bytes < 1024 { format!("{} B", self.bytes) } else { format!("{} KiB", self.bytes / 1024) };
        let tls = if self.tls { ", TLS" } else { "" };
        format!("{work}, {} clients, pipeline {}, values of {value}{tls}", self.clients, self.pipeline)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { "tls" } else { "plain" };
        write!(f, "{tls}-c{}-p{}-{}-{}", self.clients, self.pipeline, self.work.name(), self.bytes)
    }
}

/// What `make bench` looks at: the situations that the goals are about.
pub(crate) const CORE: [Cell; 6] = [
    Cell::new(50, 1, Work::Set, 64, false),
    Cell::new(50, 1, Work::Get, 64, false),
    Cell::new(50, 16, Work::Set, 64, false),
    Cell::new(50, 16, Work::Get, 64, false),
    Cell::new(50, 1, Work::Set, 64, true),
    Cell::new(50, 16, Work::Get, 64, true),
];

/// Requests of one round of all clients may lie in memory on both sides: more than this is left out.
const MOST_UNDER_WAY: usize = 256 << 20;

/// Everything that makes sense, and why the rest is left out.
pub(crate) fn full() -> (Vec<Cell>, Vec<String>) {
    let (mut cells, mut left_out) = (Vec::new(), Vec::new());
    for tls in [false, true] {
        for clients in [50, 500] {
            for pipeline in [1, 16, 64] {
                for work in [Work::Set, Work::Get, Work::Mixed, Work::Lpush, Work::Zadd] {
                    for bytes in [64, 1024, 64 << 10] {
                        let cell = Cell::new(clients, pipeline, work, bytes, tls);
                        if clients * pipeline * bytes > MOST_UNDER_WAY {
                            left_out.push(format!("{cell}: more than 256 MiB under way at once"));
                        } else if work == Work::Zadd && bytes != 64 {
                            // Members have one size.
                        } else if work == Work::Lpush && bytes > 1024 {
                            left_out.push(format!("{cell}: lists would grow by gigabytes a second"));
                        } else {
                            cells.push(cell);
                        }
                    }
                }
            }
        }
    }
    (cells, left_out)
}

/// `p1-set` picks every name that has both parts; of several patterns one must fit; none picks all.
pub(crate) fn picked(name: &str, only: &[String]) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    only.is_empty() || only.iter().any(|pattern| pattern.split('-').all(|p| parts.contains(&p)))
}
