//! What clients, readers of the log and scrapers can do to the proxy: nothing that stops it for others, or that takes more
//! memory than it is given. And what does stop a part of it ends the whole process, loudly.

use crate::harness::conn::{Value, raw as connect, text, until_closed};
use crate::harness::{Conn, Dir, Fault, Redtape, Server, wait_for};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// Sends without reading until nothing is taken any more, or `bytes` are gone; false = the other side has closed.
fn pour(stream: &mut TcpStream, what: &[u8], mut bytes: usize) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut last = Instant::now();
    let mut at = 0;
    while bytes > 0 && last.elapsed() < Duration::from_millis(500) {
        match stream.write(&what[at..]) {
            Ok(n) => {
                bytes = bytes.saturating_sub(n);
                at = (at + n) % what.len();
                last = Instant::now();
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(2)),
            Err(_) => return false,
        }
    }
    true
}

/// The longest of some round trips of a client that is logged in.
fn longest_ping(conn: &mut Conn, rounds: usize) -> Duration {
    let ping = || {
        let begun = Instant::now();
        assert_eq!(conn.must(&args!["PING"]), Value::Text("PONG".to_owned()));
        begun.elapsed()
    };
    std::iter::repeat_with(ping).take(rounds).max().unwrap()
}

fn with_password() -> Server {
    let server = Server::start();
    server.conn().must(&args!["CONFIG", "SET", "requirepass", "secret"]);
    server
}

#[test]
fn what_a_client_announces_before_it_logs_in_costs_nothing() {
    let (journal, server) = (Dir::new("journal"), with_password());
    let upstream = format!("redis://:secret@127.0.0.1:{}", server.port);
    let redtape = Redtape::start(&upstream, journal.path(), &[]);
    let mut other = Conn::open(&redtape.url()).unwrap();
    other.must(&args!["AUTH", "secret"]);
    longest_ping(&mut other, 10);
    let before = redtape.resident_bytes();
    for announced in [50_000_000_u32, i32::MAX as u32] {
        for begun in [
            &["DEL"][..],
            &["DEL", "k"],
            &["MSET", "k"],
            &["SUNIONSTORE", "k"],
            &["SORT", "k"],
            &["GEORADIUS", "k"],
            &["XREADGROUP", "GROUP"],
            &["XREAD", "STREAMS"],
            &["MIGRATE", "host"],
            &["MIGRATE", "host", "1", "", "0", "9", "KEYS"],
            &["EVAL", "x", "2147483647"],
            &["ZUNIONSTORE", "d", "2147483647"],
            &["NO.SUCH", "k"],
        ] {
            let words: String = begun.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
            let request = format!("*{announced}\r\n{words}");
            let mut client = connect(redtape.port);
            client.write_all(request.as_bytes()).unwrap();
            let waited = longest_ping(&mut other, 20);
            assert!(waited < Duration::from_millis(500), "{request:?}: others wait for {waited:?}");
            let grown = redtape.resident_bytes().saturating_sub(before);
            assert!(grown < 32 * MIB, "{request:?}: {} MiB", grown / MIB);
            // The server refuses, and in its own words.
            let mut direct = connect(server.port);
            direct.write_all(request.as_bytes()).unwrap();
            let refusal = until_closed(&mut direct).escape_ascii().to_string();
            assert!(refusal.starts_with("-ERR Protocol error"), "{request:?}: {refusal}");
            assert_eq!(until_closed(&mut client).escape_ascii().to_string(), refusal, "{request:?}");
        }
    }
}

#[test]
fn a_client_that_never_logs_in_and_never_reads_is_kept_small() {
    let (journal, server) = (Dir::new("journal"), with_password());
    let upstream = format!("redis://:secret@127.0.0.1:{}", server.port);
    let redtape = Redtape::start(&upstream, journal.path(), &[]);
    let mut other = Conn::open(&redtape.url()).unwrap();
    other.must(&args!["AUTH", "secret"]);
    let before = redtape.resident_bytes();
    let clients: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut client = connect(redtape.port);
            pour(&mut client, &b"GET k\r\n".repeat(1000), 14 * MIB);
            client
        })
        .collect();
    longest_ping(&mut other, 20);
    let grown = redtape.resident_bytes().saturating_sub(before);
    // What piles up for each is at most a MiB, and a thousand requests.
    assert!(grown < 32 * MIB, "{} MiB", grown / MIB);
    drop(clients);
    // One that reads is refused as often as it asks, and may log in late.
    let mut late = Conn::open(&redtape.url()).unwrap();
    for _ in 0..200 {
        // Servers since 2025 cut a client that has not logged in and does not take a KiB of refusals.
        let replies = late.pipeline(&vec![args!["GET", "k"]; 20]).unwrap();
        assert!(replies.iter().all(|r| format!("{r:?}").contains("NOAUTH")), "{replies:?}");
    }
    late.must(&args!["AUTH", "secret"]);
    let replies = late.pipeline(&vec![args!["GET", "k"]; 5000]).unwrap();
    assert!(replies.iter().all(|r| *r == Value::Nil));
}

/// A connection by a load balancer that names nobody, then plain requests.
fn by_load_balancer(redtape: &Redtape) -> TcpStream {
    let mut client = connect(redtape.port);
    client.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0PING\r\n").unwrap();
    let mut pong = [0; 7];
    client.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"+PONG\r\n");
    client
}

/// Clients and recording go on: what is written now is journaled, and both say so.
fn goes_on(redtape: &mut Redtape, server: &Server, value: &str) {
    let mut client = by_load_balancer(redtape);
    client.write_all(format!("SET k {value}\r\n").as_bytes()).unwrap();
    let mut ok = [0; 5];
    client.read_exact(&mut ok).unwrap();
    assert_eq!(&ok, b"+OK\r\n");
    redtape.wait_caught_up();
    assert_eq!(text(&server.conn().must(&args!["GET", "k"])), value);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(redtape.http_status(path).as_deref(), Some("HTTP/1.1 200 OK"), "{path}");
    }
}

/// Makes worker and capture log: so many refused clients, and a link that ends.
fn make_it_log(redtape: &mut Redtape, server: &Server, clients: usize) {
    for _ in 0..clients {
        let mut client = connect(redtape.port);
        client.write_all(b"no header of the PROXY protocol").unwrap();
        until_closed(&mut client);
    }
    server.conn().must(&args!["CLIENT", "KILL", "TYPE", "replica"]);
    // It follows again, and what was written meanwhile is there.
    redtape.wait_caught_up();
    redtape.wait_streaming();
}

fn lost_lines(redtape: &Redtape) -> f64 {
    redtape.metric("redtape_log_lines_lost_total").unwrap()
}

#[test]
fn a_blocked_or_broken_log_stops_nothing() {
    let proxied = ["--proxy-protocol", "on"];
    // A reader that stalls: the pipe is full, then the queue.
    let (journal, server) = (Dir::new("journal"), Server::start());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut redtape = Redtape::start_logging_to(writer, &server.url(), journal.path(), &proxied);
    make_it_log(&mut redtape, &server, 4000);
    goes_on(&mut redtape, &server, "stalled");
    assert!(lost_lines(&redtape) > 100.0, "{} lines lost", lost_lines(&redtape));
    // It reads again, and hears how much is missing.
    let reading = std::thread::spawn(move || {
        let (mut said, mut some) = (String::new(), [0; 4096]);
        while !said.contains("log lines are missing") {
            match reader.read(&mut some).unwrap() {
                0 => panic!("the end of the log"),
                n => said.push_str(&String::from_utf8_lossy(&some[..n])),
            }
        }
        // Then it goes away.
        drop(reader);
    });
    wait_for("the reader", Duration::from_secs(20), || {
        make_it_log(&mut redtape, &server, 1);
        reading.is_finished().then_some(())
    });
    reading.join().unwrap();
    let before = lost_lines(&redtape);
    make_it_log(&mut redtape, &server, 10);
    goes_on(&mut redtape, &server, "closed");
    assert!(lost_lines(&redtape) > before, "lines into a closed pipe are not counted");
    // A signal ends it as ever.
    assert_eq!(redtape.terminate(), Some(0));

    let (journal, server) = (Dir::new("journal"), Server::start());
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut redtape = Redtape::start_logging_to(full, &server.url(), journal.path(), &proxied);
    make_it_log(&mut redtape, &server, 10);
    goes_on(&mut redtape, &server, "full");
    assert!(lost_lines(&redtape) > 10.0, "{} lines lost", lost_lines(&redtape));
    assert_eq!(redtape.terminate(), Some(0));
}

#[test]
fn a_part_that_ends_ends_the_process_and_says_so() {
    let server = Server::start();
    // The main thread has the HTTP server and signals.
    for part in ["worker-0", "capture", "accept", "housekeeping", "redtape"] {
        let (journal, fault) = (Dir::new("journal"), Fault::none_yet());
        let mut redtape = Redtape::start_in(fault.environment(), &server.url(), journal.path(), &[]);
        let mut conn = Conn::open(&redtape.url()).unwrap();
        conn.must(&args!["SET", "k", part]);
        fault.of_thread(part);
        // The next request meets the fault.
        let _ = (conn.call(&args!["SET", "k", "again"]), TcpStream::connect(("127.0.0.1", redtape.port)));
        let _ = redtape.http_status("/healthz");
        assert_eq!(redtape.wait_end(Duration::from_secs(20)), Some(70), "{part}: {}", redtape.said());
        let said = redtape.said();
        assert!(said.contains("a defect of redtape, please report it"), "{part}: {said}");
    }
}

#[test]
fn slow_scrapers_do_not_block_others() {
    let (journal, server) = (Dir::new("journal"), Server::start());
    let redtape = Redtape::start(&server.url(), journal.path(), &[]);
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answered = |redtape: &Redtape| {
        let begun = Instant::now();
        assert_eq!(redtape.http_status("/healthz").as_deref(), Some("HTTP/1.1 200 OK"));
        assert!(begun.elapsed() < Duration::from_secs(2), "after {:?}", begun.elapsed());
    };
    let deaf: Vec<TcpStream> = (0..70)
        .map(|_| {
            let mut client = connect(redtape.metrics_port);
            pour(&mut client, &request.repeat(100), 200_000);
            client
        })
        .collect();
    answered(&redtape);
    let silent: Vec<TcpStream> = (0..70).map(|_| connect(redtape.metrics_port)).collect();
    let half: Vec<TcpStream> = (0..70)
        .map(|_| {
            let mut client = connect(redtape.metrics_port);
            client.write_all(b"GET /metrics HTTP/1.1\r\nHost: lo").unwrap();
            client
        })
        .collect();
    answered(&redtape);
    drop(deaf);
    // None of them is kept for long.
    let begun = Instant::now();
    for mut client in silent.into_iter().chain(half) {
        until_closed(&mut client);
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "after {:?}", begun.elapsed());
    // Nor is a request taken that does not end.
    let mut endless = connect(redtape.metrics_port);
    endless.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
    let before = redtape.resident_bytes();
    pour(&mut endless, &[b'x'; 4096], 50 * MIB);
    endless.set_nonblocking(false).unwrap();
    assert!(!String::from_utf8_lossy(&until_closed(&mut endless)).contains("200 OK"));
    assert!(redtape.resident_bytes() < before + 8 * MIB);
    answered(&redtape);
}

#[test]
fn all_clients_together_hold_no_more_than_client_memory() {
    let (journal, server) = (Dir::new("journal"), Server::start());
    // In the base, so that the stream does not carry them.
    server.conn().must(&args!["SET", "big", "z".repeat(100 * MIB)]);
    server.conn().must(&args!["SET", "small", "y".repeat(4 * MIB)]);
    let redtape = Redtape::start(&server.url(), journal.path(), &["--client-memory", "128mb", "--workers", "3"]);
    let mut conn = Conn::open(&redtape.url()).unwrap();
    longest_ping(&mut conn, 20);
    let before = redtape.resident_bytes();
    // A client that holds some and is not the largest.
    let mut small = deaf_client(&redtape, "small");
    let (mut deaf, mut most) = (Vec::new(), 0);
    for _ in 0..8 {
        deaf.push(deaf_client(&redtape, "big"));
        let begun = Instant::now();
        // Long enough for its reply to come by a shared connection: on one of its own it would only be held back.
        while begun.elapsed() < Duration::from_millis(800) {
            longest_ping(&mut conn, 1);
            most = most.max(redtape.resident_bytes());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let grown = most.saturating_sub(before);
    assert!(grown < 128 * MIB + 64 * MIB, "{} MiB", grown / MIB);
    let evicted = redtape.metric(r#"redtape_errors_total{kind="client_memory"}"#).unwrap();
    println!("{} MiB at most, {evicted} clients disconnected", grown / MIB);
    assert!(evicted >= 1.0, "{evicted} clients were disconnected");
    redtape.wait_said("exceed client-memory");
    assert!(redtape.metric("redtape_client_memory_bytes").unwrap() <= (128 * MIB) as f64);
    // The small one was never the largest: it gets all of its reply.
    small.set_nonblocking(false).unwrap();
    let mut reply = vec![0; 4 * MIB + "$4194304\r\n\r\n".len()];
    small.read_exact(&mut reply).unwrap();
    drop(deaf);
    wait_for("all of it given back", Duration::from_secs(10), || {
        (redtape.metric("redtape_client_memory_bytes")? < MIB as f64).then_some(())
    });
}

/// A client on a shared connection that asks for a key and does not read.
fn deaf_client(redtape: &Redtape, key: &str) -> TcpStream {
    let mut client = connect(redtape.port);
    for _ in 0..3 {
        client.write_all(b"PING\r\n").unwrap();
        client.read_exact(&mut [0; 7]).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    client.write_all(format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).as_bytes()).unwrap();
    client
}
