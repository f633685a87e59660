//! Whatever happens around them, clients get their own replies, an error or an end: never another's reply, never
//! nothing for good; and afterwards nothing is left of those who went.

use crate::harness::conn::{Value, bytes, items};
use crate::harness::{Args, Conn, Dir, Redtape, Server, env_number, seed, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WAYS: [&str; 2] = ["off", "auto"];
/// Within this time a request has its reply, an error or the end of its connection, also when the server was gone.
const BOUND: Duration = Duration::from_secs(10);

struct Scene {
    server: Server,
    redtape: Redtape,
    _journal: Dir,
}

fn scene(sharing: &str) -> Scene {
    let journal = Dir::new("journal");
    let server = Server::with(&["--hz", "100"]);
    let redtape = Redtape::start(&server.url(), journal.path(), &["--sharing", sharing]);
    Scene { server, redtape, _journal: journal }
}

/// What the clients of a load have seen.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    /// Right ones.
    replies: AtomicU64,
    /// Replies that say that the server is away, or that it failed.
    errors: AtomicU64,
    ends: AtomicU64,
    slowest_ms: AtomicU64,
}

/// Clients whose every reply must carry the mark of its request.
struct Load {
    seen: Arc<Seen>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(redtape: &Redtape, clients: u64, seed: u64) -> Self {
        let seen = Arc::new(Seen::default());
        let threads = (0..clients)
            .map(|n| {
                let (seen, url) = (Arc::clone(&seen), redtape.url());
                std::thread::spawn(move || marked_requests(&url, n, seed, &seen))
            })
            .collect();
        Self { seen, threads }
    }

    fn replies(&self) -> u64 {
        self.seen.replies.load(Ordering::SeqCst)
    }

    /// Waits until every client can have been served again.
    fn goes_on(&self, after: &str) {
        let (before, wanted) = (self.replies(), 50 * self.threads.len() as u64);
        wait_for(&format!("the load to go on after {after}"), BOUND, || {
            (self.replies() > before + wanted).then_some(())
        });
    }

    fn end(self) -> Arc<Seen> {
        self.seen.over.store(true, Ordering::SeqCst);
        let ended = self.threads.into_iter().map(std::thread::JoinHandle::join).filter(Result::is_err).count();
        assert_eq!(ended, 0, "clients had replies that were not theirs, or none (see above)");
        self.seen
    }
}

/// One client: connects again when its connection ends.
fn marked_requests(url: &str, client: u64, seed: u64, seen: &Seen) {
    let mut rng = StdRng::seed_from_u64(seed ^ client << 8);
    let mut n = 0;
    while !seen.over.load(Ordering::SeqCst) {
        let Ok(mut conn) = Conn::open(url) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        if client % 3 == 1 && conn.call(&args!["HELLO", 3]).is_err() {
            continue;
        }
        while !seen.over.load(Ordering::SeqCst) {
            let batch: Vec<Vec<Args>> =
                (0..rng.random_range(1..6)).map(|_| exchange(&mut rng, client, &mut n)).collect();
            let flat: Vec<Args> = batch.iter().flatten().cloned().collect();
            let started = Instant::now();
            let replies = conn.pipeline(&flat);
            let took = started.elapsed();
            seen.slowest_ms.fetch_max(took.as_millis() as u64, Ordering::SeqCst);
            assert!(took < BOUND, "client {client} waited {took:?} for: {flat:?}");
            let Ok(replies) = replies else {
                seen.ends.fetch_add(1, Ordering::SeqCst);
                break;
            };
            let mut at = 0;
            for exchange in batch {
                judge(&exchange, &replies[at..at + exchange.len()], seen);
                at += exchange.len();
            }
        }
    }
}

/// Requests with a mark that nobody else uses; the last argument of the last but EXEC carries it.
fn exchange(rng: &mut StdRng, client: u64, n: &mut u64) -> Vec<Args> {
    *n += 1;
    let mark = format!("mark-{client}-{n}-{}", "x".repeat(rng.random_range(0..200)));
    let key = format!("key-{client}");
    match rng.random_range(0..7) {
        0 => vec![args!["ECHO", mark]],
        1 => vec![args!["SET", key, mark], args!["GET", key]],
        2 => vec![args!["EVAL", "return ARGV[1]", 0, mark]],
        3 => vec![args!["MULTI"], args!["ECHO", mark], args!["INCR", format!("n-{client}")], args!["EXEC"]],
        4 => vec![
            args!["DEL", format!("l-{client}")],
            args!["RPUSH", format!("l-{client}"), mark],
            args!["BLPOP", format!("l-{client}"), 1],
        ],
        5 => vec![args!["SELECT", client % 4], args!["ECHO", mark], args!["SELECT", 0]],
        _ => vec![args!["PING", mark]],
    }
}

fn judge(exchange: &[Args], replies: &[Value], seen: &Seen) {
    let failed = |v: &Value| matches!(v, Value::Error(_));
    if let Some(Value::Error(e)) = replies.iter().find(|r| failed(r)) {
        // Errors of a server that is away or starts: none of them is another's reply.
        let known = [
            "ERR redtape",
            "LOADING",
            "EXECABORT",
            "ERR EXEC without",
            "ERR MULTI",
            "BUSY",
            "ERR Error running",
            "ERR DISCARD",
        ];
        assert!(known.iter().any(|k| e.starts_with(k)), "{exchange:?} was answered {replies:?}");
        seen.errors.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1));
        return;
    }
    let mark = exchange.iter().flat_map(|a| &a.0).find(|a| a.starts_with(b"mark-")).expect("a mark");
    let is_mark = |v: &Value| matches!(v, Value::Bytes(_)) && &bytes(v) == mark;
    let right = match exchange[0].name().as_str() {
        "MULTI" => matches!(&replies[3], Value::Array(v) if is_mark(&v[0]) && matches!(v[1], Value::Int(_))),
        "SET" => matches!(&replies[0], Value::Text(_)) && is_mark(&replies[1]),
        "DEL" => matches!(&replies[1], Value::Int(1)) && is_mark(&items(&replies[2])[1]),
        "SELECT" => matches!(&replies[0], Value::Text(_)) && is_mark(&replies[1]),
        _ => is_mark(&replies[0]),
    };
    seen.replies.fetch_add(replies.len() as u64, Ordering::SeqCst);
    assert!(right, "not its reply: {exchange:?} was answered {replies:?}");
}

fn descriptors(redtape: &Redtape) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", redtape.pid())).unwrap().count()
}

fn server_clients(server: &Server) -> i64 {
    server.conn().info("clients", "connected_clients").parse().unwrap()
}

/// Shared connections to the server may outlive the clients that used them: so many may be there in addition
/// (users, databases and protocols of the load, for each worker).
const LANES: i64 = 32;

/// The clients have gone: so have their descriptors, and their connections to the server.
fn nothing_is_left(s: &Scene, base: (usize, i64)) {
    wait_for("all descriptors and connections to be given back", Duration::from_secs(15), || {
        let (fds, clients) = (descriptors(&s.redtape), server_clients(&s.server));
        let kept = fds <= base.0 + LANES as usize && clients <= base.1 + LANES;
        (kept && s.redtape.metric("redtape_sessions") == Some(0.0)).then_some(())
    });
}

fn base(s: &Scene) -> (usize, i64) {
    (descriptors(&s.redtape), server_clients(&s.server))
}

/// A client that goes without a word, at a bad moment.
fn rude_client(port: u16, rng: &mut StdRng) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let big = format!("*3\r\n$3\r\nSET\r\n$4\r\nrude\r\n$300000\r\n{}\r\n", "y".repeat(300_000)).into_bytes();
    let kinds: [&[u8]; 12] = [
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100\r\nhalf",
        &big[..100_000],
        b"GET big\r\nGET big\r\nGET big\r\n",
        b"*1\r\n:5\r\n",
        b"MULTI\r\nECHO theirs\r\n",
        b"BLPOP nothing 0\r\n",
        b"SUBSCRIBE news\r\n",
        b"CLIENT REPLY OFF\r\nECHO theirs\r\nECHO theirs\r\n",
        b"HELLO 3\r\nCLIENT TRACKING on BCAST\r\nGET big\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"EVAL \"for i=1,300000 do end return 'theirs'\" 0\r\nECHO theirs\r\n",
        b"ECHO theirs\r\nQUIT\r\nECHO theirs\r\n",
    ];
    let _ = stream.write_all(kinds[rng.random_range(0..kinds.len())]);
    match rng.random_range(0..4) {
        0 => {}
        1 => {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read(&mut [0; 100_000]);
        }
        2 => {
            let _ = stream.read(&mut [0; 10]);
        }
        // A reset instead of an end.
        _ => {
            let _ = stream.set_linger_zero();
        }
    }
}

trait LingerZero {
    fn set_linger_zero(&self) -> std::io::Result<()>;
}
impl LingerZero for TcpStream {
    fn set_linger_zero(&self) -> std::io::Result<()> {
        socket2::SockRef::from(self).set_linger(Some(Duration::ZERO))
    }
}

#[test]
fn abrupt_disconnects_do_not_affect_others() {
    let seed = seed();
    for way in WAYS {
        let s = scene(way);
        s.server.conn().must(&args!["SET", "big", "z".repeat(1 << 20)]);
        let base = base(&s);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut resident = Vec::new();
        for _ in 0..env_number("REDTAPE_ROUNDS", 4) {
            let load = Load::start(&s.redtape, 6, rng.random());
            for _ in 0..150 {
                rude_client(s.redtape.port, &mut rng);
            }
            load.goes_on("rude clients");
            let seen = load.end();
            assert_eq!(
                seen.errors.load(Ordering::SeqCst) + seen.ends.load(Ordering::SeqCst),
                0,
                "{way}: others were harmed"
            );
            nothing_is_left(&s, base);
            resident.push(s.redtape.resident_bytes() >> 20);
        }
        println!("{way}: resident MiB after each round: {resident:?}");
        // The first rounds fill what is kept for the next ones.
        assert!(resident[resident.len() - 1] <= resident[1] + 64, "{way}: memory grows: {resident:?}");
    }
}

#[test]
fn a_client_that_never_reads_slows_only_itself() {
    for way in WAYS {
        let s = scene(way);
        s.server.conn().must(&args!["SET", "big", "z".repeat(1 << 20)]);
        let base = base(&s);
        let load = Load::start(&s.redtape, 4, 1);
        let deaf: Vec<TcpStream> = (0..4)
            .map(|_| {
                let mut stream = TcpStream::connect(("127.0.0.1", s.redtape.port)).unwrap();
                stream.set_nonblocking(true).unwrap();
                // 64 MiB of replies, far more than sockets take.
                let _ = stream.write(&b"GET big\r\n".repeat(64));
                stream
            })
            .collect();
        let before = load.replies();
        std::thread::sleep(Duration::from_secs(1));
        load.goes_on("clients that never read");
        println!(
            "{way}: {} replies in that second, {} MiB resident",
            load.replies() - before,
            s.redtape.resident_bytes() >> 20
        );
        assert!(load.replies() - before > 200);
        // Who reads after all has everything, whole.
        let mut late = &deaf[0];
        late.set_nonblocking(false).unwrap();
        late.set_read_timeout(Some(BOUND)).unwrap();
        let value = format!("$1048576\r\n{}\r\n", "z".repeat(1 << 20)).into_bytes();
        let mut got = vec![0; value.len()];
        for n in 0..64 {
            late.read_exact(&mut got).unwrap_or_else(|e| panic!("value {n}: {e}"));
            assert!(got == value, "value {n} is not whole");
        }
        drop(deaf);
        let seen = load.end();
        assert_eq!(seen.errors.load(Ordering::SeqCst) + seen.ends.load(Ordering::SeqCst), 0);
        nothing_is_left(&s, base);
    }
}

#[test]
fn no_client_hangs_when_the_server_stops_or_dies() {
    let seed = seed();
    for way in WAYS {
        let mut s = scene(way);
        let base = base(&s);
        let load = Load::start(&s.redtape, 8, seed);
        load.goes_on("the start");
        for round in 0..env_number("REDTAPE_ROUNDS", 3) {
            let frozen = s.server.freeze();
            std::thread::sleep(Duration::from_millis(300));
            drop(frozen);
            load.goes_on("SIGSTOP and SIGCONT");
            s.server.conn().must(&args!["CLIENT", "PAUSE", 200, if round % 2 == 0 { "ALL" } else { "WRITE" }]);
            load.goes_on("CLIENT PAUSE");
            s.server.restart();
            load.goes_on("a restart");
            s.server.kill9();
            std::thread::sleep(Duration::from_millis(200));
            s.server.restart();
            load.goes_on("an outage");
            // Every connection of redtape to the server is cut, while the server goes on.
            s.server.conn().must(&args!["CLIENT", "KILL", "TYPE", "normal"]);
            load.goes_on("killed connections");
        }
        let seen = load.end();
        let count = |n: &AtomicU64| n.load(Ordering::SeqCst);
        println!(
            "{way}: {} replies, {} errors, {} ends, slowest {} ms",
            count(&seen.replies),
            count(&seen.errors),
            count(&seen.ends),
            count(&seen.slowest_ms)
        );
        assert!(count(&seen.errors) + count(&seen.ends) > 0, "the server never failed anybody");
        s.redtape.wait_streaming();
        nothing_is_left(&s, base);
        // And it serves.
        let mut conn = Conn::open(&s.redtape.url()).unwrap();
        wait_for("service", BOUND, || matches!(conn.call(&args!["SET", "k", 1]), Ok(Value::Text(_))).then_some(()));
    }
}

#[test]
fn a_script_that_runs_long_can_be_killed_from_another_session() {
    for way in WAYS {
        let s = scene(way);
        s.server.conn().must(&args!["CONFIG", "SET", "lua-time-limit", 100]);
        let mut slow = Conn::open(&s.redtape.url()).unwrap();
        let mut others: Vec<Conn> = (0..4).map(|_| Conn::open(&s.redtape.url()).unwrap()).collect();
        others.iter_mut().for_each(|o| drop(o.must(&args!["PING"])));
        slow.send(b"EVAL \"while true do end\" 0\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        assert!(
            matches!(others[0].call(&args!["GET", "k"]).unwrap(), Value::Error(e) if e.starts_with("BUSY")),
            "{way}"
        );
        // One waits for its reply behind the script: the others' SCRIPT KILL must not.
        assert_eq!(others[1].call(&args!["SCRIPT", "KILL"]).unwrap(), Value::Text("OK".to_owned()), "{way}");
        assert!(matches!(slow.reply().unwrap(), Value::Error(e) if e.contains("killed by user")), "{way}");
        assert!(started.elapsed() < Duration::from_secs(2), "{way}: took {:?}", started.elapsed());
        // One that ends by itself: everybody is served then, in order.
        slow.send(b"EVAL \"local t=redis.call('TIME')[1] while redis.call('TIME')[1]-t<2 do end return 'done'\" 0\r\nECHO mine\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(30));
        for (n, other) in others.iter_mut().enumerate() {
            other.send(format!("ECHO other-{n}\r\n").as_bytes()).unwrap();
        }
        assert_eq!(slow.reply().unwrap(), Value::Bytes(b"done".to_vec()));
        assert_eq!(slow.reply().unwrap(), Value::Bytes(b"mine".to_vec()));
        for (n, other) in others.iter_mut().enumerate() {
            let reply = other.reply().unwrap();
            let busy = matches!(&reply, Value::Error(e) if e.starts_with("BUSY"));
            assert!(busy || reply == Value::Bytes(format!("other-{n}").into_bytes()), "{way}: {reply:?}");
            assert_eq!(other.must(&args!["ECHO", n]), Value::Bytes(n.to_string().into_bytes()));
        }
    }
}
