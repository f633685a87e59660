//! The `# Redtape` section of `INFO`: its fields and the sources of their values.
//!
//! Client libraries merge all sections into one map, so no field may share a name with one of the server's. redtape's
//! fields begin with the part that they describe (`proxy_`, `tap_`, `tee_`, `journal_`). Units come last. Times are
//! given in RFC 3339 and in microseconds since 1970; without a restorable window they are empty and 0.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use redtape_journal::Micros;
use redtape_telemetry::Status;

use super::AdminSetup;
use super::table::SECTION;

/// Values that do not change while the process runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Fixed {
    upstream: String,
    follow: String,
    dir: String,
    sync: &'static str,
    sharing: String,
}

impl Fixed {
    /// Passwords in URLs are shown as `***`.
    pub(super) fn of(setup: &AdminSetup) -> Self {
        let dir = std::path::absolute(&setup.dir).unwrap_or_else(|_| setup.dir.clone());
        Self {
            upstream: setup.upstream.url.to_string(),
            follow: setup.follow.as_ref().map(|follow| follow.url.to_string()).unwrap_or_default(),
            dir: dir.display().to_string(),
            sync: setup.sync,
            sharing: setup.sharing.to_string(),
        }
    }
}

/// All values of the section at one time.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    fixed: Fixed,
    uptime: Duration,
    sessions: i64,
    sessions_total: u64,
    commands: u64,
    lanes: i64,
    errors: u64,
    last_error: Option<(String, Micros)>,
    capture_state: &'static str,
    upstream_up: bool,
    tap_offset: i64,
    lag_bytes: i64,
    lag_seconds: f64,
    backlog_bytes: i64,
    backlog_covers_seconds: f64,
    stamps_waiting: i64,
    stamps_dropped: u64,
    clock_steps: u64,
    journal_bytes: i64,
    segments: i64,
    timeline: i64,
    gaps: i64,
    window: Option<(Micros, Micros)>,
    captured_lsn: u64,
    written_lsn: u64,
    durable_lsn: u64,
    snapshot_runs: bool,
}

impl Facts {
    pub(super) fn now(fixed: &Fixed, status: &Status, uptime: Duration, snapshot_runs: bool) -> Self {
        let (numbers, errors, journal) = (&status.numbers, status.errors(), status.watermarks());
        Self {
            fixed: fixed.clone(),
            uptime,
            sessions: numbers.clients.sessions.get(),
            sessions_total: numbers.clients.sessions_total.get(),
            commands: numbers.clients.commands.get(),
            lanes: numbers.clients.shared_conns.get(),
            errors: errors.total(),
            last_error: errors.last().map(|e| (e.kind.clone(), Micros(e.at_us))),
            capture_state: status.recording().state.name(),
            upstream_up: status.unreachable().is_none(),
            tap_offset: numbers.capture.offset.get(),
            lag_bytes: numbers.capture.lag_bytes.get(),
            lag_seconds: status.lag_seconds(),
            backlog_bytes: numbers.capture.backlog_bytes.get(),
            backlog_covers_seconds: numbers.capture.backlog_covers.get(),
            stamps_waiting: numbers.capture.stamps_waiting.get(),
            stamps_dropped: numbers.capture.stamps_dropped.get(),
            clock_steps: numbers.capture.clock_steps.get(),
            journal_bytes: numbers.journal.bytes.get(),
            segments: numbers.journal.segments.get(),
            timeline: numbers.journal.timeline.get(),
            gaps: numbers.journal.gaps.get(),
            window: status.window().map(|(from, to)| (Micros(from), Micros(to))),
            captured_lsn: journal.captured,
            written_lsn: journal.written,
            durable_lsn: journal.durable,
            snapshot_runs,
        }
    }

    /// The section with its title; lines end with CRLF.
    pub(super) fn section(&self) -> String {
        let mut text = format!("# {SECTION}\r\n");
        let mut line = |name: &str, value: &dyn Display| {
            // A value is one line, whatever characters a path has.
            let value = value.to_string().replace(['\r', '\n'], " ");
            let _ = write!(text, "{name}:{value}\r\n");
        };
        let time = |at: Option<Micros>| at.map_or_else(String::new, |at| at.to_string());
        let micros = |at: Option<Micros>| at.map_or(0, |at| at.0);
        let seconds = |s: f64| if s.is_finite() { format!("{s:.3}") } else { "inf".to_owned() };
        let (from, to) = self.window.unzip();
        let window = self.window.map_or(0.0, |(from, to)| (to.0 - from.0) as f64 / 1e6);
        let error_at = self.last_error.as_ref().map(|(_, at)| *at);

        line("proxy_version", &env!("CARGO_PKG_VERSION"));
        line("proxy_uptime_in_seconds", &self.uptime.as_secs());
        line("proxy_upstream", &self.fixed.upstream);
        line("proxy_upstream_up", &i32::from(self.upstream_up));
        line("proxy_sharing", &self.fixed.sharing);
        line("proxy_lanes", &self.lanes);
        line("proxy_connected_clients", &self.sessions);
        line("proxy_connections_received", &self.sessions_total);
        line("proxy_commands_processed", &self.commands);
        line("proxy_errors", &self.errors);
        line("proxy_last_error", &self.last_error.as_ref().map_or("", |(kind, _)| kind));
        line("proxy_last_error_time", &time(error_at));
        line("proxy_last_error_time_us", &micros(error_at));
        line("tap_state", &self.capture_state);
        line("tap_follow", &self.fixed.follow);
        line("tap_repl_offset", &self.tap_offset);
        line("tap_lag_bytes", &self.lag_bytes);
        line("tap_lag_seconds", &seconds(self.lag_seconds));
        line("tap_backlog_bytes", &self.backlog_bytes);
        line("tap_backlog_covers_seconds", &seconds(self.backlog_covers_seconds));
        line("tee_stamps_waiting", &self.stamps_waiting);
        line("tee_stamps_dropped", &self.stamps_dropped);
        line("journal_dir", &self.fixed.dir);
        line("journal_sync", &self.fixed.sync);
        line("journal_bytes", &self.journal_bytes);
        line("journal_segments", &self.segments);
        line("journal_timeline", &self.timeline);
        line("journal_gaps", &self.gaps);
        line("journal_first_restorable", &time(from));
        line("journal_first_restorable_us", &micros(from));
        line("journal_last_restorable", &time(to));
        line("journal_last_restorable_us", &micros(to));
        line("journal_window_seconds", &seconds(window));
        line("journal_captured_lsn", &self.captured_lsn.max(self.written_lsn));
        line("journal_written_lsn", &self.written_lsn);
        line("journal_durable_lsn", &self.durable_lsn);
        line("journal_clock_steps", &self.clock_steps);
        line("journal_snapshot_in_progress", &i32::from(self.snapshot_runs));
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use redtape_telemetry::{CaptureState, Metrics, Watermarks};

    use super::*;

    #[test]
    fn a_fresh_proxy_has_no_window() {
        let text = Facts::default().section();
        assert!(text.starts_with("# Redtape\r\nproxy_version:"), "{text}");
        for line in ["journal_first_restorable:", "journal_first_restorable_us:0", "journal_window_seconds:0.000"] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} in {text}");
        }
    }

    #[test]
    fn values_come_from_the_status_to_the_microsecond() {
        let metrics = Metrics::new(std::sync::Arc::default()).unwrap();
        let status = Status::new(metrics.clone());
        status.numbers.clients.sessions.inc();
        status.numbers.journal.gaps.set(2);
        status.numbers.capture.backlog_covers.set(f64::INFINITY);
        status.capture(CaptureState::Streaming);
        status.set_window_start(1_795_176_000_000_001);
        status.set_window_end(1_795_176_010_500_003);
        status.set_watermarks(Watermarks { captured: 9, ..Watermarks::default() });
        metrics.error("journal");
        let fixed = Fixed { dir: "/a\r\nb".to_owned(), ..Fixed::default() };
        let text = Facts::now(&fixed, &status, Duration::from_secs(61), true).section();
        for line in [
            "proxy_uptime_in_seconds:61",
            "proxy_connected_clients:1",
            "journal_gaps:2",
            "proxy_errors:1",
            "proxy_last_error:journal",
            "tap_state:streaming",
            "tap_backlog_covers_seconds:inf",
            "journal_dir:/a  b",
            "journal_first_restorable:2026-11-20T12:00:00.000001Z",
            "journal_first_restorable_us:1795176000000001",
            "journal_last_restorable_us:1795176010500003",
            "journal_window_seconds:10.500",
            "journal_captured_lsn:9",
            "journal_snapshot_in_progress:1",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} in {text}");
        }
    }

    /// No server from Redis 6.0 to 8.0 and Valkey to 9.1 has a field with these prefixes.
    #[test]
    fn no_field_collides_with_the_servers() {
        let text = Facts::default().section();
        let fields: Vec<&str> = text.lines().skip(1).map(|l| l.split_once(':').unwrap().0).collect();
        for (n, field) in fields.iter().enumerate() {
            assert!(["proxy_", "tap_", "tee_", "journal_"].iter().any(|p| field.starts_with(p)), "{field}");
            assert!(!fields[..n].contains(field), "{field} twice");
        }
    }
}
