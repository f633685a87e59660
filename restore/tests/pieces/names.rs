//! Temporary names on a real server: its own slots, and what is found again.

use redtape_restore::client::Value as Reply;
use redtape_restore::target::pieces::Builder;
use redtape_restore::target::pieces::leftovers;
use redtape_restore::target::pieces::name::temporary_name;
use redtape_restore::target::pieces::size::{Size, sizes};
use redtape_restore::target::pieces::swap::swap;
use redtape_wire::rdb::Value;
use redtape_wire::slot::hash_slot;

use crate::server::Server;
use crate::{TINY, client, port, version};

#[test]
fn every_key_of_a_cluster_is_swapped_in_its_slot() {
    let server = Server::with(&["--cluster-enabled", "yes"]);
    let mut conn = server.conn();
    let slots: Vec<String> = (0..16_384).map(|slot: u32| slot.to_string()).collect();
    conn.must(&[vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()], slots].concat());
    let started = std::time::Instant::now();
    while !conn.must(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok") {
        assert!(started.elapsed().as_secs() < 20, "the cluster does not become ready");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut client = client(&server);
    let operation = crate::operation();
    let builder = Builder { version: version(), limits: TINY };
    let value = Value::List((0..20).map(|n| vec![n; 5]).collect());
    for key in [
        &b"plain"[..],
        b"",
        b"{",
        b"}",
        b"}{",
        b"{}",
        b"{}x",
        b"a{b}c",
        b"a{b",
        b"a}b",
        b"{{a}}",
        b"{}{a}",
        b"\0\xff\r\n",
        b"\xff{\x00\xfe}",
    ] {
        let shown = key.escape_ascii().to_string();
        let slot = conn.must(&[&b"CLUSTER"[..], b"KEYSLOT", key]).int();
        assert_eq!(i64::from(hash_slot(key)), slot, "{shown}");
        let name = temporary_name(key, &operation, 3);
        assert_eq!(conn.must(&[&b"CLUSTER"[..], b"KEYSLOT", &name]).int(), slot, "{shown}");
        client.call(&[b"SET", key, b"old"]).unwrap();
        assert!(builder.build(&mut client, &name, &value).unwrap().exists);
        swap(&mut client, &name, key, None).unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_eq!(crate::dumped(&mut client, key), value);
    }
    assert_eq!(leftovers::find(&mut client, &operation).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn leftovers_of_one_operation_are_removed_and_nothing_else() {
    let server = Server::start();
    let mut client = client(&server);
    let (mine, other) = (crate::operation(), crate::operation());
    let names: Vec<Vec<u8>> = (0..2500u64).map(|n| temporary_name(&n.to_le_bytes(), &mine, n)).collect();
    for name in &names {
        client.call(&[b"SET", &name[..], b"x"]).unwrap();
    }
    let kept = [
        temporary_name(b"key", &other, 1),
        format!("redtape:tmp:{mine}:my own").into_bytes(),
        format!("redtape:tmp:{mine}:1").into_bytes(),
        b"key".to_vec(),
    ];
    for key in &kept {
        client.call(&[b"SET", &key[..], b"x"]).unwrap();
    }
    let mut found = leftovers::find(&mut client, &mine).unwrap();
    found.sort();
    assert!(names.iter().all(|name| found.contains(name)) && found.len() == names.len());
    assert_eq!(leftovers::remove(&mut client, &mine).unwrap(), 2500);
    assert_eq!(client.call(&["DBSIZE"]).unwrap(), Reply::Int(kept.len() as i64));
    assert_eq!(leftovers::remove(&mut client, &mine).unwrap(), 0);
}

#[test]
fn sizes_with_and_without_the_right_to_ask_for_memory() {
    let server = Server::start();
    let mut client = client(&server);
    client.call(&["ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-memory"]).unwrap();
    let url = format!("redis://limited:secret@127.0.0.1:{}", port(&server));
    let mut limited = redtape_restore::client::Server::connect(&url.parse().unwrap()).unwrap();
    client.call(&["SET", "string", &"x".repeat(3 << 20)]).unwrap();
    let elements = |command: &str, key: &str, count: usize, each: usize| {
        let mut args = vec![command.to_owned(), key.to_owned()];
        for n in 0..count {
            args.extend((0..each).map(|part| format!("{n} {part} {}", "y".repeat(200))));
        }
        args
    };
    client.call(&elements("HSET", "hash", 5000, 2)).unwrap();
    client.call(&elements("SADD", "set", 20_000, 1)).unwrap();
    client.call(&elements("RPUSH", "short", 10, 1)).unwrap();
    client.call(&["XADD", "stream", "1-1", "f", "v"]).unwrap();
    for (key, is_large, told) in [
        ("string", true, Size::Bytes(3 << 20)),
        ("hash", true, Size::Elements(5000)),
        ("set", true, Size::Elements(20_000)),
        ("short", false, Size::Elements(10)),
        ("stream", false, Size::Elements(1)),
        ("nothing", false, Size::Absent),
    ] {
        let asked = sizes(&mut client, &[key.as_bytes()]).unwrap()[0];
        assert_eq!(asked.is_large(), is_large, "{key}: {asked:?}");
        assert!(matches!(asked, Size::Bytes(_) | Size::Absent), "{key}: {asked:?}");
        let asked = sizes(&mut limited, &[key.as_bytes()]).unwrap()[0];
        assert_eq!((asked, asked.is_large()), (told, is_large), "{key}");
    }
}
