//! Nobody works with another user's rights, and no write stands under another user's name: also where the server reads a
//! request otherwise than byte by byte, where a request is not whole when it is forwarded, where a reply is never seen, and
//! where a name is no text.

use crate::harness::conn::{Value, int, text};
use crate::harness::journal::{self, Group};
use crate::harness::{Args, Conn, Dir, Redtape, Server, wait_for};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A server with users, behind redtape: `default` may do anything, `alice` almost, `bob` little.
struct Scene {
    server: Server,
    redtape: Redtape,
    journal: Dir,
}

impl Scene {
    fn start() -> Self {
        let (server, journal) = (Server::start(), Dir::new("journal"));
        let mut conn = server.conn();
        conn.must(&args!["ACL", "SETUSER", "alice", "on", ">alicepw", "~*", "+@all"]);
        conn.must(&args!["ACL", "SETUSER", "bob", "on", ">bobpw", "~b*", "+@all", "-@dangerous", "+acl|whoami"]);
        conn.must(&args!["SET", "secret", "of alice"]);
        let redtape = Redtape::start(&server.url(), journal.path(), &["--admin-users", "default,alice"]);
        Self { server, redtape, journal }
    }

    fn conn(&self) -> Conn {
        Conn::open(&self.redtape.url()).unwrap()
    }

    /// A client as this user, who works on a shared connection by now, as far as sharing is possible.
    fn client(&self, user: &[u8], password: &str, key: &str) -> Conn {
        let mut conn = self.conn();
        conn.must(&args!["AUTH", user, password]);
        for _ in 0..20 {
            conn.must(&args!["GET", key]);
            std::thread::sleep(Duration::from_millis(2));
        }
        conn
    }

    /// The end: all groups that set this key.
    fn groups(self, key: &str) -> Vec<Group> {
        let sets = |g: &Group| g.records.iter().any(|r| r.args.get(1).is_some_and(|k| k == key.as_bytes()));
        self.all_groups().into_iter().filter(sets).collect()
    }

    /// The end: all groups.
    fn all_groups(mut self) -> Vec<Group> {
        self.redtape.wait_caught_up();
        assert_eq!(self.redtape.terminate(), Some(0));
        journal::cat(self.journal.path())
    }
}

fn is_refused(reply: &Value) -> bool {
    matches!(reply, Value::Error(e) if e.starts_with("NOPERM") || e.starts_with("ERR unknown command"))
}

/// The session is bob to the server: it has bob's rights and is never recorded as anybody else.
#[track_caller]
fn is_bob(scene: Scene, mut conn: Conn) {
    assert_eq!(text(&conn.must(&args!["ACL", "WHOAMI"])), "bob");
    for command in [args!["REDTAPE.MARK", "bobs"], args!["REDTAPE.SNAPSHOT"], args!["GET", "secret"], args!["FLUSHALL"]]
    {
        for _ in 0..3 {
            let reply = conn.call(&command).unwrap();
            assert!(is_refused(&reply), "{command:?}: {reply:?}");
        }
    }
    conn.must(&args!["SET", "b", 1]);
    let mut control = scene.server.conn();
    assert_eq!(text(&control.must(&args!["GET", "secret"])), "of alice");
    let groups = scene.groups("b");
    assert_eq!(groups.len(), 1, "{groups:?}");
    let origin = &groups[0].origin;
    assert!(origin.kind == "unknown" || origin.user == "bob", "{origin:?}");
}

#[test]
fn an_option_is_the_servers_option_up_to_a_nul() {
    for hello in [args!["HELLO", 3, "AUTH\0", "bob", "bobpw"], args!["HELLO", 2, "auth\0anything", "bob", "bobpw"]] {
        let scene = Scene::start();
        let mut conn = scene.client(b"alice", "alicepw", "secret");
        conn.must(&hello);
        let is_known = conn.call(&args!["REDTAPE.MARK", "x"]).unwrap();
        assert!(is_refused(&is_known), "{is_known:?}");
        is_bob(scene, conn);
    }
}

/// Servers before 7.2 take the users of a `HELLO` in turn: one that is refused does not undo what the one before it changed.
#[test]
fn a_hello_that_is_refused_may_have_changed_the_user() {
    let scene = Scene::start();
    let hello = args!["HELLO", 2, "AUTH", "bob", "bobpw", "AUTH", "alice", "wrong"];
    let mut direct = scene.server.conn();
    direct.must(&args!["AUTH", "alice", "alicepw"]);
    assert!(matches!(direct.call(&hello).unwrap(), Value::Error(_)));
    let user = text(&direct.must(&args!["ACL", "WHOAMI"]));
    let mut conn = scene.client(b"alice", "alicepw", "secret");
    assert!(matches!(conn.call(&hello).unwrap(), Value::Error(_)));
    assert_eq!(text(&conn.must(&args!["ACL", "WHOAMI"])), user);
    if user == "bob" {
        is_bob(scene, conn);
    }
}

/// The server finds a command by a hash of the whole name, and compares as a C string.
#[test]
fn a_command_name_with_a_nul_may_be_any_command() {
    let scene = Scene::start();
    let mut conn = scene.client(b"alice", "alicepw", "secret");
    let found = (0..20_000).find(|n| {
        let reply = conn.call(&args!["AUTH", "bob", "bobpw"].named(&format!("AUTH\0{n}"))).unwrap();
        reply == Value::Text("OK".to_owned())
    });
    assert!(found.is_some(), "the server has never taken such a name for AUTH");
    is_bob(scene, conn);
}

trait Named {
    fn named(self, name: &str) -> Self;
}

impl Named for Args {
    fn named(mut self, name: &str) -> Self {
        self.0[0] = name.as_bytes().to_vec();
        self
    }
}

/// It is longer than what redtape waits for: what decides comes when the beginning is forwarded already.
#[test]
fn a_request_that_is_not_whole_decides_nothing() {
    let name = "n".repeat(70_000);
    for hello in [
        args!["HELLO", 3, "SETNAME", name, "AUTH", "bob", "bobpw"],
        args!["HELLO", 2, "AUTH", "bob", "bobpw", "SETNAME", name],
    ] {
        let scene = Scene::start();
        let mut conn = scene.client(b"alice", "alicepw", "secret");
        conn.must(&hello);
        is_bob(scene, conn);
    }
}

#[test]
fn an_argument_with_a_nul_blocks_no_other_session() {
    let scene = Scene::start();
    let mut victims: Vec<Conn> = (0..4).map(|_| scene.client(b"alice", "alicepw", "secret")).collect();
    let block = args!["XREAD", "BLOCK\0", 0, "STREAMS", "s", "$"];
    let group = args!["XREADGROUP", "GROUP", "g", "c", "block\0x", 0, "STREAMS", "t", ">"];
    victims[0].must(&args!["XGROUP", "CREATE", "t", "g", "$", "MKSTREAM"]);
    let attackers: Vec<Conn> = [block, group]
        .iter()
        .map(|command| {
            let mut attacker = scene.client(b"alice", "alicepw", "secret");
            let mut bytes = Vec::new();
            command.pack(&mut bytes);
            attacker.send(&bytes).unwrap();
            attacker
        })
        .collect();
    wait_for("two blocked clients", Duration::from_secs(5), || {
        (scene.server.conn().info("clients", "blocked_clients") == "2").then_some(())
    });
    drop(attackers);
    let started = std::time::Instant::now();
    for victim in &mut victims {
        for _ in 0..20 {
            assert_eq!(text(&victim.must(&args!["GET", "secret"])), "of alice");
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// The client leaves by a reset: what is not read when it goes makes the kernel send one.
#[test]
fn a_write_after_an_unanswered_login_has_no_user() {
    const TRIES: usize = 60;
    let scene = Scene::start();
    let mut sent = Vec::new();
    for n in 0..TRIES {
        let mut stream = TcpStream::connect(("127.0.0.1", scene.redtape.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(b"PING\r\nPING\r\n").unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
        let mut packet = Vec::new();
        args!["AUTH", "alice", "wrong"].pack(&mut packet);
        args!["SET", format!("k{n}"), "v"].pack(&mut packet);
        stream.write_all(&packet).unwrap();
        std::thread::sleep(Duration::from_micros(20 * (n as u64 % 10)));
        drop(stream);
        sent.push(format!("k{n}"));
    }
    let Scene { server, mut redtape, journal } = scene;
    std::thread::sleep(Duration::from_millis(300));
    redtape.wait_caught_up();
    drop(server);
    assert_eq!(redtape.terminate(), Some(0));
    let groups = journal::cat(journal.path());
    let mut found = 0;
    for group in &groups {
        assert_ne!(group.origin.user, "alice", "{group:?}");
        found += usize::from(group.records.iter().any(|r| r.args.get(1).is_some_and(|k| k.starts_with(b"k"))));
    }
    assert!(found > 0, "none of {TRIES} writes has run");
}

/// Their names differ only in bytes that are no text; their passwords do not.
#[test]
fn users_whose_names_are_no_text_are_told_apart() {
    let scene = Scene::start();
    let mut control = scene.server.conn();
    for (user, keys) in [(&b"\xff"[..], "~x*"), (b"\xfe", "~y*"), ("\u{fffd}".as_bytes(), "~z*")] {
        control.must(&args!["ACL", "SETUSER", user, "on", ">pw", keys, "+@all"]);
    }
    let users = [(&b"\xff"[..], "x"), (b"\xfe", "y"), ("\u{fffd}".as_bytes(), "z")];
    let mut clients: Vec<Conn> = users.iter().map(|(user, key)| scene.client(user, "pw", key)).collect();
    for (n, conn) in clients.iter_mut().enumerate() {
        for (m, (_, key)) in users.iter().enumerate() {
            for _ in 0..5 {
                let reply = conn.call(&args!["SET", *key, format!("by {n}")]).unwrap();
                assert_eq!(is_refused(&reply), n != m, "{n} on {key}: {reply:?}");
            }
        }
    }
    let Scene { mut redtape, journal, .. } = scene;
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let mut names: Vec<String> = Vec::new();
    for group in journal::cat(journal.path()) {
        let by = group.records[0].args[2].clone();
        let n = usize::from(by[3] - b'0');
        names.resize(names.len().max(n + 1), group.origin.user.clone());
        names[n].clone_from(&group.origin.user);
    }
    assert_eq!(names, ["\\xff (bytes)", "\\xfe (bytes)", "\u{fffd}"]);
}

/// What one connection has written is never called a write past the proxy, whatever kept redtape from following it.
#[test]
fn writes_through_redtape_never_get_origin_outside() {
    let scene = Scene::start();
    let mut control = scene.server.conn();
    control.must(&args!["ACL", "SETUSER", "solo", "on", ">solopw", "~*", "+@all", "-multi", "-exec"]);
    let encoded = |commands: &[Args]| {
        let mut bytes = Vec::new();
        commands.iter().for_each(|c| c.pack(&mut bytes));
        bytes
    };

    // Behind a MULTI that is refused, what was to be queued runs by itself.
    let mut solo = scene.client(b"solo", "solopw", "x");
    for n in 0..20 {
        let commands = [args!["MULTI"], args!["SET", format!("w:multi{n}"), n], args!["EXEC"]];
        let replies = solo.pipeline(&commands).unwrap();
        assert!(matches!(&replies[..], [Value::Error(_), Value::Text(_), Value::Error(_)]), "{replies:?}");
    }

    // A login whose reply is silenced, and a request that is longer than what is waited for from a stranger.
    let mut huge = scene.conn();
    let value = "v".repeat(70_000);
    let commands = [
        args!["CLIENT", "REPLY", "OFF"],
        args!["AUTH", "alice", "alicepw"],
        args!["SET", "w:huge", value],
        args!["SET", "w:behind", 1],
    ];
    let bytes = encoded(&commands);
    // In pieces, so that the long one is not whole when it is looked at.
    for piece in bytes.chunks(20_000) {
        huge.send(piece).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let limit = Duration::from_secs(10);
    let mut exist = |keys: [&str; 2]| {
        wait_for("the writes", limit, || (int(&control.must(&args!["EXISTS", keys[0], keys[1]])) == 2).then_some(()));
    };
    exist(["w:huge", "w:behind"]);
    huge.send(&encoded(&[args!["SET", "w:later", 1]])).unwrap();

    // What blocks where no reply can be told apart, and a write behind it, which runs when somebody serves it.
    let mut blocked = scene.client(b"alice", "alicepw", "secret");
    let commands = [args!["CLIENT", "REPLY", "OFF"], args!["BLPOP", "w:queue", 0], args!["SET", "w:served", 1]];
    blocked.send(&encoded(&commands)).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let mut other = scene.client(b"alice", "alicepw", "secret");
    other.must(&args!["RPUSH", "w:queue", 1]);
    exist(["w:served", "w:later"]);

    let groups = scene.all_groups();
    let of_test = |g: &&Group| g.records.iter().any(|r| r.args.get(1).is_some_and(|k| k.starts_with(b"w:")));
    let groups: Vec<&Group> = groups.iter().filter(of_test).collect();
    assert_eq!(groups.len(), 20 + 3 + 3, "{groups:?}");
    for group in groups {
        let origin = &group.origin;
        assert!(origin.kind == "client" || origin.kind == "unknown", "{group:?}");
        let multi = group.records[0].args[1].starts_with(b"w:multi");
        assert!(!multi || origin.user == "solo", "{group:?}");
    }
}
