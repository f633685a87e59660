//! A client cannot tell the difference: the same bytes through the proxy as without it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::conn::{Conn, Value, bytes, int};
use crate::harness::{Dir, Redtape, Server, wait_for};

struct Scene {
    server: Server,
    redtape: Redtape,
    _journal: Dir,
}

fn scene() -> Scene {
    let journal = Dir::new("journal");
    let server = Server::start();
    let redtape = Redtape::start(&server.url(), journal.path(), &[]);
    Scene { server, redtape, _journal: journal }
}

/// Sends raw bytes and gives what comes back until nothing has come for a while or the server closes,
/// which is written down too. (A server that sees the sending side end may drop replies.)
fn exchange(port: u16, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_millis(700))).expect("a timeout");
    stream.write_all(sent).expect("sent");
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
        _ => got.extend_from_slice(b"<closed>"),
    }
    got
}

/// Bytes of whole conversations whose replies do not depend on time or identity.
fn conversations() -> Vec<(&'static str, Vec<u8>)> {
    let mut big = b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$300000\r\n".to_vec();
    big.extend(std::iter::repeat_n(b'x', 300_000));
    big.extend_from_slice(b"\r\n*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n");
    let mut many = Vec::new();
    for n in 0..5_000 {
        many.extend_from_slice(format!("*2\r\n$4\r\nINCR\r\n$5\r\nc{:04}\r\n", n % 7).as_bytes());
    }
    vec![
        ("inline", b"SET a 1\r\nGET a\r\n\r\nGET \"a\"\nPING hello\r\n".to_vec()),
        ("unbalanced quotes", b"GET \"a\r\nGET a\r\n".to_vec()),
        ("empty requests", b"*0\r\n*-1\r\nPING\r\n".to_vec()),
        ("protocol errors", b"*1\r\n$4\r\nPING\r\n*1\r\n:5\r\n".to_vec()),
        ("wrong bulk length", b"*2\r\n$3\r\nGET\r\n$x\r\n".to_vec()),
        ("big array count", b"*99999999999\r\n".to_vec()),
        ("unknown command", b"NOSUCH a b\r\nGET\r\n".to_vec()),
        (
            "transaction",
            b"MULTI\r\nSET a 5\r\nLPUSH a 1\r\nINCR a\r\nEXEC\r\nMULTI\r\nDISCARD\r\nMULTI\r\nGET\r\nEXEC\r\nEXEC\r\n".to_vec(),
        ),
        ("watch", b"WATCH a\r\nSET a 9\r\nMULTI\r\nINCR a\r\nEXEC\r\nUNWATCH\r\n".to_vec()),
        ("databases", b"SELECT 3\r\nSET x 1\r\nSELECT 99\r\nGET x\r\nSWAPDB 3 4\r\nSELECT 4\r\nGET x\r\n".to_vec()),
        (
            "pub/sub in RESP2",
            b"SUBSCRIBE a\r\nPING\r\nGET a\r\nUNSUBSCRIBE\r\nSUBSCRIBE a b\r\nUNSUBSCRIBE b a\r\nPSUBSCRIBE p*\r\nPUNSUBSCRIBE\r\nPUNSUBSCRIBE\r\nPING\r\n".to_vec(),
        ),
        ("blocking", b"BLPOP none 0.05\r\nRPUSH l 1 2\r\nBLPOP l 0\r\nBLMOVE l m LEFT RIGHT 0.05\r\nWAIT 0 10\r\n".to_vec()),
        ("errors in RESP3", b"HELLO 4\r\nHELLO 3 AUTH nobody wrong\r\nHGETALL none\r\n".to_vec()),
        ("scripts", b"EVAL \"return {1,'a',redis.call('SET','k','v')}\" 0\r\nEVALSHA ffffffffffffffffffffffffffffffffffffffff 0\r\n".to_vec()),
        ("replies off", b"CLIENT REPLY SKIP\r\nSET a 1\r\nGET a\r\nCLIENT REPLY OFF\r\nSET a 2\r\nCLIENT REPLY ON\r\nGET a\r\n".to_vec()),
        ("reset and quit", b"SELECT 5\r\nRESET\r\nSET r 1\r\nQUIT\r\nSET r 2\r\n".to_vec()),
        ("half a request", b"SET h 1\r\n*2\r\n$3\r\nGET\r\n$100\r\nabc".to_vec()),
        ("a big value", big),
        ("a long pipeline", many),
        ("streams", b"XADD s 1-1 f v\r\nXGROUP CREATE s g 0\r\nXREADGROUP GROUP g c COUNT 1 STREAMS s >\r\nXACK s g 1-1\r\n".to_vec()),
    ]
}

#[test]
fn the_same_bytes_come_back_as_directly() {
    let s = scene();
    let direct = Server::start();
    for (what, sent) in conversations() {
        let got = exchange(s.redtape.port, &sent);
        let want = exchange(direct.port, &sent);
        assert!(!want.is_empty(), "{what}: the server says nothing");
        assert!(
            got == want,
            "{what}:\nthrough the proxy {:?}\ndirectly          {:?}",
            String::from_utf8_lossy(&got[..got.len().min(600)]),
            String::from_utf8_lossy(&want[..want.len().min(600)])
        );
    }
    let digest = |c: &mut Conn| bytes(&c.must(&args!["DEBUG", "DIGEST"]));
    assert_eq!(digest(&mut s.server.conn()), digest(&mut direct.conn()));
}

#[test]
fn half_a_gigabyte_passes_in_both_directions() {
    let s = scene();
    let size: usize = 512 * 1024 * 1024;
    let mut stream = TcpStream::connect(("127.0.0.1", s.redtape.port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let chunk: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    stream.write_all(format!("*3\r\n$3\r\nSET\r\n$1\r\nv\r\n${size}\r\n").as_bytes()).expect("sent");
    for _ in 0..size / chunk.len() {
        stream.write_all(&chunk).expect("sent");
    }
    stream.write_all(b"\r\n*2\r\n$3\r\nGET\r\n$1\r\nv\r\n").expect("sent");
    let mut head = vec![0; format!("+OK\r\n${size}\r\n").len()];
    stream.read_exact(&mut head).expect("the reply's head");
    assert_eq!(String::from_utf8_lossy(&head), format!("+OK\r\n${size}\r\n"));
    let mut got = vec![0; chunk.len()];
    for n in 0..size / chunk.len() {
        stream.read_exact(&mut got).expect("the value");
        assert!(got == chunk, "MiB {n} came back changed");
    }
    // Nothing of that size is kept: the proxy's memory stays far below one value.
    let status = std::fs::read_to_string(format!("/proc/{}/status", s.redtape.pid())).expect("its status");
    let peak =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok());
    println!("peak memory of the proxy: {} MiB", peak.unwrap_or(0) / 1024);
}

#[test]
fn publications_and_blocked_clients_are_served_across_sessions() {
    let s = scene();
    let url = s.redtape.url();
    let mut subscriber = Conn::open(&url).expect("a client");
    subscriber.must(&args!["SUBSCRIBE", "news"]);
    let mut resp3 = Conn::open(&format!("{url}/?protocol=resp3")).expect("a client");
    resp3.send(b"SUBSCRIBE news\r\nGET nothing\r\n").expect("sent");
    assert_eq!(resp3.reply().expect("a reply"), Value::Nil, "RESP3 goes on with commands");
    let mut monitor = Conn::open(&url).expect("a client");
    monitor.must(&args!["MONITOR"]);
    let mut blocked = Conn::open(&url).expect("a client");
    blocked.send(b"BLPOP queue 0\r\n").expect("sent");
    let mut writer = Conn::open(&url).expect("a client");
    wait_for("the blocked client", Duration::from_secs(5), || {
        (writer.info("clients", "blocked_clients") == "1").then_some(())
    });
    assert_eq!(int(&writer.must(&args!["PUBLISH", "news", "hello"])), 2);
    writer.must(&args!["RPUSH", "queue", "job"]);
    let Value::Array(message) = subscriber.reply().expect("a message") else { panic!("no message") };
    assert_eq!(bytes(&message[2]), b"hello");
    let Value::Array(job) = blocked.reply().expect("the job") else { panic!("no job") };
    assert_eq!(bytes(&job[1]), b"job");
    let seen =
        (0..20).map(|_| crate::harness::conn::text(&monitor.reply().expect("a line"))).find(|l| l.contains("RPUSH"));
    assert!(seen.is_some_and(|l| l.contains("\"queue\" \"job\"")));
}

#[test]
fn users_and_passwords_are_judged_by_the_server() {
    let journal = Dir::new("journal");
    let server = Server::start();
    let mut admin = server.conn();
    admin.must(&args!["ACL", "SETUSER", "ann", "on", ">s3cret", "~*", "+@all"]);
    let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
    let mut conn = Conn::open(&redtape.url()).expect("a client");
    assert!(matches!(conn.call(&args!["AUTH", "ann", "wrong"]), Ok(Value::Error(e)) if e.starts_with("WRONGPASS")));
    conn.must(&args!["SET", "k", "as-default"]);
    conn.must(&args!["AUTH", "ann", "s3cret"]);
    conn.must(&args!["CLIENT", "SETNAME", "till"]);
    conn.must(&args!["SET", "k", "as-ann"]);
    redtape.wait_caught_up();
    let who: Vec<_> = crate::harness::journal::cat(journal.path())
        .iter()
        .map(|g| {
            (String::from_utf8_lossy(&g.records[0].args[2]).into_owned(), g.origin.user.clone(), g.origin.name.clone())
        })
        .collect();
    let want = [("as-default", "default", ""), ("as-ann", "ann", "till")];
    assert_eq!(who, want.map(|(v, u, n)| (v.to_owned(), u.to_owned(), n.to_owned())));
    assert!(!redtape.said().contains("s3cret"));
}

#[test]
fn clients_that_leave_while_blocked_take_their_stamps_with_them() {
    let mut s = scene();
    for _ in 0..300 {
        let mut gone = TcpStream::connect(("127.0.0.1", s.redtape.port)).expect("a connection");
        gone.write_all(b"BLPOP queue 0\r\n").expect("sent");
    }
    let mut producer = Conn::open(&s.redtape.url()).expect("a client");
    let metric = |redtape: &Redtape, name: &str| redtape.metric(name).unwrap_or(-1.0);
    wait_for("their end", Duration::from_secs(20), || {
        let gone =
            metric(&s.redtape, "redtape_sessions_total") >= 301.0 && metric(&s.redtape, "redtape_sessions") <= 1.0;
        (gone && producer.info("clients", "blocked_clients") == "0").then_some(())
    });
    assert_eq!(s.redtape.metric(r#"redtape_errors_total{kind="upstream_lost"}"#), Some(0.0));
    producer.must(&args!["CLIENT", "SETNAME", "producer"]);
    let mut worker = Conn::open(&s.redtape.url()).expect("a client");
    worker.must(&args!["CLIENT", "SETNAME", "worker"]);
    worker.send(b"BLPOP queue 0\r\n").expect("sent");
    wait_for("the worker", Duration::from_secs(5), || {
        (producer.info("clients", "blocked_clients") == "1").then_some(())
    });
    producer.must(&args!["RPUSH", "queue", "job"]);
    worker.reply().expect("the job");
    s.redtape.wait_caught_up();
    let who: Vec<_> = crate::harness::journal::cat(s._journal.path()).iter().map(|g| g.origin.name.clone()).collect();
    assert_eq!(who, ["producer", "worker"]);
    wait_for("no stamps", Duration::from_secs(10), || {
        (metric(&s.redtape, "redtape_stamps_waiting") == 0.0).then_some(())
    });
}

#[test]
fn a_refused_multi_or_a_lone_exec_does_not_cost_origins() {
    let mut s = scene();
    s.server.conn().must(&args!["ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all", "-multi"]);
    let mut conn = Conn::open(&s.redtape.url()).expect("a client");
    conn.must(&args!["CLIENT", "SETNAME", "till"]);
    conn.pipeline(&[
        args!["EXEC"],
        args!["MULTI"],
        args!["SELECT", 2],
        args!["SET", "a", 1],
        args!["EXEC"],
        args!["SET", "b", 1],
    ])
    .expect("replies");
    conn.must(&args!["AUTH", "ann", "pw"]);
    assert!(matches!(conn.call(&args!["MULTI"]), Ok(Value::Error(_))));
    conn.must(&args!["SET", "c", 1]);
    s.redtape.wait_caught_up();
    let groups = crate::harness::journal::cat(s._journal.path());
    let seen: Vec<_> =
        groups.iter().map(|g| (g.records[0].db, g.origin.name.as_str(), g.origin.user.as_str())).collect();
    assert_eq!(seen, [(2, "till", "default"), (2, "till", "default"), (2, "till", "ann")]);
}

#[test]
fn connections_close_during_an_outage_and_work_afterwards() {
    let mut s = scene();
    let mut before = Conn::open(&s.redtape.url()).expect("a client");
    before.must(&args!["SET", "k", 1]);
    s.server.kill9();
    // A connection whose server is gone ends, as it would directly.
    assert!(before.call(&args!["GET", "k"]).is_err() || before.call(&args!["GET", "k"]).is_err());
    // So do new ones: a library would take an error for the command's answer.
    for pipelined in [1, 3] {
        let mut during = Conn::open(&s.redtape.url()).expect("the proxy still accepts");
        during.send(&b"GET k\r\n".repeat(pipelined)).expect("sent");
        assert!(during.reply().is_err(), "an answer without a server");
    }
    assert_eq!(s.redtape.metric("redtape_upstream_up"), Some(0.0));
    s.server.restart();
    let started = Instant::now();
    wait_for("the way back", Duration::from_secs(10), || {
        let mut after = Conn::open(&s.redtape.url()).expect("the proxy accepts");
        matches!(after.call(&args!["SET", "k", 2]), Ok(Value::Text(_))).then_some(())
    });
    println!("back after {:?}", started.elapsed());
    s.redtape.wait_streaming();
    let said = s.redtape.said();
    assert!(said.contains("upstream is not reachable") && said.contains("upstream is back"), "{said}");
    // It came back empty, with another history: a new timeline, and a gap that says why.
    s.redtape.wait_caught_up();
    assert_eq!(crate::harness::journal::timelines(s._journal.path()), 2);
}

#[test]
fn an_unreachable_server_is_reported_to_clients() {
    let mut s = scene();
    s.server.kill9();
    let mut during = Conn::open(&s.redtape.url()).expect("the proxy accepts");
    for _ in 0..2 {
        match during.call(&args!["GET", "k"]).expect("an answer") {
            Value::Error(e) => {
                assert!(e.starts_with("ERR redtape: the upstream 127.0.0.1:") && e.contains("not reachable"), "{e}")
            }
            other => panic!("{other:?}"),
        }
    }
    s.server.restart();
    // The very same connection works.
    wait_for("the way back", Duration::from_secs(10), || {
        matches!(during.call(&args!["SET", "k", 2]), Ok(Value::Text(_))).then_some(())
    });
}

#[test]
fn a_command_in_flight_when_the_server_dies_is_not_answered_and_the_connection_ends() {
    let mut s = scene();
    let mut conn = Conn::open(&s.redtape.url()).expect("a client");
    conn.send(b"BLPOP nothing 0\r\n").expect("sent");
    wait_for("the blocked client", Duration::from_secs(5), || {
        (s.server.conn().info("clients", "blocked_clients") == "1").then_some(())
    });
    s.server.kill9();
    // As directly: client libraries know what a lost connection means, and take an answer for the command's.
    assert!(conn.reply().is_err(), "it was answered");
}

#[test]
fn sigterm_lets_what_is_under_way_finish_and_seals_the_journal() {
    let mut s = scene();
    let url = s.redtape.url();
    let busy = std::thread::spawn(move || {
        let mut conn = Conn::open(&url).expect("a client");
        let (mut acknowledged, mut broken) = (0, 0);
        for n in 1..200_000 {
            match conn.call(&args!["INCR", "n"]) {
                Ok(Value::Int(v)) => {
                    assert_eq!(v, n);
                    acknowledged = v;
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => {
                    broken += 1;
                    break;
                }
            }
        }
        (acknowledged, broken)
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(s.redtape.terminate(), Some(0));
    let (acknowledged, broken) = busy.join().expect("the client");
    assert_eq!(broken, 1, "the client outlived the proxy");
    let journaled = crate::harness::journal::cat(s._journal.path()).len() as i64;
    let counter =
        String::from_utf8_lossy(&bytes(&s.server.conn().must(&args!["GET", "n"]))).parse::<i64>().expect("a number");
    assert!(acknowledged > 100);
    assert_eq!(journaled, counter, "everything that ran is in the journal");
    assert_eq!(acknowledged, counter, "and everything that ran was answered");
    crate::harness::journal::assert_verified(s._journal.path());
}
