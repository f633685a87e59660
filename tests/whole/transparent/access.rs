//! Who may do what, and what is said to those who may not or cannot speak: the same as without the proxy.

use crate::harness::conn::{Value, text};
use crate::harness::{Args, Conn, Dir, Redtape, Server};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A server, and its like behind redtape.
pub struct Pair {
    pub direct: Server,
    pub behind: Server,
    pub redtape: Redtape,
    _journal: Dir,
}

impl Pair {
    /// `password`: of the default user.
    pub fn start(sharing: &str, password: Option<&str>) -> Self {
        let (direct, behind) = (Server::start(), Server::start());
        let journal = Dir::new("journal");
        let mut url = behind.url();
        if let Some(password) = password {
            for server in [&direct, &behind] {
                server.conn().must(&args!["CONFIG", "SET", "requirepass", password]);
            }
            url = format!("redis://:{password}@127.0.0.1:{}", behind.port);
        }
        let redtape = Redtape::start(&url, journal.path(), super::flags(sharing));
        Self { direct, behind, redtape, _journal: journal }
    }

    fn clients(&self) -> [Conn; 2] {
        [self.direct.conn(), Conn::open(&self.redtape.url()).unwrap()]
    }
}

/// All that comes until the server closes, or says nothing for a while; and whether it closed.
pub fn exchange(port: u16, sent: &[u8], quiet: Duration) -> (String, bool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(quiet)).unwrap();
    stream.write_all(sent).unwrap();
    let mut got = Vec::new();
    let closed = !matches!(stream.read_to_end(&mut got), Err(e) if e.kind() == ErrorKind::WouldBlock);
    (got.escape_ascii().to_string(), closed)
}

fn resp(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    Args(args.iter().map(|a| a.to_vec()).collect()).pack(&mut out);
    out
}

pub fn strangers_get_little(sharing: &str) {
    let pair = Pair::start(sharing, Some("sesame"));
    // Those who said the password work beside the strangers, all the time.
    let mut friends = [pair.direct.conn(), Conn::open(&pair.redtape.url()).unwrap()];
    for friend in &mut friends {
        friend.must(&args!["AUTH", "sesame"]);
        friend.must(&args!["SET", "k", "secret"]);
    }
    let many = [b"MGET".as_slice(), b"k", b"k", b"k", b"k", b"k", b"k", b"k", b"k", b"k", b"k"];
    let long = vec![b'x'; 16_385];
    let conversations: Vec<(&str, Vec<u8>)> = vec![
        ("a request", resp(&[b"GET", b"k"])),
        ("ten arguments", resp(&many[..10])),
        ("eleven arguments", resp(&many)),
        ("a long argument", resp(&[b"SET", b"k", &long])),
        ("the longest argument", resp(&[b"SET", b"k", &long[1..]])),
        ("eleven behind a good one", [resp(&[b"GET", b"k"]), resp(&many)].concat()),
        ("all kinds", b"PING\r\nMULTI\r\nGET k\r\nEXEC\r\nSUBSCRIBE c\r\nHELLO 3\r\nCLIENT ID\r\nEVAL x 0\r\nNOSUCH\r\nRESET\r\nGET k\r\n".to_vec()),
        ("a wrong password", b"AUTH open\r\nGET k\r\nHELLO 3 AUTH default open\r\nGET k\r\nAUTH a b c\r\nGET k\r\n".to_vec()),
        ("the password, and back", b"AUTH sesame\r\nGET k\r\nAUTH wrong\r\nGET k\r\nRESET\r\nGET k\r\n".to_vec()),
        ("the password, then as much as one likes", [b"AUTH sesame\r\n".to_vec(), resp(&many)].concat()),
        ("QUIT", b"QUIT\r\nGET k\r\n".to_vec()),
        ("nothing of an EXEC", b"EXEC\r\nDISCARD\r\nUNWATCH\r\nGET k\r\n".to_vec()),
    ];
    for (what, sent) in &conversations {
        let quiet = Duration::from_millis(300);
        let want = exchange(pair.direct.port, sent, quiet);
        let got = exchange(pair.redtape.port, sent, quiet);
        assert_eq!(got, want, "{what}");
        for friend in &mut friends {
            assert_eq!(text(&friend.must(&args!["GET", "k"])), "secret", "{what}");
        }
    }
    // However often they ask while friends do: never a byte of data.
    let mut stranger = Conn::open(&pair.redtape.url()).unwrap();
    for _ in 0..300 {
        let batch = vec![args!["GET", "k"]; 3];
        friends[1].send(&resp(&[b"GET", b"k"])).unwrap();
        for reply in stranger.pipeline(&batch).unwrap() {
            assert!(matches!(&reply, Value::Error(e) if e.starts_with("NOAUTH")), "{reply:?}");
        }
        assert_eq!(text(&friends[1].reply().unwrap()), "secret");
    }
}

/// What is no request, alone and behind requests that change how the connection speaks.
pub fn protocol_errors(sharing: &str, before: &[&[u8]], garbage: &[&[u8]]) {
    let pair = Pair::start(sharing, None);
    for garbage in garbage {
        for before in before {
            // The id in HELLO's reply is the only thing that may differ.
            let without_id = |(text, closed): (String, bool)| {
                let (head, tail) = text.split_once("id\\r\\n:").unwrap_or((&text, ""));
                (head.to_owned(), tail.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned(), closed)
            };
            let sent = [*before, *garbage].concat();
            // One that is told nothing is not even told that it is over. The others are, at once: however busy the machine
            // is, they are waited for.
            let silent = before.starts_with(b"CLIENT REPLY OFF");
            let quiet = if silent { Duration::from_millis(300) } else { Duration::from_secs(10) };
            let want = without_id(exchange(pair.direct.port, &sent, quiet));
            let got = without_id(exchange(pair.redtape.port, &sent, quiet));
            assert!(want.2 || silent, "the server puts up with {:?}", sent.escape_ascii().to_string());
            assert_eq!(got, want, "{:?}", sent.escape_ascii().to_string());
        }
    }
    let mut clients = pair.clients();
    let values: Vec<Value> = clients.iter_mut().map(|c| c.must(&args!["GET", "a"])).collect();
    assert_eq!(values[0], values[1]);
}

/// A user changes while clients are connected as that user.
pub fn users_change(sharing: &str) {
    let pair = Pair::start(sharing, None);
    let mut admins = [pair.direct.conn(), pair.behind.conn()];
    let mut on_both = |command: Args| admins.iter_mut().for_each(|a| drop(a.must(&command)));
    on_both(args!["ACL", "SETUSER", "ann", "on", ">one", "~*", "&*", "+@all"]);
    on_both(args!["SET", "k", "v"]);
    on_both(args!["SET", "x", "v"]);
    let mut sessions: Vec<[Conn; 2]> = (0..6).map(|_| pair.clients()).collect();
    for (n, [direct, proxied]) in sessions.iter_mut().enumerate() {
        for conn in [direct, proxied] {
            conn.must(&args!["AUTH", "ann", "one"]);
            if n == 1 {
                conn.must(&args!["HELLO", 3]);
            }
            if n == 2 {
                conn.must(&args!["SELECT", 1]);
            }
            if n == 3 {
                conn.must(&args!["SUBSCRIBE", "c"]);
            }
        }
    }
    let asked =
        [args!["GET", "k"], args!["GET", "x"], args!["SET", "x", 1], args!["ACL", "WHOAMI"], args!["PUBLISH", "c", 1]];
    // Those who are connected, the one who subscribes aside.
    let compare = |after: &str, sessions: &mut Vec<[Conn; 2]>| {
        let mut seen = Vec::new();
        for (n, [direct, proxied]) in sessions.iter_mut().enumerate().filter(|(n, _)| *n != 3) {
            for command in &asked {
                let (want, got) = (direct.call(command), proxied.call(command));
                let (want, got) = (want.map_err(|_| "closed"), got.map_err(|_| "closed"));
                assert_eq!(got, want, "client {n} after {after}: {}", crate::harness::conn::show(command));
                seen.push(got);
            }
        }
        seen
    };
    let refused = |seen: &[Result<Value, &str>]| {
        seen.iter().filter(|v| matches!(v, Ok(Value::Error(e)) if e.starts_with("NOPERM"))).count()
    };
    // Who comes now, with the first password and with the second.
    let newcomers = |after: &str| {
        let mut seen = Vec::new();
        for password in ["one", "two", "guess"] {
            let [mut direct, mut proxied] = pair.clients();
            for command in [args!["AUTH", "ann", password], args!["ACL", "WHOAMI"], args!["GET", "k"]] {
                let (want, got) = (direct.call(&command).unwrap(), proxied.call(&command).unwrap());
                assert_eq!(got, want, "a newcomer after {after}: {}", crate::harness::conn::show(&command));
                seen.push(matches!(got, Value::Error(_)));
            }
        }
        [seen[0], seen[3], seen[6]]
    };
    assert_eq!(refused(&compare("the login", &mut sessions)), 0);
    assert_eq!(newcomers("the login"), [false, true, true]);
    on_both(args!["ACL", "SETUSER", "ann", "-get"]);
    assert_eq!(refused(&compare("-get", &mut sessions)), 10);
    on_both(args!["ACL", "SETUSER", "ann", "+get", "resetkeys", "~x*"]);
    assert_eq!(refused(&compare("fewer keys", &mut sessions)), 5);
    on_both(args!["ACL", "SETUSER", "ann", "~*", "-publish"]);
    assert_eq!(refused(&compare("-publish", &mut sessions)), 5);
    on_both(args!["ACL", "SETUSER", "ann", "allcommands", "resetpass", ">two"]);
    compare("a new password", &mut sessions);
    assert_eq!(newcomers("a new password"), [true, false, true]);
    on_both(args!["ACL", "SETUSER", "ann", "off"]);
    compare("off", &mut sessions);
    assert_eq!(newcomers("off"), [true, true, true]);
    on_both(args!["ACL", "SETUSER", "ann", "on", "nopass"]);
    compare("nopass", &mut sessions);
    assert_eq!(newcomers("nopass"), [false, false, false]);
    on_both(args!["ACL", "SETUSER", "ann", "resetpass", ">one"]);
    // A subscriber who loses the channel is closed.
    on_both(args!["ACL", "SETUSER", "ann", "resetchannels"]);
    let [direct, proxied] = &mut sessions[3];
    for conn in [direct, proxied] {
        // Publications of before, then the end.
        while let Ok(message) = conn.reply() {
            assert!(matches!(message, Value::Array(_)), "{message:?}");
        }
    }
    compare("no channels", &mut sessions);
    on_both(args!["ACL", "DELUSER", "ann"]);
    let seen = compare("DELUSER", &mut sessions);
    assert!(seen.iter().all(Result::is_err), "somebody goes on as a user who is no more: {seen:?}");
    assert_eq!(newcomers("DELUSER"), [true, true, true]);
}

/// What a MONITOR sees of others, addresses aside.
pub fn monitors_see_the_same(sharing: &str) {
    let pair = Pair::start(sharing, None);
    let seen: Vec<Vec<String>> = pair
        .clients()
        .into_iter()
        .zip(pair.clients())
        .map(|(mut monitor, mut other)| {
            monitor.must(&args!["MONITOR"]);
            for n in 0..5 {
                other.must(&args!["SET", format!("mark{n}"), "a b\r\n\""]);
                other.must(&args!["SELECT", n]);
                other.must(&args!["EVAL", "return redis.call('GET', KEYS[1])", 1, "mark"]);
            }
            other.must(&args!["GET", "mark-last"]);
            let mut lines = Vec::new();
            while !lines.last().is_some_and(|l: &String| l.contains("mark-last")) {
                let line = text(&monitor.reply().expect("a line"));
                if line.contains("mark") {
                    // 1339518083.107412 [0 127.0.0.1:60866] "keys" "*"
                    let (head, command) = line.split_once("] ").expect("a client");
                    let db = head.split(['[', ' ']).nth(2).expect("a database");
                    let who = if head.ends_with("lua") { "lua" } else { "client" };
                    lines.push(format!("{db} {who} {command}"));
                }
            }
            // RESET ends it.
            let mut after = monitor.call(&args!["RESET"]).unwrap();
            while !matches!(&after, Value::Text(t) if t == "RESET") {
                after = monitor.reply().expect("the reply to RESET");
            }
            assert_eq!(monitor.must(&args!["ECHO", "x"]), Value::Bytes(b"x".to_vec()));
            lines
        })
        .collect();
    assert_eq!(seen[1], seen[0]);
    assert!(seen[0].len() >= 11, "{:?}", seen[0]);
}

/// Requests behind one that blocks wait for it, and come in their order.
pub fn requests_behind_a_blocked_one(sharing: &str) {
    let pair = Pair::start(sharing, None);
    let sent = b"SELECT 1\r\nBLPOP q 0\r\nSELECT 0\r\nINCR n\r\nMULTI\r\nINCR n\r\nEXEC\r\nBLPOP q 0\r\nINCR n\r\nGET none\r\n";
    let seen: Vec<Vec<Value>> = pair
        .clients()
        .into_iter()
        .zip([&pair.direct, &pair.behind])
        .map(|(mut waiting, server)| {
            waiting.send(sent).unwrap();
            let mut pushing = server.conn();
            for db in [1, 0] {
                std::thread::sleep(Duration::from_millis(50));
                pushing.must(&args!["SELECT", db]);
                pushing.must(&args!["RPUSH", "q", format!("job in {db}")]);
            }
            (0..10).map(|_| waiting.reply().expect("a reply")).collect()
        })
        .collect();
    assert_eq!(seen[1], seen[0]);
    assert_eq!(seen[0][8], Value::Int(3));
}
