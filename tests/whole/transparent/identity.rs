//! Who a session is: its id means that session and no other, wherever it is named.

use crate::harness::conn::{Value, int, items, text};
use crate::harness::{Conn, Dir, Redtape, Server, wait_for};
use std::time::Duration;

struct Scene {
    _server: Server,
    redtape: Redtape,
    _journal: Dir,
}

fn scene(sharing: &str) -> Scene {
    let journal = Dir::new("journal");
    let server = Server::start();
    server.conn().must(&args!["ACL", "SETUSER", "ann", "on", ">annpw", "~*", "&*", "+@all"]);
    let redtape = Redtape::start(&server.url(), journal.path(), super::flags(sharing));
    Scene { _server: server, redtape, _journal: journal }
}

struct Client {
    conn: Conn,
    id: i64,
    name: String,
}

impl Client {
    fn open(scene: &Scene, name: &str) -> Self {
        let mut conn = Conn::open(&scene.redtape.url()).unwrap();
        conn.must(&args!["CLIENT", "SETNAME", name]);
        let id = int(&conn.must(&args!["CLIENT", "ID"]));
        Self { conn, id, name: name.to_owned() }
    }

    #[track_caller]
    fn is_still_itself(&mut self, after: &str) {
        assert_eq!(int(&self.conn.must(&args!["CLIENT", "ID"])), self.id, "{} after {after}", self.name);
    }

    /// The fields of its line in `CLIENT INFO`.
    #[track_caller]
    fn field(&mut self, field: &str) -> String {
        field_of(&text(&self.conn.must(&args!["CLIENT", "INFO"])), field)
    }
}

#[track_caller]
fn field_of(line: &str, field: &str) -> String {
    let found = line.split_whitespace().find_map(|f| f.strip_prefix(field)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {field} in {line}")).to_owned()
}

/// The line of this id in `CLIENT LIST`, as another client sees it.
#[track_caller]
fn listed(by: &mut Conn, id: i64) -> String {
    let list = text(&by.must(&args!["CLIENT", "LIST"]));
    let lines: Vec<&str> = list.lines().filter(|l| field_of(l, "id") == id.to_string()).collect();
    assert_eq!(lines.len(), 1, "lines with id={id} in:\n{list}");
    let alone = text(&by.must(&args!["CLIENT", "LIST", "ID", id]));
    assert_eq!(alone.lines().map(|l| field_of(l, "id")).collect::<Vec<_>>(), [id.to_string()]);
    lines[0].to_owned()
}

pub fn ids_are_coherent(sharing: &str) {
    let scene = scene(sharing);
    let mut clients: Vec<Client> = (0..6).map(|n| Client::open(&scene, &format!("client-{n}"))).collect();
    let mut ids: Vec<i64> = clients.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), clients.len(), "two sessions have one id");
    let mut watcher = Conn::open(&scene.redtape.url()).unwrap();
    for c in &mut clients {
        assert_eq!(c.field("id"), c.id.to_string());
        assert_eq!(c.field("name"), c.name);
        assert_eq!(field_of(&listed(&mut watcher, c.id), "name"), c.name);
        let hello = items(&c.conn.must(&args!["HELLO", 3]));
        let at = hello.iter().position(|v| matches!(v, Value::Bytes(b) if b == b"id")).expect("HELLO tells an id");
        assert_eq!(int(&hello[at + 1]), c.id, "HELLO's id");
        assert_eq!(c.field("resp"), "3");
        c.conn.must(&args!["HELLO", 2]);
    }
    // What a session goes through does not change who it is.
    let c = &mut clients[0];
    let steps: &[(&str, &[&str])] = &[
        ("a transaction", &["MULTI", "PING", "EXEC"]),
        ("SELECT", &["SELECT 3"]),
        ("a timeout", &["BLPOP none 0.01"]),
        ("WATCH", &["WATCH k", "UNWATCH"]),
        ("tracking", &["CLIENT TRACKING on", "GET k", "CLIENT TRACKING off"]),
        ("a subscription", &["SUBSCRIBE c", "UNSUBSCRIBE c"]),
        ("AUTH", &["AUTH ann annpw"]),
        ("a script", &["EVAL return(1) 0"]),
        ("a failed AUTH", &["AUTH ann wrong"]),
    ];
    for (after, commands) in steps {
        for command in *commands {
            let words: Vec<Vec<u8>> = command.split(' ').map(|w| w.as_bytes().to_vec()).collect();
            c.conn.call(&crate::harness::Args(words)).unwrap();
        }
        c.is_still_itself(after);
    }
    assert_eq!((c.field("db"), c.field("user"), c.field("name")), ("3".to_owned(), "ann".to_owned(), c.name.clone()));
    c.conn.must(&args!["RESET"]);
    c.is_still_itself("RESET");
    assert_eq!(
        (c.field("db"), c.field("user"), c.field("name")),
        ("0".to_owned(), "default".to_owned(), String::new())
    );
}

pub fn ids_act_on_their_session(sharing: &str) {
    let scene = scene(sharing);
    let mut clients: Vec<Client> = (0..6).map(|n| Client::open(&scene, &format!("client-{n}"))).collect();
    let id = |clients: &[Client], n: usize| clients[n].id;

    // UNBLOCK wakes that one, and only what is blocked.
    for n in [1, 2] {
        clients[n].conn.send(b"BLPOP queue 0\r\n").unwrap();
    }
    let blocked = id(&clients, 1);
    wait_for("two blocked clients", Duration::from_secs(5), || {
        (clients[0].conn.info("clients", "blocked_clients") == "2").then_some(())
    });
    assert_eq!(clients[0].conn.must(&args!["CLIENT", "UNBLOCK", blocked]), Value::Int(1));
    assert_eq!(clients[1].conn.reply().unwrap(), Value::Nil);
    let other = id(&clients, 2);
    assert_eq!(clients[0].conn.must(&args!["CLIENT", "UNBLOCK", other, "ERROR"]), Value::Int(1));
    assert!(matches!(clients[2].conn.reply().unwrap(), Value::Error(e) if e.starts_with("UNBLOCKED")));
    let idle = id(&clients, 3);
    assert_eq!(clients[0].conn.must(&args!["CLIENT", "UNBLOCK", idle]), Value::Int(0));

    // Invalidations go to the session that was named.
    let target = id(&clients, 4);
    clients[4].conn.must(&args!["SUBSCRIBE", "__redis__:invalidate"]);
    clients[3].conn.must(&args!["CLIENT", "TRACKING", "on", "REDIRECT", target]);
    assert_eq!(int(&clients[3].conn.must(&args!["CLIENT", "GETREDIR"])), target);
    clients[3].conn.must(&args!["GET", "tracked"]);
    clients[5].conn.must(&args!["SET", "tracked", 1]);
    let message = items(&clients[4].conn.reply().unwrap());
    assert_eq!(text(&message[1]), "__redis__:invalidate");
    assert_eq!(items(&message[2]).iter().map(text).collect::<Vec<_>>(), ["tracked"]);

    // A mode of one session is that of no other.
    clients[0].conn.must(&args!["CLIENT", "NO-EVICT", "on"]);
    let ids: Vec<i64> = clients.iter().map(|c| c.id).collect();
    let evictable = |by: &mut Conn| -> Vec<bool> {
        ids.iter().map(|id| !field_of(&listed(by, *id), "flags").contains('e')).collect()
    };
    assert_eq!(evictable(&mut clients[5].conn), [false, true, true, true, true, true]);
    clients[0].conn.must(&args!["CLIENT", "NO-EVICT", "off"]);
    assert_eq!(evictable(&mut clients[5].conn), [true; 6]);

    // KILL ends that one.
    let killed = id(&clients, 2);
    assert_eq!(clients[0].conn.must(&args!["CLIENT", "KILL", "ID", killed]), Value::Int(1));
    assert!(clients[2].conn.reply().is_err(), "the killed session goes on");
    assert_eq!(clients[0].conn.must(&args!["CLIENT", "KILL", "ID", killed]), Value::Int(0));
    for n in [0, 1, 3, 5] {
        clients[n].is_still_itself("the end of another");
    }
    // And oneself: the reply, then the end.
    let own = id(&clients, 5);
    assert_eq!(clients[5].conn.must(&args!["CLIENT", "KILL", "ID", own, "SKIPME", "no"]), Value::Int(1));
    assert!(clients[5].conn.call(&args!["PING"]).is_err());
    clients[0].is_still_itself("the end of another");
}
