//! How long does another client wait while a large value is built, read, swapped and removed in pieces, and how long while
//! `RESTORE` and `DUMP` do it at once? Printed, not judged: a busy machine adds to both; the first row is the machine alone.
//! `make measure` runs it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redtape_restore::client::Server as Client;
use redtape_restore::target::pieces::Builder;
use redtape_restore::target::pieces::name::temporary_name;
use redtape_restore::target::pieces::read::Reader;
use redtape_restore::target::pieces::size::sizes;
use redtape_restore::target::pieces::swap::swap;
use redtape_wire::rdb::{Consumer, Field, Group, Pending, Score, Stream, StreamEntry, StreamId, Value, encode_dump};

use crate::server::Server;
use crate::{client, now_ms, version};

/// Waits of the second client while something is done.
struct Waits {
    took: Duration,
    longest: Duration,
    p99: Duration,
}

fn waits<T>(server: &Server, work: impl FnOnce() -> T) -> (T, Waits) {
    let done = AtomicBool::new(false);
    let mut second = client(server);
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let mut all = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                second.call(&["PING"]).unwrap();
                all.push(start.elapsed());
                std::thread::sleep(Duration::from_micros(200));
            }
            all
        });
        std::thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        // What the server does behind the reply.
        std::thread::sleep(Duration::from_millis(100));
        done.store(true, Ordering::Relaxed);
        let mut all = pings.join().unwrap();
        all.sort();
        (result, Waits { took, longest: all[all.len() - 1], p99: all[all.len() * 99 / 100] })
    })
}

fn row<T>(server: &Server, what: &str, work: impl FnOnce() -> T) -> T {
    let (result, waits) = waits(server, work);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "  {what:<28} {:>9.1} ms; PING waits {:>7.1} ms at most, p99 {:>6.2} ms",
        ms(waits.took),
        ms(waits.longest),
        ms(waits.p99)
    );
    result
}

const MILLION: usize = 1_000_000;

fn values() -> Vec<(&'static str, Value)> {
    let member = |n: usize| format!("member:{n:010}").into_bytes();
    let field = |n| Field { name: member(n), value: format!("value {n}").into_bytes(), expires_at_ms: None };
    let mut values = vec![
        ("hash of 1,000,000 fields", Value::Hash((0..MILLION).map(field).collect())),
        ("set of 1,000,000 members", Value::Set((0..MILLION).map(member).collect())),
        (
            "sorted set of 1,000,000 members",
            Value::Zset((0..MILLION).map(|n| (member(n), Score::new(n as f64 / 3.0).unwrap())).collect()),
        ),
        ("list of 1,000,000 elements", Value::List((0..MILLION).map(member).collect())),
        ("string of 256 MB", Value::String((0..256usize << 20).map(|n| (n * n / 251) as u8).collect())),
        ("stream of 1,000,000 entries, 100,000 pending", Value::Stream(Box::new(stream()))),
    ];
    if version().has_field_ttl() {
        let at = now_ms() + 100_000_000;
        let field = |n| Field { expires_at_ms: (n % 4 == 0).then_some(at + n as i64), ..field(n) };
        values.push(("hash of 1,000,000 fields, 250,000 with TTLs", Value::Hash((0..MILLION).map(field).collect())));
    }
    values
}

fn stream() -> Stream {
    let id = |n: usize| StreamId { ms: n as u64 + 1, seq: 0 };
    let entry = |n| StreamEntry { id: id(n), fields: vec![(b"name".to_vec(), format!("value {n}").into_bytes())] };
    let pending = |n| Pending { id: id(n), delivered_ms: 1000, deliveries: 1, consumer: n % 3 };
    let consumer = |name: &str| Consumer { name: name.into(), seen_ms: 2000, active_ms: 2000 };
    let seven = version().has_redis(7, 0);
    Stream {
        entries: (0..MILLION).map(entry).collect(),
        last_id: id(MILLION - 1),
        first_id: id(0),
        max_deleted_id: StreamId::default(),
        entries_added: MILLION as u64,
        groups: vec![Group {
            name: b"g".to_vec(),
            last_id: id(99_999),
            entries_read: seven.then_some(100_000),
            consumers: ["a", "b", "c"].map(consumer).to_vec(),
            pending: (0..100_000).map(pending).collect(),
        }],
        idempotence: None,
    }
}

#[test]
#[ignore = "make measure: some minutes"]
fn waits_of_another_client() {
    let server = Server::start();
    let mut client = client(&server);
    println!("{}, waits of a second client:", version());
    row(&server, "nothing", || std::thread::sleep(Duration::from_secs(3)));
    for (what, value) in values() {
        println!("{what}:");
        measure(&server, &mut client, &value);
        client.call(&["FLUSHALL"]).unwrap();
    }
}

fn measure(server: &Server, client: &mut Client, value: &Value) {
    let (builder, reader) = (Builder::new(version()), Reader::new(version()));
    let name = temporary_name(b"key", &crate::operation(), 1);
    let payload = encode_dump(value, version().writes()).unwrap();
    row(server, "RESTORE", || client.call(&[b"RESTORE", &b"key"[..], b"0", &payload]).unwrap());
    row(server, "DUMP", || client.call(&[&b"DUMP"[..], b"key"]).unwrap());
    row(server, "RESTORE REPLACE", || {
        client.call(&[b"RESTORE", &b"key"[..], b"0", &payload, b"REPLACE"]).unwrap();
    });
    assert!(row(server, "pieces: size", || sizes(client, &[&b"key"[..]]).unwrap()[0]).is_large());
    let read = row(server, "pieces: read", || reader.read(client, b"key"));
    // A stream of Redis 8.6 has idempotence of its own.
    let mut read = read.unwrap();
    if let (Value::Stream(read), Value::Stream(_)) = (&mut read, value) {
        read.idempotence = None;
    }
    assert!(read == *value);
    assert!(row(server, "pieces: build", || builder.build(client, &name, value).unwrap()).exists);
    if let Value::Stream(_) = value {
        let mut builder = builder;
        builder.limits.pending = 10_000;
        row(server, "pieces: build, 90,000 claimed", || builder.build(client, b"claimed", value).unwrap());
        client.call(&["UNLINK", "claimed"]).unwrap();
    }
    row(server, "pieces: swap and UNLINK", || swap(client, &name, b"key", None).unwrap());
    let mut read = reader.read(client, b"key").unwrap();
    if let (Value::Stream(read), Value::Stream(_)) = (&mut read, value) {
        read.idempotence = None;
    }
    assert!(read == *value);
    row(server, "UNLINK", || client.call(&["UNLINK", "key"]).unwrap());
}
