//! The applications of the demo: clients with names that write data of every type, as busy shops do.
//!
//! Between two steps each looks at a gate; while it is closed they all stand still.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::commands::embedded::{WORK_TIMEOUT, open};
use anyhow::Context as _;
use redis::{Connection, Pipeline, RedisResult, Value, cmd, pipe};

/// Shortest time between two steps of one application: a shop, not a benchmark.
const BREATH: Duration = Duration::from_micros(200);

const SCRIPT: &str = "local n = redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], n, ARGV[2])
redis.call('HSET', KEYS[3], ARGV[2], n)
return n";

const FUNCTIONS: &str = "#!lua name=pricing
redis.register_function('reprice', function(keys, args)
  local now = redis.call('TIME')
  return redis.call('HSET', keys[1], args[1], args[2], 'changed', now[1] .. '.' .. now[2])
end)";

/// One application.
struct App {
    name: &'static str,
    writes: &'static str,
    db: u32,
    step: fn(&mut Connection, &Step) -> RedisResult<u64>,
}

/// What a step may depend on.
struct Step {
    /// 0, 1, 2, …
    n: u64,
    /// The server knows functions.
    functions: bool,
}

impl Step {
    /// A number below `below` that looks random.
    fn any(&self, salt: u64, below: u64) -> u64 {
        let mut x = (self.n ^ salt << 40).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) % below
    }
}

const APPS: [App; 7] = [
    App { name: "checkout", writes: "orders: transactions, strings, a list", db: 0, step: checkout },
    App { name: "cart", writes: "hashes with TTLs, locks that expire", db: 0, step: cart },
    App { name: "analytics", writes: "HyperLogLogs, bitmaps, sorted sets, sets", db: 0, step: analytics },
    App { name: "couriers", writes: "positions on the map", db: 0, step: couriers },
    App { name: "mailer", writes: "a stream and its consumer group", db: 0, step: mailer },
    App { name: "pricing", writes: "Lua scripts and functions", db: 0, step: pricing },
    App { name: "sessions", writes: "binary values, in another database", db: 1, step: sessions },
];

fn run(pipeline: &Pipeline, conn: &mut Connection) -> RedisResult<u64> {
    pipeline.query::<Value>(conn)?;
    Ok(pipeline.len() as u64)
}

fn checkout(conn: &mut Connection, at: &Step) -> RedisResult<u64> {
    let order = at.any(1, 400);
    let json = format!(r#"{{"order":{order},"step":{},"items":{}}}"#, at.n, at.any(2, 9) + 1);
    let mut transaction = pipe();
    transaction.atomic();
    transaction.cmd("INCR").arg("orders:count");
    transaction.cmd("SET").arg(format!("order:{order}")).arg(json).arg("EX").arg(86_400);
    transaction.cmd("LPUSH").arg("orders:recent").arg(order);
    transaction.cmd("LTRIM").arg("orders:recent").arg(0).arg(99);
    transaction.cmd("INCRBYFLOAT").arg("revenue").arg("19.95");
    Ok(run(&transaction, conn)? + 2)
}

fn cart(conn: &mut Connection, at: &Step) -> RedisResult<u64> {
    let key = format!("cart:{}", at.any(1, 150));
    let mut commands = pipe();
    commands.cmd("HSET").arg(&key).arg(format!("sku:{}", at.any(2, 30))).arg(at.any(3, 5) + 1);
    commands.cmd("EXPIRE").arg(&key).arg(7200);
    commands.cmd("SET").arg(format!("lock:{key}")).arg(at.n).arg("NX").arg("PX").arg(120);
    if at.n.is_multiple_of(7) {
        commands.cmd("HDEL").arg(&key).arg("sku:1").arg("sku:2");
        commands.cmd("PERSIST").arg(&key);
    }
    run(&commands, conn)
}

fn analytics(conn: &mut Connection, at: &Step) -> RedisResult<u64> {
    let mut commands = pipe();
    commands.cmd("PFADD").arg("visitors:today").arg(at.any(1, 100_000));
    commands.cmd("SETBIT").arg("active:today").arg(at.any(2, 20_000)).arg(1);
    commands.cmd("ZINCRBY").arg("bestsellers").arg(1.5).arg(format!("sku:{}", at.any(3, 200)));
    commands.cmd("SADD").arg(format!("tags:{}", at.any(4, 40))).arg(at.any(5, 500));
    if at.n.is_multiple_of(20) {
        commands.cmd("PFMERGE").arg("visitors:week").arg("visitors:today");
        commands.cmd("SPOP").arg(format!("tags:{}", at.any(6, 40)));
        commands.cmd("ZUNIONSTORE").arg("top").arg(2).arg("bestsellers").arg("prices");
    }
    run(&commands, conn)
}

fn couriers(conn: &mut Connection, at: &Step) -> RedisResult<u64> {
    let (east, north) = (at.any(1, 10_000) as f64 / 1e5, at.any(2, 10_000) as f64 / 1e5);
    let courier = format!("courier:{}", at.any(3, 60));
    cmd("GEOADD").arg("couriers").arg(13.3 + east).arg(52.5 + north).arg(courier).query::<i64>(conn)?;
    Ok(1)
}

fn mailer(conn: &mut Connection, at: &Step) -> RedisResult<u64> {
    let mut add = cmd("XADD");
    add.arg("mails").arg("MAXLEN").arg("~").arg(300).arg("*").arg("to").arg(format!("customer-{}", at.any(1, 900)));
    add.query::<String>(conn)?;
    let mut read = cmd("XREADGROUP");
    read.arg("GROUP").arg("senders").arg(format!("worker-{}", at.any(2, 3)));
    read.arg("COUNT").arg(2).arg("STREAMS").arg("mails").arg(">");
    let mails = match read.query::<redis::streams::StreamReadReply>(conn) {
        // At the start, and after the accident.
        Err(e) if e.code() == Some("NOGROUP") => {
            cmd("XGROUP").arg("CREATE").arg("mails").arg("senders").arg("$").arg("MKSTREAM").query::<Value>(conn)?;
            return Ok(3);
        }
        other => other?,
    };
    // Some mails are never acknowledged: they stay pending.
    for mail in mails.keys.iter().flat_map(|k| &k.ids).filter(|_| !at.n.is_multiple_of(9)) {
        cmd("XACK").arg("mails").arg("senders").arg(&mail.id).query::<i64>(conn)?;
    }
    Ok(3)
}

fn pricing(conn: &mut Connection, at: &Step) -> RedisResult<u64> {
    let sku = format!("sku:{}", at.any(1, 200));
    let mut script = cmd("EVAL");
    script.arg(SCRIPT).arg(3).arg("price:ticks").arg("prices").arg("price:list").arg(at.any(2, 9)).arg(&sku);
    script.query::<i64>(conn)?;
    if !at.functions {
        return Ok(1);
    }
    if at.n == 0 {
        cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(FUNCTIONS).query::<String>(conn)?;
    }
    cmd("FCALL")
        .arg("reprice")
        .arg(1)
        .arg(format!("article:{}", at.any(3, 80)))
        .arg("cents")
        .arg(at.n)
        .query::<Value>(conn)?;
    Ok(2)
}

fn sessions(conn: &mut Connection, at: &Step) -> RedisResult<u64> {
    let key = format!("session:{}", at.any(1, 300));
    let bytes: Vec<u8> = (0..64).map(|i| at.any(i, 256) as u8).collect();
    let mut commands = pipe();
    commands.cmd("SET").arg(&key).arg(bytes).arg("EX").arg(3600);
    commands.cmd("SET").arg(format!("flash:{}", at.any(2, 50))).arg("saved!").arg("PX").arg(80);
    if at.n.is_multiple_of(5) {
        commands.cmd("APPEND").arg(&key).arg(b"\r\n\0tail");
        commands.cmd("RENAME").arg(&key).arg(format!("session:{}", at.any(3, 300)));
    }
    run(&commands, conn)
}

/// What one application has done so far.
pub(super) struct Done {
    pub(super) name: &'static str,
    pub(super) writes: &'static str,
    pub(super) commands: u64,
}

/// All of them, running; ended when dropped.
pub(super) struct Apps {
    gate: Arc<RwLock<()>>,
    stop: Arc<AtomicBool>,
    counts: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Apps {
    /// Starts them.
    pub(super) fn start(url: &str, functions: bool) -> anyhow::Result<Self> {
        let mut apps = Self { gate: Arc::default(), stop: Arc::default(), counts: Vec::new(), threads: Vec::new() };
        for app in &APPS {
            let mut conn = connect(&format!("{url}/{}", app.db), app.name)?;
            let (gate, stop, count) = (apps.gate.clone(), apps.stop.clone(), Arc::new(AtomicU64::new(0)));
            apps.counts.push(count.clone());
            let work = move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    {
                        let _open = gate.read().unwrap_or_else(PoisonError::into_inner);
                        let done = (app.step)(&mut conn, &Step { n, functions });
                        let done = done.with_context(|| format!("the demo's client {} failed", app.name))?;
                        count.fetch_add(done, Ordering::Relaxed);
                    }
                    std::thread::sleep(BREATH);
                }
                Ok(())
            };
            apps.threads.push(std::thread::Builder::new().name(app.name.to_owned()).spawn(work)?);
        }
        Ok(apps)
    }

    /// They stand still, with no command under way, until the guard is dropped.
    pub(super) fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each has done so far.
    pub(super) fn done(&self) -> Vec<Done> {
        let done = |(app, count): (&App, &Arc<AtomicU64>)| Done {
            name: app.name,
            writes: app.writes,
            commands: count.load(Ordering::Relaxed),
        };
        APPS.iter().zip(&self.counts).map(done).collect()
    }

    /// Ends them; says why one ended early, if one did.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow::anyhow!("a client of the demo panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Apps {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // The demo has failed already; this would not be news.
            let _ = thread.join();
        }
    }
}

/// A connection with a name.
pub(super) fn connect(url: &str, name: &str) -> anyhow::Result<Connection> {
    let mut conn = open(url, WORK_TIMEOUT).with_context(|| format!("connect {name}"))?;
    cmd("CLIENT").arg("SETNAME").arg(name).query::<()>(&mut conn)?;
    Ok(conn)
}
