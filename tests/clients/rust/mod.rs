//! What applications do with the `redis` crate; each reply is checked against its request.
//!
//! Each check panics on a difference. The caller says where: a server, or redtape before it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, Commands, ConnectionLike, PushKind, RedisResult, Value};
use tokio::task::JoinSet;

/// One check, and what it is called.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&str),
}

/// All of them, for one URL each; those with `resp` in their name choose the protocol themselves.
pub(crate) const CHECKS: &[Check] = &[
    Check { name: "many_tasks_on_one_connection_resp2", run: |u| block_on(many_tasks(url(u, "resp2"))) },
    Check { name: "many_tasks_on_one_connection_resp3", run: |u| block_on(many_tasks(url(u, "resp3"))) },
    Check { name: "pipelines_resp2", run: |u| pipelines(&url(u, "resp2")) },
    Check { name: "pipelines_resp3", run: |u| pipelines(&url(u, "resp3")) },
    Check { name: "transactions", run: transactions },
    Check { name: "publish_subscribe_resp2", run: publish_subscribe },
    Check { name: "publish_subscribe_resp3", run: |u| block_on(pushes(url(u, "resp3"))) },
    Check { name: "blocking_queues_resp2", run: |u| blocking_queues(&url(u, "resp2")) },
    Check { name: "blocking_queues_resp3", run: |u| blocking_queues(&url(u, "resp3")) },
    Check { name: "client_side_caching", run: |u| block_on(caching(url(u, "resp3"))) },
    Check { name: "scripts", run: scripts },
    Check { name: "users_and_databases", run: users_and_databases },
    Check { name: "large_values", run: large_values },
    Check { name: "a_client_that_is_killed_comes_back", run: |u| block_on(killed(u.to_owned())) },
    Check { name: "dropped_requests_leave_no_replies_behind", run: |u| block_on(dropped_requests(u.to_owned())) },
];

/// Load through a restart of the server: `restart` is called in the middle.
pub(crate) fn restarts_under_load(url: &str, restart: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let done: Vec<AtomicUsize> = (0..6).map(|_| AtomicUsize::new(0)).collect();
    let least = || done.iter().map(|n| n.load(Ordering::Relaxed)).min().unwrap();
    std::thread::scope(|threads| {
        for (w, done) in done.iter().enumerate() {
            let stop = &stop;
            threads.spawn(move || {
                let client = Client::open(url).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    // As a pool does: a connection that failed is replaced.
                    let Ok(mut c) = client.get_connection_with_timeout(Duration::from_secs(2)) else { continue };
                    c.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        let mark = format!("{w}-{}", done.load(Ordering::Relaxed));
                        let set: RedisResult<()> = c.set(format!("re:{w}"), &mark);
                        let got: RedisResult<Option<String>> = set.and_then(|()| c.get(format!("re:{w}")));
                        match got {
                            // Between the two the server may have come back empty.
                            Ok(got) => assert!(got.is_none() || got == Some(mark.clone()), "{got:?} for {mark}"),
                            Err(e) => {
                                if e.is_io_error() || e.is_connection_dropped() || !c.is_open() {
                                    break;
                                }
                                std::thread::sleep(Duration::from_millis(20));
                                continue;
                            }
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // A panic in here must not leave the threads running.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("the load", || least() > 20);
            restart();
            let at: Vec<usize> = done.iter().map(|n| n.load(Ordering::Relaxed)).collect();
            wait_until("each worker's way back", || {
                done.iter().zip(&at).all(|(n, at)| n.load(Ordering::Relaxed) > at + 50)
            });
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn url(url: &str, protocol: &str) -> String {
    format!("{url}/?protocol={protocol}")
}

fn block_on(check: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(90), check).await.expect("no end after 90 s") });
}

fn wait_until(what: &str, ask: impl FnMut() -> bool) {
    let mut ask = ask;
    let began = Instant::now();
    while !ask() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn connect(url: &str) -> redis::Connection {
    let c = Client::open(url).and_then(|c| c.get_connection()).unwrap();
    c.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    c
}

async fn multiplexed(url: &str) -> MultiplexedConnection {
    // The default gives up after half a second, which a busy machine may need.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
    Client::open(url).unwrap().get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

async fn many_tasks(url: String) {
    let connections = [multiplexed(&url).await, multiplexed(&url).await, multiplexed(&url).await];
    let mut tasks = JoinSet::new();
    for w in 0..60 {
        let mut c = connections[w % connections.len()].clone();
        tasks.spawn(async move {
            for n in 0..100 {
                let (key, mark) = (format!("task:{w}"), format!("{w}-{n}"));
                let () = c.set(&key, &mark).await.unwrap();
                let got: String = c.get(&key).await.unwrap();
                assert_eq!(got, mark, "another's reply");
                let both: (String, i64) =
                    redis::pipe().cmd("ECHO").arg(&mark).incr(format!("n:{w}"), 1).query_async(&mut c).await.unwrap();
                assert_eq!(both.0, mark, "another's reply");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

fn pipelines(url: &str) {
    let mut c = connect(url);
    let mut pipe = redis::pipe();
    for n in 0..5000 {
        pipe.set(format!("p:{}", n % 50), n).ignore().get(format!("p:{}", n % 50));
    }
    let got: Vec<i64> = pipe.query(&mut c).unwrap();
    assert_eq!(got, (0..5000).collect::<Vec<_>>());
    let failed: RedisResult<(String, i64)> = redis::pipe().set("text", "a").incr("text", 1).query(&mut c);
    assert!(failed.is_err());
    assert_eq!(c.get::<_, String>("text").unwrap(), "a", "the connection goes on after an error in a pipeline");
}

fn transactions(url: &str) {
    let (mut c, mut other) = (connect(url), connect(url));
    let () = c.set("account", 10).unwrap();
    // The first try meets a conflict, the second succeeds.
    let mut tries = 0;
    let (value,): (i64,) = redis::transaction(&mut c, &["account"], |c, pipe| {
        tries += 1;
        let value: i64 = c.get("account")?;
        if tries == 1 {
            let () = other.incr("account", 5)?;
        }
        pipe.set("account", value + 1).ignore().get("account").query(c)
    })
    .unwrap();
    assert_eq!((tries, value), (2, 16));
    let () = redis::cmd("WATCH").arg("account").query(&mut c).unwrap();
    let () = other.incr("account", 1).unwrap();
    let refused: Option<Vec<Value>> = redis::pipe().atomic().set("account", 0).query(&mut c).unwrap();
    assert_eq!(refused, None, "EXEC despite a conflict");
    let () = c.set("account", 0).unwrap();
    std::thread::scope(|threads| {
        for _ in 0..6 {
            threads.spawn(|| {
                let mut c = connect(url);
                for _ in 0..20 {
                    let _: (i64,) = redis::transaction(&mut c, &["account"], |c, pipe| {
                        let value: i64 = c.get("account")?;
                        pipe.set("account", value + 1).ignore().get("account").query(c)
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(c.get::<_, i64>("account").unwrap(), 120, "a count was lost");
}

fn publish_subscribe(url: &str) {
    let (mut c, mut subscriber) = (connect(url), connect(url));
    let mut sub = subscriber.as_pubsub();
    sub.subscribe(&["a", "b"]).unwrap();
    sub.psubscribe("p*").unwrap();
    for n in 0..200 {
        let heard: i64 = c.publish(["a", "b", "p1"][n % 3], n).unwrap();
        assert_eq!(heard, 1);
    }
    for n in 0..200 {
        let message = sub.get_message().unwrap();
        assert_eq!(message.get_channel_name(), ["a", "b", "p1"][n % 3]);
        assert_eq!(message.get_payload::<usize>().unwrap(), n);
    }
    // Unsubscribes from everything.
    drop(sub);
    assert_eq!(c.publish::<_, _, i64>("a", "nobody").unwrap(), 0);
    assert_eq!(subscriber.get::<_, Option<String>>("none").unwrap(), None, "a client again");
}

async fn pushes(url: String) {
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(send).set_response_timeout(Some(Duration::from_secs(20)));
    let mut sub =
        Client::open(url.as_str()).unwrap().get_multiplexed_async_connection_with_config(&config).await.unwrap();
    sub.subscribe(&["a"]).await.unwrap();
    let mut c = multiplexed(&url).await;
    for n in 0..200 {
        let (heard, echo): (i64, String) = tokio::join!(async { c.publish("a", n).await.unwrap() }, async {
            redis::cmd("ECHO").arg(n).query_async(&mut sub).await.unwrap()
        });
        assert_eq!((heard, echo), (1, n.to_string()), "replies and pushes on one connection");
    }
    let mut next = 0;
    while next < 200 {
        let push = tokio::time::timeout(Duration::from_secs(5), receive.recv()).await.expect("a push").unwrap();
        if push.kind == PushKind::Message {
            assert_eq!(push.data[1], Value::BulkString(next.to_string().into_bytes()));
            next += 1;
        }
    }
}

fn blocking_queues(url: &str) {
    let mut c = connect(url);
    let jobs: BTreeSet<String> = (0..400).map(|n| format!("job-{n}")).collect();
    let done: Vec<String> = std::thread::scope(|threads| {
        let consumers: Vec<_> = (0..5)
            .map(|_| {
                threads.spawn(|| {
                    let (mut c, mut mine) = (connect(url), Vec::new());
                    loop {
                        let job: Option<(String, String)> = c.blpop(&["q1", "q2"], 10.0).unwrap();
                        let (_, job) = job.expect("a consumer waited in vain");
                        if job == "end" {
                            return mine;
                        }
                        mine.push(job);
                    }
                })
            })
            .collect();
        for (n, job) in jobs.iter().enumerate() {
            let () = c.rpush(["q1", "q2"][n % 2], job).unwrap();
        }
        wait_until("all jobs", || c.llen::<_, usize>("q1").unwrap() + c.llen::<_, usize>("q2").unwrap() == 0);
        for _ in 0..consumers.len() {
            let () = c.rpush("q2", "end").unwrap();
        }
        consumers.into_iter().flat_map(|c| c.join().unwrap()).collect()
    });
    assert_eq!(done.len(), jobs.len(), "jobs lost or done twice");
    assert_eq!(done.into_iter().collect::<BTreeSet<_>>(), jobs);
    let began = Instant::now();
    assert_eq!(c.blpop::<_, Option<(String, String)>>("none", 0.4).unwrap(), None);
    assert!((380..3000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

async fn caching(url: String) {
    let config = AsyncConnectionConfig::new()
        .set_cache_config(redis::caching::CacheConfig::default())
        .set_response_timeout(Some(Duration::from_secs(20)));
    let mut c =
        Client::open(url.as_str()).unwrap().get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let mut other = multiplexed(&url).await;
    let () = other.set("cached", "v").await.unwrap();
    for _ in 0..100 {
        assert_eq!(c.get::<_, String>("cached").await.unwrap(), "v");
    }
    let statistics = c.get_cache_statistics().unwrap();
    assert!(statistics.hit >= 99, "{statistics:?}");
    for n in 0..50 {
        let () = other.set("cached", n).await.unwrap();
        let began = Instant::now();
        while c.get::<_, String>("cached").await.unwrap() != n.to_string() {
            assert!(began.elapsed() < Duration::from_secs(5), "no invalidation came for {n}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn scripts(url: &str) {
    let mut c = connect(url);
    let script = redis::Script::new("redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])");
    let () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut c).unwrap();
    let unknown: RedisResult<Value> = redis::cmd("EVALSHA").arg(script.get_hash()).arg(0).query(&mut c);
    assert_eq!(unknown.unwrap_err().code(), Some("NOSCRIPT"));
    for n in 0..50 {
        if n % 10 == 0 {
            let () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut c).unwrap();
        }
        assert_eq!(script.key("s").arg(n).invoke::<i64>(&mut c).unwrap(), n);
    }
}

fn users_and_databases(url: &str) {
    let mut admin = connect(url);
    let () = redis::cmd("ACL")
        .arg(&["SETUSER", "rusty", "on", ">pw", "~k*", "&*", "+@all", "-@dangerous"])
        .query(&mut admin)
        .unwrap();
    let address = url.strip_prefix("redis://").unwrap();
    let as_user = |db: usize| connect(&format!("redis://rusty:pw@{address}/{db}"));
    let mut third = as_user(3);
    assert_eq!(redis::cmd("ACL").arg("WHOAMI").query::<String>(&mut third).unwrap(), "rusty");
    let () = third.set("k", "three").unwrap();
    assert_eq!(admin.get::<_, Option<String>>("k").unwrap(), None);
    assert_eq!(third.set::<_, _, ()>("elsewhere", 1).unwrap_err().code(), Some("NOPERM"));
    assert!(Client::open(format!("redis://rusty:wrong@{address}")).unwrap().get_connection().is_err());
    std::thread::scope(|threads| {
        for n in 0..8 {
            threads.spawn(move || {
                let mut c = as_user(n % 4);
                for i in 0..100 {
                    let () = c.set(format!("k:{n}"), i).unwrap();
                    assert_eq!(c.get::<_, i32>(format!("k:{n}")).unwrap(), i);
                    assert_eq!(c.get::<_, Option<i32>>(format!("k:{}", n + 100)).unwrap(), None);
                }
            });
        }
    });
    let () = redis::cmd("ACL").arg(&["DELUSER", "rusty"]).query(&mut admin).unwrap();
}

fn large_values(url: &str) {
    let mut c = connect(url);
    let value: Vec<u8> = (0..24 << 20_u32).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let () = c.set("large", &value).unwrap();
    std::thread::scope(|threads| {
        for w in 0..4 {
            threads.spawn(move || {
                let mut c = connect(url);
                for n in 0..300 {
                    let mark = format!("{w}:{n}");
                    assert_eq!(redis::cmd("ECHO").arg(&mark).query::<String>(&mut c).unwrap(), mark);
                }
            });
        }
        for _ in 0..2 {
            assert!(c.get::<_, Vec<u8>>("large").unwrap() == value, "a large value came back changed");
        }
    });
    let () = c.del("large").unwrap();
}

async fn killed(url: String) {
    let mut admin = multiplexed(&url).await;
    let config = ConnectionManagerConfig::new()
        .set_min_delay(Duration::from_millis(20))
        .set_response_timeout(Some(Duration::from_secs(20)));
    let mut c = ConnectionManager::new_with_config(Client::open(url.as_str()).unwrap(), config).await.unwrap();
    for n in 0..5 {
        let id: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut c).await.unwrap();
        let killed: i64 = redis::cmd("CLIENT").arg(&["KILL", "ID"]).arg(id).query_async(&mut admin).await.unwrap();
        assert_eq!(killed, 1);
        let began = Instant::now();
        while c.set::<_, _, ()>("after", n).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "the connection does not come back");
        }
        assert_eq!(c.get::<_, i32>("after").await.unwrap(), n);
        assert_ne!(redis::cmd("CLIENT").arg("ID").query_async::<i64>(&mut c).await.unwrap(), id);
    }
}

async fn dropped_requests(url: String) {
    let mut c = multiplexed(&url).await;
    for n in 0..50 {
        let mut cut = c.clone();
        // The future is dropped; its reply must not become another's.
        let _ = tokio::time::timeout(Duration::from_micros(50), cut.set::<_, _, ()>("cut", n)).await;
        let echo: String = redis::cmd("ECHO").arg(n).query_async(&mut c).await.unwrap();
        assert_eq!(echo, n.to_string());
    }
}
