//! What load balancers and supervisors are told: is the process alive, can clients be served, is the journal recording.

use crate::harness::conn::{Value, text};
use crate::harness::{Conn, Dir, Disk, Redtape, Server, wait_for};
use std::time::Duration;

/// Whether each endpoint answers 200: alive, ready, journaling.
fn health(redtape: &Redtape) -> [bool; 3] {
    ["/livez", "/readyz", "/journalz"].map(|path| match redtape.endpoint(path) {
        Some((200, _)) => true,
        Some((503, _)) => false,
        other => panic!("{path}: {other:?}"),
    })
}

fn wait_for_health(redtape: &Redtape, wanted: [bool; 3], when: &str) {
    wait_for(&format!("{wanted:?} {when}"), Duration::from_secs(20), || (health(redtape) == wanted).then_some(()));
}

fn body(redtape: &Redtape, path: &str) -> String {
    redtape.endpoint(path).expect("an answer").1
}

#[test]
fn readiness_follows_the_write_policy() {
    for (options, refuses) in [
        (&["--on-journal-failure", "pass"][..], false),
        (&["--on-journal-failure", "reject"], true),
        (&["--ack", "journal"], true),
    ] {
        // The first copy begins after so many seconds.
        let mut server = Server::with(&["--repl-diskless-sync-delay", "3"]);
        let (journal, disk) = (Dir::new("journal"), Disk::fine());
        let mut redtape = Redtape::start_only_in(disk.environment(), &server.url(), journal.path(), options);
        let mut client = Conn::open(&redtape.url()).expect("a client");

        // With reject the journal can be written, as far as anybody knows; it only has no base yet.
        let waits = options.contains(&"--ack");
        assert_eq!(health(&redtape), [true, !waits, false], "{options:?}: during the first full copy");
        assert_eq!(matches!(client.call(&args!["SET", "k", 1]), Ok(Value::Text(_))), !waits, "{options:?}");
        assert!(body(&redtape, "/journalz").starts_with("connecting: "), "{}", body(&redtape, "/journalz"));
        redtape.wait_streaming();
        wait_for_health(&redtape, [true, true, true], "once it is taken");
        assert_eq!(body(&redtape, "/journalz"), "streaming\n");

        disk.is("write-full");
        let _ = client.call(&args!["SET", "k", 2]);
        wait_for_health(&redtape, [true, !refuses, false], "with a full disk");
        // It is tried again now and then, and meanwhile the state is another one.
        wait_for("the full disk to be told of", Duration::from_secs(10), || {
            let said = body(&redtape, "/journalz");
            (said.starts_with("failed: ") && said.contains("No space left on device")).then_some(())
        });
        if refuses {
            assert!(
                body(&redtape, "/readyz").contains("the journal cannot be written"),
                "{}",
                body(&redtape, "/readyz")
            );
        }
        disk.is("fine");
        wait_for_health(&redtape, [true, true, true], "with room again");

        server.kill9();
        wait_for_health(&redtape, [true, false, false], "without the server");
        assert!(body(&redtape, "/readyz").starts_with("the upstream is not reachable: "));
        assert_eq!(redtape.endpoint("/healthz"), Some((200, "ok\n".to_owned())), "as before: the process");
        server.start_again();
        wait_for_health(&redtape, [true, true, true], "with the server again");
        let mut client = Conn::open(&redtape.url()).expect("a client");
        assert_eq!(text(&client.must(&args!["ECHO", "x"])), "x");
        assert_eq!(redtape.endpoint("/other").map(|(status, _)| status), Some(404));
    }
}

#[test]
fn a_server_that_hangs_is_not_ready() {
    let (server, journal) = (Server::start(), Dir::new("journal"));
    let redtape = Redtape::start(&server.url(), journal.path(), &[]);
    assert_eq!(health(&redtape), [true, true, true]);
    let frozen = server.freeze();
    wait_for("the hanging server to be seen", Duration::from_secs(30), || (!health(&redtape)[1]).then_some(()));
    assert!(health(&redtape)[0]);
    drop(frozen);
    wait_for("the way back", Duration::from_secs(30), || health(&redtape)[1].then_some(()));
}

/// A server that was away and then refuses what redtape asks it, answers: clients can be served.
#[test]
fn a_server_that_only_refuses_is_ready() {
    let (server, journal) = (Server::start(), Dir::new("journal"));
    let mut admin = server.conn();
    admin.must(&args!["ACL", "SETUSER", "redtape", "on", ">pw", "allkeys", "+@all"]);
    let url = format!("redis://redtape:pw@127.0.0.1:{}", server.port);
    let redtape = Redtape::start(&url, journal.path(), &[]);
    let frozen = server.freeze();
    wait_for("the hanging server to be seen", Duration::from_secs(30), || (!health(&redtape)[1]).then_some(()));
    // It reads this before redtape has connected again.
    admin.send(b"ACL SETUSER redtape -role\r\n").expect("sent");
    drop(frozen);
    assert_eq!(admin.reply().expect("an answer"), Value::Text("OK".to_owned()));
    wait_for("the way back", Duration::from_secs(30), || health(&redtape)[1].then_some(()));
}
