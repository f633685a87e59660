//! What the restore tests stand on: real servers, a recorder of one into a journal, and a full
//! comparison of two servers.
#![allow(dead_code, clippy::unwrap_used, clippy::format_push_string)]

pub(crate) mod history;
pub(crate) mod record;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redtape_journal::Micros;
use redtape_journal::query::{AsOf, When, Zone};
use redtape_restore::client::{Server as Client, Value};
use redtape_restore::source::clock::{ClockFile, FILE_VARIABLE, LIBRARY};
use redtape_restore::version::ServerVersion;
use redtape_restore::{
    Event, Filter, ForcedMethod, Interrupt, Limits, Observer, Plan, Report, Request, RestoreError, Silent, Target,
    prepare,
};

/// The server that tests run against.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("REDTAPE_TEST_SERVER").map_or_else(|| PathBuf::from("redis-server"), PathBuf::from)
}

pub(crate) fn version() -> ServerVersion {
    let output = Command::new(binary()).arg("--version").output().expect("a redis-server");
    ServerVersion::from_banner(&String::from_utf8_lossy(&output.stdout)).expect("version")
}

/// Everything to this target.
pub(crate) fn request(dir: &Path, at: When, target: &Running, via: Option<ForcedMethod>) -> Request {
    Request {
        keyring: redtape_journal::Keyring::default(),
        from: dir.to_owned(),
        as_of: AsOf::At(at),
        zone: Zone::utc(),
        to: Target::Server(target.url().parse().unwrap()),
        accept_eviction: false,
        filter: Filter::default(),
        slice: true,
        repair: None,
        broken_by: None,
        unchanged_since: None,
        rate: None,
        state_dir: dir.parent().map(|parent| parent.join("state")),
        method: via,
        server_bin: Some(binary()).filter(|b| b.is_absolute()),
        now: Micros::now(),
        interrupt: Interrupt::default(),
        limits: Limits::default(),
    }
}

pub(crate) fn restore(request: &Request) -> Result<(Plan, Report), RestoreError> {
    let prepared = prepare(request, &mut Silent)?;
    let plan = prepared.plan().clone();
    Ok((plan, prepared.run(&mut Silent)?))
}

/// Does something once, when a step begins or has come so far.
pub(crate) struct AtStep<F: FnMut()> {
    pub(crate) step: &'static str,
    /// Units of the step that are done before.
    pub(crate) after: u64,
    pub(crate) action: Option<F>,
    inside: bool,
}

impl<F: FnMut()> AtStep<F> {
    pub(crate) fn new(step: &'static str, after: u64, action: F) -> Self {
        Self { step, after, action: Some(action), inside: false }
    }

    pub(crate) fn reached(&self) -> bool {
        self.action.is_none()
    }
}

impl<F: FnMut()> Observer for AtStep<F> {
    fn on(&mut self, event: &Event<'_>) {
        let done = match event {
            Event::Step { name, .. } => {
                self.inside = *name == self.step;
                0
            }
            Event::At(done) => *done,
            _ => return,
        };
        if self.inside
            && done >= self.after
            && let Some(mut action) = self.action.take()
        {
            action();
        }
    }
}

/// The scratch servers that this process has started and that run: by their folder, as servers change their command line.
pub(crate) fn scratch_servers() -> Vec<u32> {
    let own = std::process::id().to_string();
    let is_one = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        rest.split_ascii_whitespace().nth(1) == Some(&own) && folder.to_string_lossy().contains("redtape-scratch-")
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// A server of our own, killed when dropped.
pub(crate) struct Running {
    pub(crate) port: u16,
    child: Child,
    _clock: Option<ClockFile>,
    pub(crate) dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_binary(&binary(), args, false)
    }

    /// With a clock that stands long before any TTL: nothing expires, so that states can be compared.
    pub(crate) fn timeless() -> Self {
        let debug: &[&str] = if version().has_redis(7, 0) { &["--enable-debug-command", "yes"] } else { &[] };
        Self::start_binary(&binary(), debug, true)
    }

    pub(crate) fn start_binary(binary: &Path, args: &[&str], timeless: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(binary);
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--repl-diskless-sync-delay",
            "0",
        ]);
        command.arg("--dir").arg(dir.path()).arg("--logfile").arg(dir.path().join("log")).args(args);
        let clock = timeless.then(|| {
            std::fs::write(dir.path().join("clock.so"), LIBRARY).unwrap();
            let path = dir.path().join("clock");
            command.env("LD_PRELOAD", dir.path().join("clock.so")).env(FILE_VARIABLE, &path);
            ClockFile::create(&path, !version().has_redis(6, 2)).unwrap()
        });
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("server");
        let running = Self { port, child, _clock: clock, dir };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the server did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        running
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.url().parse().unwrap()).unwrap()
    }
}

/// Runs one line; blanks separate words, `\x00`-style escapes make bytes.
#[track_caller]
pub(crate) fn run(client: &mut Client, line: &str) -> Value {
    let words: Vec<Vec<u8>> = line.split(' ').map(unescape).collect();
    client.call(&words).unwrap_or_else(|e| panic!("{line}: {e}"))
}

fn unescape(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = word;
    while let Some(at) = rest.find("\\x") {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        out.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap());
        rest = &rest[at + 4..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Everything in a server, in a form that can be compared and shown.
pub(crate) fn state(client: &mut Client) -> Vec<String> {
    let mut lines = Vec::new();
    let keyspace = client.info(Some("keyspace")).unwrap().keyspace();
    let version = version();
    for db in keyspace.keys() {
        run(client, &format!("SELECT {db}"));
        let Value::Array(keys) = run(client, "KEYS *") else { panic!("KEYS") };
        for key in keys {
            let Value::Bytes(key) = key else { panic!("key") };
            let shown = key.escape_ascii().to_string();
            let mut ask = |args: &[&[u8]]| client.try_call(args).unwrap().value().unwrap_or(Value::Nil);
            let digest = ask(&[b"DEBUG", b"DIGEST-VALUE", &key]);
            let ttl =
                if version.has_redis(7, 0) { ask(&[b"PEXPIRETIME", &key]) } else { has_ttl(&ask(&[b"PTTL", &key])) };
            let kind = redtape_restore::client::text(&ask(&[b"TYPE", &key]));
            let mut line = format!("db {db} {shown}: {kind} {digest:?} ttl {ttl:?}");
            if kind == "stream" {
                line += &format!(" {:?}", without_seen_times(ask(&[b"XINFO", b"STREAM", &key, b"FULL"])));
            }
            if kind == "hash" && version.has_field_ttl() {
                let Value::Array(mut fields) = ask(&[b"HKEYS", &key]) else { panic!("HKEYS") };
                fields.sort_by_key(redtape_restore::client::text);
                for field in fields {
                    let Value::Bytes(field) = field else { panic!("field") };
                    line += &format!(" {:?}", ask(&[b"HPEXPIRETIME", &key, b"FIELDS", b"1", &field]));
                }
            }
            lines.push(line);
        }
    }
    run(client, "SELECT 0");
    if let Some(dump) = client.try_call(&["FUNCTION", "DUMP"]).unwrap().value() {
        lines.push(format!("functions {dump:?}"));
    }
    if let Some(digest) = client.try_call(&["DEBUG", "DIGEST"]).unwrap().value() {
        lines.push(format!("digest {digest:?}"));
    }
    lines.sort();
    lines
}

/// Before 7.0 only the time left can be asked for, which runs on.
fn has_ttl(left: &Value) -> Value {
    Value::Status(matches!(left, Value::Int(0..)).to_string())
}

/// What XCLAIM does not carry in the replication stream (a real replica differs there too), and how a
/// stream happens to lie in memory.
const NOT_REPLICATED: [&str; 6] =
    ["seen-time", "active-time", "entries-read", "lag", "radix-tree-keys", "radix-tree-nodes"];

fn without_seen_times(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut out = Vec::new();
            let mut items = items.into_iter();
            while let Some(item) = items.next() {
                let name = redtape_restore::client::text(&item);
                if NOT_REPLICATED.contains(&name.as_str()) {
                    items.next();
                } else {
                    out.push(without_seen_times(item));
                }
            }
            Value::Array(out)
        }
        other => other,
    }
}

#[track_caller]
pub(crate) fn assert_same(want: &[String], got: &[String], what: &str) {
    let missing: Vec<_> = want.iter().filter(|l| !got.contains(l)).collect();
    let extra: Vec<_> = got.iter().filter(|l| !want.contains(l)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}\nmissing: {missing:#?}\nextra: {extra:#?}");
}
