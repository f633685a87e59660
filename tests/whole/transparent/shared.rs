//! What shared connections must not let through: one client's trouble to another, or redtape's own doings to the server's logs.

use super::access::Pair;
use crate::harness::conn::{Value, int, items, text};
use crate::harness::server::Version;
use crate::harness::{Conn, Dir, Redtape, Relay, Server, wait_for};
use std::time::{Duration, Instant};

/// Clients behind redtape that work by shared connections, for reads and for writes.
fn sharing_clients<const N: usize>(pair: &Pair, login: Option<(&str, &str)>) -> [Conn; N] {
    let mut clients: [Conn; N] = std::array::from_fn(|_| Conn::open(&pair.redtape.url()).unwrap());
    for conn in &mut clients {
        if let Some((user, password)) = login {
            conn.must(&args!["AUTH", user, password]);
        }
    }
    wait_for("shared connections", Duration::from_secs(10), || {
        for conn in &mut clients {
            conn.must(&args!["SET", "k", "v"]);
            conn.must(&args!["GET", "k"]);
        }
        (pair.redtape.metric("redtape_lanes") >= Some(2.0)).then_some(())
    });
    for conn in &mut clients {
        conn.must(&args!["SET", "k", "v"]);
        conn.must(&args!["GET", "k"]);
    }
    clients
}

/// The server pauses writes, and redtape did not see why.
pub fn reads_pass_paused_writes() {
    if !Version::tested().at_least((6, 2), (0, 0)) {
        return;
    }
    let pair = Pair::start("auto", None);
    let [mut writer, mut reader, mut both] = sharing_clients(&pair, None);
    let mut admin = pair.behind.conn();
    for round in 0..5 {
        let paused = Duration::from_millis(800);
        admin.must(&args!["CLIENT", "PAUSE", paused.as_millis() as u64, "WRITE"]);
        let began = Instant::now();
        // All at once, so that nobody knows of a stalled connection yet.
        writer.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nw\r\n").unwrap();
        assert_eq!(text(&reader.must(&args!["GET", "k"])), if round == 0 { "v" } else { "b" });
        assert!(began.elapsed() < paused / 2, "a read waited for another client's write: {:?}", began.elapsed());
        // Behind its own write, a read waits as it would without redtape.
        both.send(
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nb\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        )
        .unwrap();
        both.reply().unwrap();
        assert!(began.elapsed() < paused / 2, "a read waited for the write behind it: {:?}", began.elapsed());
        assert_eq!(both.reply().unwrap(), Value::Text("OK".to_owned()));
        assert!(began.elapsed() >= paused - Duration::from_millis(50), "{:?}", began.elapsed());
        assert_eq!(text(&both.reply().unwrap()), "b", "a session's read does not pass its write");
        writer.reply().unwrap();
        writer.must(&args!["SET", "k", "b"]);
    }
}

/// With a `timeout`, clients who work are not cut, however they work, and those who rest are. It may be set at any time.
pub fn the_servers_timeout_holds(sharing: &str, seconds: u64) {
    let pair = Pair::start(sharing, None);
    let [mut reads, mut writes, mut rests] = sharing_clients(&pair, None);
    let mut direct = pair.direct.conn();
    for server in [&pair.direct, &pair.behind] {
        server.conn().must(&args!["CONFIG", "SET", "timeout", seconds]);
    }
    rests.must(&args!["GET", "k"]);
    direct.must(&args!["PING"]);
    let until = Instant::now() + Duration::from_secs(2 * seconds + 3);
    while Instant::now() < until {
        reads.must(&args!["GET", "k"]);
        writes.must(&args!["SET", "k", "v"]);
        std::thread::sleep(Duration::from_millis(100));
    }
    for (who, conn) in [("directly", &mut direct), ("behind redtape", &mut rests)] {
        assert!(conn.call(&args!["GET", "k"]).is_err(), "a client that rested {who} is still there");
    }
}

/// Clients that always have requests in flight, or one that waits for long, are no idle clients either.
pub fn the_servers_timeout_spares_those_who_always_have_requests_in_flight() {
    let pair = Pair::start("auto", None);
    let [mut tight, mut pipelines, mut waits] = sharing_clients(&pair, None);
    pair.behind.conn().must(&args!["CONFIG", "SET", "timeout", 1]);
    let until = Instant::now() + Duration::from_secs(6);
    let get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    let tight = std::thread::spawn(move || {
        while Instant::now() < until {
            tight.call(&args!["GET", "k"]).map_err(|e| format!("a tight loop was cut: {e}"))?;
        }
        Ok::<(), String>(())
    });
    let pipelines = std::thread::spawn(move || {
        pipelines.send(&get.repeat(64)).unwrap();
        while Instant::now() < until {
            pipelines.send(get).map_err(|e| format!("a pipelining client was cut: {e}"))?;
            pipelines.reply().map_err(|e| format!("a pipelining client was cut: {e}"))?;
        }
        Ok::<(), String>(())
    });
    if Version::tested().at_least((6, 2), (0, 0)) {
        pair.behind.conn().must(&args!["CLIENT", "PAUSE", 4500, "WRITE"]);
        waits.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nw\r\n").unwrap();
        let reply = waits.reply().expect("a write that waited through a pause was cut");
        assert_eq!(reply, Value::Text("OK".to_owned()));
        waits.must(&args!["GET", "k"]);
    }
    for client in [tight, pipelines] {
        assert_eq!(client.join().unwrap(), Ok(()));
    }
    assert!(pair.redtape.metric("redtape_lanes") >= Some(1.0));
}

/// While all clients are paused, and redtape did not see why, the server still refuses what a user may not do: that is no
/// sign that it answers others.
pub fn refusals_during_a_pause_cut_nobody() {
    let pair = Pair::start("auto", None);
    let [mut reader] = sharing_clients(&pair, None);
    let mut admin = pair.behind.conn();
    admin.must(&args!["ACL", "SETUSER", "weak", "on", ">pw", "+ping"]);
    let mut weak = Conn::open(&pair.redtape.url()).unwrap();
    weak.must(&args!["AUTH", "weak", "pw"]);
    let paused = Duration::from_secs(14);
    admin.must(&args!["CLIENT", "PAUSE", paused.as_millis() as u64, "ALL"]);
    let began = Instant::now();
    reader.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").unwrap();
    while began.elapsed() < paused - Duration::from_secs(1) {
        assert!(matches!(weak.call(&args!["GET", "k"]), Ok(Value::Error(_))));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(text(&reader.reply().expect("a read that waited through a pause was cut")), "v");
}

/// A write that waits on a shared connection while the server pauses writes is answered during a shutdown of redtape: the
/// connection is not taken for stalled sooner than otherwise.
pub fn a_paused_write_is_drained() {
    if !Version::tested().at_least((6, 2), (0, 0)) {
        return;
    }
    let mut pair = Pair::start("auto", None);
    let [mut writer] = sharing_clients(&pair, None);
    pair.behind.conn().must(&args!["CLIENT", "PAUSE", 4500, "WRITE"]);
    writer.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nw\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let waiting = std::thread::spawn(move || writer.reply());
    assert_eq!(pair.redtape.terminate(), Some(0));
    let reply = waiting.join().unwrap().expect("a write that waited through a pause was cut");
    assert_eq!(reply, Value::Text("OK".to_owned()));
}

/// What the server's logs and counters have of refusals.
fn refusals(conn: &mut Conn) -> Vec<String> {
    let mut seen: Vec<String> = items(&conn.must(&args!["ACL", "LOG"]))
        .iter()
        .map(|entry| {
            let fields: Vec<String> = items(entry).iter().take(10).map(|v| format!("{v:?}")).collect();
            fields.join(" ").split("age-seconds").next().unwrap_or_default().to_owned()
        })
        .collect();
    if Version::tested().at_least((7, 2), (0, 0)) {
        let info = text(&conn.must(&args!["INFO", "stats"]));
        seen.extend(info.lines().filter(|l| l.starts_with("acl_access_denied")).map(str::to_owned));
    }
    if Version::tested().at_least((6, 2), (0, 0)) {
        let info = text(&conn.must(&args!["INFO", "errorstats"]));
        seen.extend(info.lines().filter(|l| l.contains("NOPERM") || l.contains("WRONGPASS")).map(str::to_owned));
    }
    seen
}

/// Clients with few rights, who do nothing that is refused: the server has nothing to note.
pub fn nothing_is_refused_that_no_client_asked_for() {
    let pair = Pair::start("auto", None);
    let mut admin = pair.behind.conn();
    admin.must(&args!["ACL", "SETUSER", "app", "on", ">pw", "~*", "+set", "+get", "+wait", "+select"]);
    let mut clients: [Conn; 3] = sharing_clients(&pair, Some(("app", "pw")));
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        for (n, conn) in clients.iter_mut().enumerate() {
            conn.must(&args!["SET", "k", n]);
            conn.must(&args!["GET", "k"]);
            if n == 2 {
                conn.must(&args!["SELECT", 3]);
            }
            if n == 1 {
                conn.must(&args!["WAIT", 0, 10]);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(pair.redtape.metric("redtape_lanes") >= Some(3.0));
    assert_eq!(refusals(&mut admin), refusals(&mut pair.direct.conn()));
    assert!(items(&admin.must(&args!["ACL", "LOG"])).is_empty());
}

/// redtape's own user with the least rights: nothing is refused to it, either, if it may ask for the server's commands.
pub fn the_least_rights_are_enough() {
    let server = Server::start();
    let journal = Dir::new("journal");
    let mut admin = server.conn();
    admin.must(&args!["ACL", "SETUSER", "redtape", "on", ">pw", "+psync", "+replconf", "+role", "+info", "+command"]);
    let url = format!("redis://redtape:pw@127.0.0.1:{}", server.port);
    let mut redtape = Redtape::start(&url, journal.path(), &[]);
    Conn::open(&redtape.url()).unwrap().must(&args!["SET", "k", 1]);
    redtape.wait_caught_up();
    assert_eq!(items(&admin.must(&args!["ACL", "LOG"])), []);
}

/// A password that the server refused from redtape is not tried again and again.
pub fn a_refused_password_is_not_tried_again() {
    let pair = Pair::start("auto", None);
    let mut admin = pair.behind.conn();
    admin.must(&args!["ACL", "SETUSER", "app", "on", ">old", "~*", "+@all"]);
    let mut conn = Conn::open(&pair.redtape.url()).unwrap();
    conn.must(&args!["AUTH", "app", "old"]);
    // Who is logged in stays so; what is opened from here on is refused.
    admin.must(&args!["ACL", "SETUSER", "app", "resetpass", ">new"]);
    let until = Instant::now() + Duration::from_secs(13);
    while Instant::now() < until {
        conn.must(&args!["SET", "k", 1]);
        conn.must(&args!["GET", "k"]);
        // What succeeds without a password proves none.
        conn.must(&args!["SELECT", 0]);
        conn.must(&args!["CLIENT", "SETNAME", "app"]);
        conn.must(&args!["MULTI"]);
        conn.must(&args!["GET", "k"]);
        conn.must(&args!["EXEC"]);
        conn.must(&args!["GET", "k"]);
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = items(&admin.must(&args!["ACL", "LOG"]));
    let count: i64 = log.iter().map(|entry| int(&items(entry)[1])).sum();
    assert!(count <= 1, "the refused password was tried {count} times: {log:?}");
    // Who proves the new one shares again.
    conn.must(&args!["AUTH", "app", "new"]);
    wait_for("a shared connection", Duration::from_secs(10), || {
        conn.must(&args!["GET", "k"]);
        (pair.redtape.metric("redtape_lanes") >= Some(1.0)).then_some(())
    });
}

/// A server behind a relay, and redtape in front.
struct Relayed {
    server: Server,
    relay: Relay,
    redtape: Redtape,
    _journal: Dir,
}

impl Relayed {
    fn start() -> Self {
        let (server, journal) = (Server::start(), Dir::new("journal"));
        let relay = Relay::to(server.port);
        let redtape = Redtape::start(&relay.url(), journal.path(), &[]);
        Self { server, relay, redtape, _journal: journal }
    }

    fn sharing_clients<const N: usize>(&self) -> [Conn; N] {
        let mut clients: [Conn; N] = std::array::from_fn(|_| Conn::open(&self.redtape.url()).unwrap());
        wait_for("shared connections", Duration::from_secs(10), || {
            for conn in &mut clients {
                conn.must(&args!["SET", "k", "v"]);
                conn.must(&args!["GET", "k"]);
            }
            (self.relay.shared() >= 2).then_some(())
        });
        // By now the server has let them in.
        std::thread::sleep(Duration::from_millis(300));
        for conn in &mut clients {
            conn.must(&args!["SET", "k", "v"]);
            conn.must(&args!["GET", "k"]);
        }
        clients
    }

    fn cuts(&self) -> f64 {
        self.redtape.metric(r#"redtape_errors_total{kind="shared_stalled"}"#).unwrap_or(0.0)
    }
}

/// One connection to the server carries nothing any more while others do: those who wait on it are let go, and nobody else.
pub fn a_shared_connection_that_stalls_is_cut() {
    // By others' requests, and where nobody else asks anything.
    for (request, others) in [("*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n", true), ("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", false)] {
        let world = Relayed::start();
        let [mut stuck, mut other] = world.sharing_clients();
        assert!(world.relay.deafen_shared() >= 2);
        let began = Instant::now();
        stuck.send(request.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        while others && world.cuts() == 0.0 {
            let asked = Instant::now();
            other.must(&args!["SET", "k", "w"]);
            assert!(asked.elapsed() < Duration::from_secs(1), "others are held up: {:?}", asked.elapsed());
            assert!(began.elapsed() < Duration::from_secs(30), "it is not cut");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(stuck.reply().is_err(), "what was asked for is not known to have run");
        assert!(
            began.elapsed() > Duration::from_secs(5) && began.elapsed() < Duration::from_secs(30),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(world.cuts(), 1.0);
        assert_eq!(world.server.conn().must(&args!["EXISTS", "n"]), Value::Int(0), "it was sent again");
    }
}

/// A server that stands still answers nobody, and nobody is disconnected for it.
pub fn a_stopped_server_costs_no_connection() {
    let world = Relayed::start();
    let mut clients: [Conn; 4] = world.sharing_clients();
    let frozen = world.server.freeze();
    for (n, conn) in clients.iter_mut().enumerate() {
        conn.send(if n % 2 == 0 { b"INCR n\r\n".as_slice() } else { b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" }).unwrap();
    }
    std::thread::sleep(Duration::from_secs(14));
    drop(frozen);
    for conn in &mut clients {
        conn.reply().expect("a reply when it goes on");
        conn.must(&args!["SET", "k", 1]);
    }
    assert_eq!(world.cuts(), 0.0);
}
