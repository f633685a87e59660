//! `redtape demo`: the whole story on servers of its own, told with the commands that a person would
//! type. What is shown has really been run, by our own binary.
//!
//! ```text
//! server ◄── redtape proxy ◄── applications      1, 2
//!   FLUSHALL by `intern`                         3
//! journal cat ─► who and when                    4
//! restore ─► second server                       5
//! compare with what the first one held           6
//! ```
//!
//! Whatever happens, the servers, the proxy and the temporary directories are gone afterwards.

mod apps;
mod children;
mod page;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use redtape_journal::Micros;
use serde::Deserialize;

use self::apps::{Apps, connect};
use self::children::{Interrupt, Proxy, Redtape};
use self::page::{Ink, Page, count, grouped, line};
use self::world::World;
use super::embedded::{EmbeddedServer, WORK_TIMEOUT, free_port, open};
use crate::exit::{Failure, SOFTWARE};
use crate::output::bytes;

/// How long the applications write before the accident, and after it.
const WRITING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(400));
/// Longer than the shortest TTLs: what is about to expire does so before the world is written down.
const CALM: Duration = Duration::from_millis(300);
/// Differences that are shown.
const SHOWN_DIFFERENCES: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  redtape demo")]
pub(crate) struct DemoArgs {}

/// A line of `redtape journal cat --json`, as far as it is needed.
#[derive(Deserialize)]
struct Found {
    lsn: u64,
    ts_us: i64,
    origin: FoundOrigin,
}

#[derive(Deserialize)]
struct FoundOrigin {
    #[serde(default)]
    name: String,
    #[serde(default)]
    addr: String,
}

/// Tells the story; success only if what came back is equal to what was lost.
pub(crate) fn run(_: &DemoArgs) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let told = tell(&interrupt);
    // A step that failed because it was interrupted is no news.
    interrupt.check()?;
    told
}

fn tell(interrupt: &Interrupt) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let mut page = Page::new();
    line(&page.ink(Ink::Title, "redtape: write, lose everything, find out who did it, get it back"))?;

    let dir = tempfile::Builder::new().prefix("redtape-demo-").tempdir()?;
    let journal = dir.path().join("journal").display().to_string();
    let redtape = Redtape::new(dir.path(), interrupt)?;

    page.step("A Redis, and redtape in front of it")?;
    let server = EmbeddedServer::start_with_debug()?;
    let listen = free_port()?;
    page.command(&format!("redtape proxy --upstream {} --listen 127.0.0.1:{listen} --dir {journal}", server.url()))?;
    let mut proxy = redtape.proxy(&server.url(), listen, &journal)?;
    let (name, functions) = about(&server.url())?;
    Page::say(&format!("{name} holds the data; redtape records every write from now on"))?;

    page.step("Seven applications write through redtape for two seconds")?;
    let apps = Apps::start(&proxy.url(), functions)?;
    interrupt.sleep(WRITING.0)?;
    let held = apps.hold();
    interrupt.sleep(CALM)?;
    let before = World::read(&server.url())?;
    // Reading has removed what had expired: that, too, is recorded before the accident.
    proxy.wait_complete(Micros::now().0 as f64 / 1e6, interrupt)?;
    let done = apps.done();
    for app in &done {
        Page::say(&format!("{:<10} {:<42} {:>8} commands", app.name, app.writes, grouped(app.commands)))?;
    }
    Page::say(&format!("{:<10} {:<42} {:>8} commands", "", "", grouped(done.iter().map(|a| a.commands).sum())))?;
    Page::say(&format!("Redis now holds {}", contents(&before)))?;

    page.step("The accident")?;
    let mut intern = connect(&proxy.url(), "intern")?;
    page.command(&format!("redis-cli -p {} FLUSHALL        # by somebody called intern", proxy.port()))?;
    redis::cmd("FLUSHALL").query::<()>(&mut intern)?;
    let left: u64 = redis::cmd("DBSIZE").query(&mut intern)?;
    drop((held, intern));
    interrupt.sleep(WRITING.1)?;
    apps.stop()?;
    let since = World::read(&server.url())?;
    let gone = page.ink(Ink::Bad, &format!("{} left of {}", count(left, "key", "keys"), grouped(before.len())));
    Page::say(&format!("{gone}; the applications notice nothing and write {} new ones", grouped(since.len())))?;

    let accident = find_out(&mut page, &redtape, &mut proxy, &journal, interrupt)?;
    page.step("Back to the microsecond before, in a second server")?;
    let second = EmbeddedServer::start_with_debug()?;
    let took = bring_back(&page, &redtape, &journal, &accident, &second.url())?;
    page.step("Is it the same?")?;
    compare(&page, &before, &World::read(&second.url())?)?;

    proxy.stop()?;
    drop((server, second));
    dir.close().context("remove the demo's directory")?;
    line("")?;
    line(&format!(
        "In short: {} ran FLUSHALL at {}, and {} were gone.\n\
         redtape knew who and when, and one command brought all of them back as they were a microsecond\n\
         before, in {:.1} s. The whole demo took {:.1} s; its servers and files are gone again.",
        who(&accident.origin),
        Micros(accident.ts_us),
        count(before.len(), "key", "keys"),
        took.as_secs_f64(),
        began.elapsed().as_secs_f64()
    ))?;
    line("\nTry it yourself:  redtape proxy --embedded --dir my-journal")?;
    Ok(ExitCode::SUCCESS)
}

/// Who did it, as the journal has it.
fn find_out(
    page: &mut Page,
    redtape: &Redtape,
    proxy: &mut Proxy,
    journal: &str,
    interrupt: &Interrupt,
) -> anyhow::Result<Found> {
    page.step("What happened, and who was it?")?;
    proxy.wait_complete(Micros::now().0 as f64 / 1e6, interrupt)?;
    let cat = ["journal", "cat", "--from", journal, "--command", "FLUSHALL"];
    let accident = find(&redtape.run(&[&cat[..], &["--json"]].concat())?)?;
    page.command(&format!("redtape {}", cat.join(" ")))?;
    for text in redtape.run(&cat)?.lines() {
        Page::say(text.trim_start())?;
    }
    let recorded = proxy.metric("redtape_journal_written_lsn").unwrap_or_default() as u64;
    let size = proxy.metric("redtape_journal_bytes").unwrap_or_default() as u64;
    Page::say(&format!(
        "Number {} of {} effects in the journal ({})",
        grouped(accident.lsn),
        grouped(recorded),
        bytes(size)
    ))?;
    Ok(accident)
}

/// Restores the point just before the accident; how long that took.
fn bring_back(page: &Page, redtape: &Redtape, journal: &str, accident: &Found, to: &str) -> anyhow::Result<Duration> {
    let (at, why) = point_before(redtape, journal, accident, to)?;
    let restore = ["restore", "--from", journal, "--at", &at, "--to", to, "--yes"];
    page.command(&format!("redtape {}", restore.join(" ")))?;
    let started = Instant::now();
    for text in redtape.run(&restore)?.lines() {
        Page::say(text)?;
    }
    let took = started.elapsed();
    Page::say(&why)?;
    Ok(took)
}

/// Success only if all is equal.
fn compare(page: &Page, before: &World, after: &World) -> anyhow::Result<()> {
    Page::say(&format!("before the FLUSHALL   {}", summary(before)))?;
    Page::say(&format!("restored              {}", summary(after)))?;
    let differences = before.differences(after);
    if !differences.is_empty() {
        Page::say(
            &page
                .ink(Ink::Bad, &format!("NOT equal: {}", count(differences.len() as u64, "difference", "differences"))),
        )?;
        for difference in differences.iter().take(SHOWN_DIFFERENCES) {
            Page::say(&format!("  {difference}"))?;
        }
        return Err(Failure::new(SOFTWARE, "what was restored is not what was lost; please report this").into());
    }
    let equal = page.ink(Ink::Good, "equal");
    let ttls = if before.tells_times() { "TTL to the millisecond" } else { "TTL (whether there is one)" };
    let functions = if before.has_functions() { ", functions" } else { "" };
    Page::say(&format!("{equal}: every key, value and {ttls}, stream groups{functions}"))
}

/// Name and version of a server, and whether it knows functions.
fn about(url: &str) -> anyhow::Result<(String, bool)> {
    let mut conn = open(url, WORK_TIMEOUT)?;
    let info: String = redis::cmd("INFO").arg("server").query(&mut conn)?;
    let field = |name: &str| info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let name = match (field("valkey_version"), field("redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, version) => format!("Redis {}", version.unwrap_or("of unknown version")),
    };
    Ok((name, redis::cmd("FUNCTION").arg("LIST").query::<redis::Value>(&mut conn).is_ok()))
}

/// The one FLUSHALL in the output of `journal cat --json`.
fn find(lines: &str) -> anyhow::Result<Found> {
    let mut found = lines.lines().map(serde_json::from_str::<Found>);
    let accident = found.next().context("the FLUSHALL is not in the journal")?.context("read `journal cat --json`")?;
    anyhow::ensure!(found.next().is_none(), "the journal holds more than one FLUSHALL");
    Ok(accident)
}

/// What to give as `--at`, and why so.
///
/// A time is what a person has in mind, so the microsecond before is asked for, if the plan says that
/// its cut is right before the accident. It is not where other writes share the accident's microsecond;
/// the number of the effect before it is exact always.
fn point_before(redtape: &Redtape, journal: &str, accident: &Found, to: &str) -> anyhow::Result<(String, String)> {
    #[derive(Deserialize)]
    struct Plan {
        lsn: u64,
    }
    let (time, before) = (Micros(accident.ts_us - 1).to_string(), accident.lsn - 1);
    let plan = redtape.run(&["restore", "--from", journal, "--at", &time, "--to", to, "--plan", "--json"])?;
    let plan: Plan = serde_json::from_str(&plan).context("read `restore --plan --json`")?;
    let number = format!("lsn:{before}");
    Ok(if plan.lsn == before {
        (time, format!("--at is the FLUSHALL's time less a microsecond; --at {number} is the same point"))
    } else {
        (number, "--at is the number before the FLUSHALL's: other writes share its microsecond".to_owned())
    })
}

fn who(origin: &FoundOrigin) -> String {
    match (origin.name.as_str(), origin.addr.as_str()) {
        ("", "") => "somebody".to_owned(),
        ("", addr) => addr.to_owned(),
        (name, addr) => format!("{name} ({addr})"),
    }
}

fn contents(world: &World) -> String {
    let kinds: Vec<&str> = world.kinds().into_iter().collect();
    format!(
        "{} in {} ({}); {} will expire",
        count(world.len(), "key", "keys"),
        count(world.databases(), "database", "databases"),
        kinds.join(", "),
        grouped(world.expiring())
    )
}

fn summary(world: &World) -> String {
    let digest = world.digest().map_or_else(|| "compared key by key".to_owned(), |d| format!("digest {d}"));
    format!("{:>6} keys   {digest}", grouped(world.len()))
}
