use redtape_journal::{Micros, SyncPolicy};
use redtape_net::tls::ClientTls;
use redtape_telemetry::Metrics;
use redtape_wire::url::RedisUrl;

use super::*;

/// Reads nothing: says what it was asked.
#[derive(Debug)]
struct Echo;

impl KeyReader for Echo {
    fn read(&self, query: &KeyQuery) -> Result<String, ReadFailure> {
        let KeyQuery { key, db, when, cancelled } = query;
        if when == "never" {
            return Err(ReadFailure { code: "JOURNAL", message: "no\nsuch time".to_owned() });
        }
        let key = String::from_utf8_lossy(key);
        Ok(format!("{key} in {db} at {when}, {}", cancelled.load(std::sync::atomic::Ordering::Relaxed)))
    }
}

fn admin(version: &str) -> (AdminCommands, Arc<ArcSwap<Live>>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens on port 1.
    let url: RedisUrl = "redis://:secret@127.0.0.1:1".parse().unwrap();
    let live = Live { admin_users: vec!["ops".to_owned()], ..Live::default() };
    let live = Arc::new(ArcSwap::from_pointee(live));
    let metrics = Metrics::new(Arc::default()).unwrap();
    let setup = AdminSetup {
        upstream: Connector::new(url, &ClientTls::default()).unwrap(),
        follow: None,
        server_version: version.to_owned(),
        dir: dir.path().to_owned(),
        sync: "everysec",
        never_syncs: false,
        sharing: Sharing::Auto,
        live: live.clone(),
        keyring: Arc::default(),
        status: Status::new(metrics),
        snapshots: SnapshotSlot::default(),
        past: Some(Arc::new(Echo)),
    };
    (AdminCommands::new(setup), live, dir)
}

fn ask(admin: &AdminCommands, line: &str, user: Option<&str>, resp3: bool) -> Result<String, Answer> {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    match admin.answer(&args, user, 3, resp3) {
        Answer::Reply(bytes) => Ok(String::from_utf8(bytes).unwrap()),
        later => Err(later),
    }
}

#[test]
fn refusals_come_in_the_order_and_words_of_redis() {
    let (admin, live, _dir) = admin("7.0.15");
    let noauth = "-NOAUTH Authentication required.\r\n";
    let unknown = "-ERR unknown command 'Redtape.Foo', with args beginning with: 'a' \r\n";
    let arity = "-ERR wrong number of arguments for 'redtape.mark' command\r\n";
    let noperm = "-NOPERM this user has no permissions to run the 'redtape.mark' command\r\n";
    for (line, user, expected) in [
        ("redtape.info", None, noauth),
        ("Redtape.Foo a", Some("ops"), unknown),
        ("redtape.mark", Some("bob"), arity),
        ("REDTAPE.MARK a b", Some("ops"), arity),
        ("REDTAPE.MARK a", Some("bob"), noperm),
        ("REDTAPE.MARK a", Some("Ops"), noperm),
        ("redtape.info x", Some("bob"), "-ERR wrong number of arguments for 'redtape.info' command\r\n"),
        ("redtape.mark \u{7}", Some("ops"), "-ERR a mark's name holds no control characters\r\n"),
    ] {
        for resp3 in [false, true] {
            assert_eq!(ask(&admin, line, user, resp3).unwrap(), expected);
        }
    }
    let Answer::Reply(bytes) = admin.answer(&[b"REDTAPE.MARK", b"\xff"], Some("ops"), 0, false) else { panic!() };
    assert_eq!(bytes, b"-ERR a mark's name is UTF-8 text\r\n");
    // The users are looked up at each command.
    live.rcu(|l| Live { admin_users: vec!["bob".to_owned()], ..(**l).clone() });
    assert_eq!(ask(&admin, "REDTAPE.MARK a", Some("ops"), false).unwrap(), noperm);
    assert!(ask(&admin, "REDTAPE.MARK a", Some("bob"), false).is_err());
}

#[test]
fn info_lsn_and_help() {
    let (admin, _, dir) = admin("8.0.6");
    admin.status.set_watermarks(Watermarks { captured: 12, written: 11, durable: 10 });
    let flat = "$8\r\ncaptured\r\n:12\r\n$7\r\nwritten\r\n:11\r\n$7\r\ndurable\r\n:10\r\n";
    assert_eq!(ask(&admin, "Redtape.LSN", Some("bob"), false).unwrap(), format!("*6\r\n{flat}"));
    assert_eq!(ask(&admin, "Redtape.LSN", Some("bob"), true).unwrap(), format!("%3\r\n{flat}"));
    let info = ask(&admin, "REDTAPE.INFO", Some("bob"), false).unwrap();
    for part in [
        "\r\n# Redtape\r\nproxy_version:".to_owned(),
        "proxy_upstream:redis://:***@127.0.0.1:1\r\n".to_owned(),
        format!("journal_dir:{}\r\njournal_sync:everysec\r\n", dir.path().display()),
        "journal_captured_lsn:12\r\njournal_written_lsn:11\r\njournal_durable_lsn:10\r\n".to_owned(),
        "journal_snapshot_in_progress:0\r\n\r\n".to_owned(),
    ] {
        assert!(info.contains(&part), "{part} in {info}");
    }
    assert!(ask(&admin, "REDTAPE.INFO", Some("bob"), true).unwrap().starts_with('='));
    let completed = admin.complete(&completion(&[b"INFO", b"redtape"]).unwrap(), b"=4\r\ntxt:\r\n", true);
    assert_eq!(String::from_utf8(completed).unwrap(), ask(&admin, "REDTAPE.INFO", Some("bob"), true).unwrap());
    assert_eq!(admin.complete(&completion(&[b"INFO"]).unwrap(), b"-NOPERM x\r\n", true), b"-NOPERM x\r\n");
    let help = ask(&admin, "redtape.help", Some("bob"), true).unwrap();
    assert_eq!(help.lines().count(), HELP.len() + 1);
    for command in &COMMANDS {
        let name = command.name.strip_prefix("redtape.").unwrap().to_ascii_uppercase();
        assert!(help.contains(&format!("\r\n+{name}")), "{name}");
        assert!(is_admin_command(command.name.as_bytes()));
    }
    assert!(!is_admin_command(b"redtape") && !is_admin_command(b"get"));
}

#[test]
fn one_snapshot_at_a_time_and_what_fails_gives_its_place_up() {
    let (admin, _, _dir) = admin("7.0.15");
    let Answer::Later(first) = ask(&admin, "REDTAPE.SNAPSHOT", Some("ops"), false).unwrap_err() else { panic!() };
    let second = ask(&admin, "REDTAPE.SNAPSHOT", Some("ops"), false).unwrap();
    assert!(second.starts_with("-ERR a snapshot is already running"), "{second}");
    assert!(ask(&admin, "REDTAPE.INFO", Some("ops"), false).unwrap().contains("snapshot_in_progress:1"));
    // There is no journal.
    let reply = String::from_utf8(first()).unwrap();
    assert!(reply.starts_with("-JOURNAL ") && reply.ends_with("\r\n"), "{reply}");
    let third = ask(&admin, "REDTAPE.SNAPSHOT", Some("ops"), false).unwrap_err();
    // One that is never run, because its client has gone.
    drop(third);
    assert!(ask(&admin, "REDTAPE.SNAPSHOT", Some("ops"), false).is_err());
}

#[test]
fn one_key_of_the_past_at_a_time() {
    let (admin, _, _dir) = admin("7.0.15");
    let start = |line: &str, resp3| {
        let Answer::WhileWanted(run, cancel) = ask(&admin, line, Some("ops"), resp3).unwrap_err() else { panic!() };
        (run, cancel)
    };
    let (first, wanted) = start("REDTAPE.GET k latest", false);
    let second = ask(&admin, "redtape.get k latest", Some("ops"), false).unwrap();
    assert_eq!(second, "-BUSY another REDTAPE.GET is running; try again when it has ended\r\n");
    assert_eq!(first(), b"$23\r\nk in 3 at latest, false\r\n");
    drop(wanted);
    let (gone, unwanted) = start("REDTAPE.GET k lsn:1", true);
    drop(unwanted);
    assert_eq!(String::from_utf8(gone()).unwrap(), "=25\r\ntxt:k in 3 at lsn:1, true\r\n");
    let (failing, _wanted) = start("REDTAPE.GET k never", false);
    assert_eq!(failing(), b"-JOURNAL no such time\r\n");
    // One that is never run gives its place up.
    drop(start("REDTAPE.GET k latest", false));
    assert!(ask(&admin, "REDTAPE.GET k latest", Some("ops"), false).is_err());
    let refused = "-NOPERM this user has no permissions to run the 'redtape.get' command\r\n";
    assert_eq!(ask(&admin, "REDTAPE.GET k latest", Some("bob"), false).unwrap(), refused);
    let arity = "-ERR wrong number of arguments for 'redtape.get' command\r\n";
    assert_eq!(ask(&admin, "REDTAPE.GET k", Some("ops"), false).unwrap(), arity);
}

#[test]
fn a_mark_needs_a_free_name_and_the_servers_offset() {
    let (admin, _, dir) = admin("7.0.15");
    let config = redtape_journal::OpenOptions {
        segment_bytes: 1 << 20,
        sync: SyncPolicy::Always,
        source: "redis://127.0.0.1:1".to_owned(),
        ..redtape_journal::OpenOptions::default()
    };
    drop(redtape_journal::Journal::create_or_open(dir.path(), config).unwrap());
    let mark = Mark { name: "taken".to_owned(), ts: Micros(0), lsn: Lsn(3) };
    redtape_journal::add_new_mark(dir.path(), &mark).unwrap();
    let mark = |name| {
        let Answer::Later(set) = ask(&admin, &format!("REDTAPE.MARK {name}"), Some("ops"), false).unwrap_err() else {
            panic!()
        };
        String::from_utf8(set()).unwrap()
    };
    assert_eq!(
        mark("taken"),
        "-ERR there is a mark \"taken\" already, of 1970-01-01T00:00:00.000000Z (LSN 3); choose another name\r\n"
    );
    let reply = mark("free");
    assert!(reply.starts_with("-JOURNAL cannot ask 127.0.0.1:1 for its replication offset"), "{reply}");
    assert!(reply.contains("nothing was marked"), "{reply}");
}
