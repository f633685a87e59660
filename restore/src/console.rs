//! Shows the progress of a restore.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::progress::{Event, Observer, Unit};

/// Bars on a terminal, lines elsewhere; always on stderr.
#[derive(Debug)]
pub struct Console {
    bar: Option<indicatif::ProgressBar>,
    terminal: bool,
    json: bool,
    leaves_out: LeavesOut,
    step: Option<(String, u64, Unit)>,
    last_line: Instant,
}

/// Output that is suppressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeavesOut {
    Nothing,
    /// The plan is printed elsewhere.
    Plan,
    /// Lines about steps, if there are no bars.
    Steps,
}

/// Interval of progress lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Console {
    /// `terminal`: stderr is a terminal; `json`: one JSON object per line.
    pub fn new(terminal: bool, json: bool) -> Self {
        let last_line = Instant::now();
        Self { bar: None, terminal: terminal && !json, json, leaves_out: LeavesOut::Nothing, step: None, last_line }
    }

    /// Suppresses the plan, which is printed elsewhere.
    #[must_use]
    pub fn without_plan(mut self) -> Self {
        self.leaves_out = LeavesOut::Plan;
        self
    }

    /// Suppresses lines about steps, for short operations.
    #[must_use]
    pub fn brief(mut self) -> Self {
        self.leaves_out = LeavesOut::Steps;
        self
    }

    fn line(&self, human: &str, json: &serde_json::Value) {
        // stderr is closed: the restore continues.
        let _ = if self.json { writeln!(std::io::stderr(), "{json}") } else { writeln!(std::io::stderr(), "{human}") };
    }

    fn begin(&mut self, name: &str, total: u64, unit: Unit) {
        self.step = Some((name.to_owned(), total, unit));
        self.last_line = Instant::now();
        if !self.terminal && self.leaves_out == LeavesOut::Steps {
            return;
        }
        if !self.terminal {
            self.line(name, &serde_json::json!({"event": "step", "name": name, "total": total, "unit": unit.name()}));
            return;
        }
        let bar = if total == 0 { indicatif::ProgressBar::new_spinner() } else { indicatif::ProgressBar::new(total) };
        let template = match (total, unit) {
            (0, _) => "{spinner} {msg} {pos}",
            (_, Unit::Bytes) => "{msg} {wide_bar} {bytes}/{total_bytes} {eta}",
            _ => "{msg} {wide_bar} {pos}/{len} {eta}",
        };
        if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(name.to_owned());
        self.bar = Some(bar);
    }
}

impl Observer for Console {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Resolved(point) => {
                let human = format!("restore point: {}", point.echo());
                let json = serde_json::json!({
                    "event": "resolved", "at": point.asked.to_string(), "at_local": point.zone.show(point.asked),
                    "zone": point.zone.name(), "before": point.before, "lsn": point.lsn.0, "timeline": point.timeline.0,
                });
                self.line(&human, &json);
            }
            Event::Planned(_) if self.leaves_out == LeavesOut::Plan => {}
            Event::Planned(plan) => {
                self.line(&format!("{plan}"), &serde_json::json!({"event": "plan", "plan": plan}));
            }
            Event::Step { name, total, unit } => self.begin(name, *total, *unit),
            Event::At(done) => {
                if let Some(bar) = &self.bar {
                    bar.set_position(*done);
                } else if self.leaves_out != LeavesOut::Steps
                    && self.last_line.elapsed() >= LINE_EVERY
                    && let Some((name, total, unit)) = &self.step
                {
                    let of = if *total > 0 { format!(" of {total}") } else { String::new() };
                    let human = format!("{name}: {done}{of} {}", unit.name());
                    let json = serde_json::json!({"event": "progress", "name": name, "done": done, "total": total, "unit": unit.name()});
                    self.line(&human, &json);
                    self.last_line = Instant::now();
                }
            }
            Event::StepDone => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                if let Some((name, ..)) = self.step.take()
                    && self.json
                    && self.leaves_out != LeavesOut::Steps
                {
                    self.line("", &serde_json::json!({"event": "step-done", "name": name}));
                }
            }
            Event::Note(note) => {
                let json = serde_json::json!({"event": "note", "text": note});
                match &self.bar {
                    Some(bar) => bar.suspend(|| self.line(note, &json)),
                    None => self.line(note, &json),
                }
            }
        }
    }
}
