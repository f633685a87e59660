//! Numbers that can be relied on: a real Prometheus scrapes a real redtape under load, and every panel
//! of the dashboard shows something; the alert rules load, evaluate, and fire when they should.
//!
//! Grafana's own part (drawing) is not run: the dashboard's JSON is linted instead.

use crate::harness::{Dir, Redtape, Server, free_port, tail, wait_for};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What Grafana puts in for `$__rate_interval`, for a scrape each second.
const RATE_INTERVAL: &str = "5s";

#[test]
fn dashboard_is_complete_and_well_formed() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39), "what Grafana 10.2 and later import");
    let known_units = ["s", "bytes", "Bps", "ops", "cps", "none", "bool_yes_no"];
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    let mut covered: Vec<(String, [u64; 4])> = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap_or_default();
        assert!(!title.is_empty(), "a title: {panel}");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is used twice");
        let place = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|n| place[n].as_u64().expect("a place on the grid"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}: the grid has 24 columns");
        for (other, [ox, oy, ow, oh]) in &covered {
            let apart = x + w <= *ox || ox + ow <= x || y + h <= *oy || oy + oh <= y;
            assert!(apart, "{title} lies over {other}");
        }
        covered.push((title.to_owned(), [x, y, w, h]));
        if panel["type"] == "row" {
            continue;
        }
        titles.insert(title);
        assert!(panel["description"].as_str().is_some_and(|d| d.len() > 20), "{title}: a description");
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
        assert!(known_units.contains(&unit), "{title}: unit {unit:?}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}: the datasource is the variable");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}: a query");
        let mut refs = BTreeSet::new();
        for target in targets {
            let query = target["expr"].as_str().unwrap_or_default();
            assert!(!metrics_in(query).is_empty(), "{title}: a query of redtape's metrics");
            assert!(refs.insert(target["refId"].as_str().unwrap()), "{title}: each query has its own refId");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}: the datasource is the variable");
            let rate = query.contains("rate(") || query.contains("increase(");
            assert_eq!(rate, query.contains("[$__rate_interval]"), "{title}: rates go with the zoom: {query}");
        }
    }
    let variables: BTreeSet<_> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(variables, BTreeSet::from(["datasource", "instance"]));
    for wanted in ["Tap lag in seconds", "Tap lag in bytes", "Commands", "Would be lost now", "Restorable back to"] {
        assert!(titles.contains(wanted), "a panel {wanted:?}");
    }
}

#[test]
fn alert_rules_are_valid_and_fire_when_they_should() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let out = Command::new("promtool").args(args).current_dir(&dir).output().expect("promtool");
        let said = [out.stdout, out.stderr].concat();
        assert!(out.status.success(), "promtool {}: {}", args.join(" "), String::from_utf8_lossy(&said));
    }
    // Each rule is among what is tested.
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let names: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        assert_eq!(tests.matches(&format!("{name}\n        exp_alerts:\n")).count(), 1, "a test in which {name} fires");
        assert!(tests.contains(&format!("alertname: {name}, exp_alerts: []")), "a test in which {name} is quiet");
    }
}

#[test]
fn every_panel_shows_numbers_under_load() {
    let server = Server::start();
    let journal = Dir::new("journal");
    // With it, every panel has something to show.
    let redtape = Redtape::start(&server.url(), journal.path(), &["--ack", "journal"]);
    let prometheus = Prometheus::scraping(redtape.metrics_port);
    let stop = AtomicBool::new(false);
    let stop = &stop;
    std::thread::scope(|scope| {
        for client in 0..4 {
            let mut conn = crate::harness::Conn::open(&redtape.url()).expect("the proxy");
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("key:{client}:{}", n % 100);
                    conn.must(&args!["SET", key, n]);
                    conn.must(&args!["GET", key]);
                    conn.must(&args!["SET", format!("soon:{client}:{}", n % 50), n, "PX", 20]);
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let mut outsider = server.conn();
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                outsider.must(&args!["INCR", "counted past the proxy"]);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        // Ends the load also when something below panics.
        let _stopper = Stopper(stop);
        prometheus.wait_for_samples(7);
        let page = check_page(&redtape);
        check_panels(&prometheus, &page);
        check_rules(&prometheus);
    });
}

struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The page is what `promtool check metrics` accepts; gives the names on it and their types.
fn check_page(redtape: &Redtape) -> BTreeMap<String, String> {
    let page = redtape.metrics().expect("the page");
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let out = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success() && said.is_empty(), "promtool check metrics: {said}");
    let types = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' '));
    let types: BTreeMap<_, _> = types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
    for (name, kind) in &types {
        assert!(name.starts_with("redtape_"), "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
    types
}

fn check_panels(prometheus: &Prometheus, page: &BTreeMap<String, String>) {
    let dashboard = dashboard();
    let mut used = BTreeSet::new();
    let mut shown = BTreeMap::new();
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|p| p["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            let query = fill_in(target["expr"].as_str().unwrap());
            for name in metrics_in(&query) {
                let family = name.strip_suffix("_bucket").unwrap_or(&name).to_owned();
                assert!(page.contains_key(&family), "{title}: no metric {name} on the page");
                used.insert(family);
            }
            let values = prometheus.query(&query);
            assert!(!values.is_empty(), "{title}: nothing comes of {query}");
            for (labels, value) in &values {
                assert!(value.is_finite(), "{title}: {value} for {labels} of {query}");
            }
            println!("{title:<36} {:?}", values.values().take(5).collect::<Vec<_>>());
            shown.entry(title.to_owned()).or_insert_with(Vec::new).extend(values.into_values());
        }
    }
    let forgotten: Vec<_> = page.keys().filter(|name| !used.contains(*name)).collect();
    assert!(forgotten.is_empty(), "no panel shows {forgotten:?}");
    // Not only finite: what the load must look like.
    let least = |title: &str| shown[title].iter().copied().fold(f64::INFINITY, f64::min);
    let most = |title: &str| shown[title].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(least("Journaling"), 1.0);
    assert_eq!(least("Timeline"), 1.0);
    assert!(most("Would be lost now") < 10.0, "{}", most("Would be lost now"));
    assert!(least("Commands") > 100.0, "{}", least("Commands"));
    assert!(least("Traffic") > 1000.0, "{}", least("Traffic"));
    assert!(least("Sessions") >= 4.0, "{}", least("Sessions"));
    assert!(least("From request to journal") > 0.0);
    assert!(most("Who writes") > 50.0 && shown["Who writes"].len() >= 3, "{:?}", shown["Who writes"]);
    assert!(least("Captured, written and durable LSN") > 100.0);
    assert!(least("Replication stream") > 1000.0);
    assert_eq!(most("Errors by kind"), 0.0, "{:?}", shown["Errors by kind"]);
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        if let Some(query) = annotation["expr"].as_str() {
            assert!(prometheus.query(&fill_in(query)).is_empty(), "no gap, no mark for one");
        }
    }
}

/// The rules load into a Prometheus, evaluate, and none of them fires while all is well.
fn check_rules(prometheus: &Prometheus) {
    wait_for("the alert rules being evaluated", Duration::from_secs(20), || {
        let groups = prometheus.get("/api/v1/rules?type=alert");
        let rules = groups["data"]["groups"].as_array()?.iter().flat_map(|g| g["rules"].as_array().unwrap().clone());
        let rules: Vec<Value> = rules.collect();
        let done = !rules.is_empty() && rules.iter().all(|r| r["health"] != "unknown");
        for rule in rules.iter().filter(|_| done) {
            assert_eq!(rule["health"], "ok", "{rule}");
            assert_ne!(rule["state"], "firing", "{rule}");
        }
        done.then_some(())
    });
}

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/redtape.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).expect("JSON")
}

/// As Grafana does for "All" instances.
fn fill_in(query: &str) -> String {
    let query = query.replace("$__rate_interval", RATE_INTERVAL).replace("$instance", ".*");
    assert!(!query.contains('$'), "an unknown variable in {query}");
    query
}

/// The names of redtape's metrics in a query.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|w| w.starts_with("redtape_")).map(str::to_owned).collect()
}

/// A real Prometheus with the project's alert rules, killed on drop.
struct Prometheus {
    child: Child,
    port: u16,
    dir: Dir,
}

impl Prometheus {
    fn scraping(port: u16) -> Self {
        let dir = Dir::new("prometheus");
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/alerts.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n- job_name: redtape\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
        );
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        let own = free_port();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{own}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("prometheus (scripts/install-servers.sh brings it)");
        let prometheus = Self { child, port: own, dir };
        wait_for("Prometheus", Duration::from_secs(30), || http_get(own, "/-/ready").filter(|(ok, _)| *ok));
        prometheus
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn get(&self, path: &str) -> Value {
        let (_, body) = http_get(self.port, path).unwrap_or_else(|| panic!("{path}: no answer"));
        let value: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
        assert_eq!(value["status"], "success", "{path}: {body}");
        value
    }

    /// Each series of an instant query: its labels and value.
    fn query(&self, query: &str) -> BTreeMap<String, f64> {
        let encoded: String = query.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"));
        let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
        series.iter().map(|s| (s["metric"].to_string(), s["value"][1].as_str().unwrap().parse().unwrap())).collect()
    }

    fn wait_for_samples(&self, wanted: u32) {
        wait_for("Prometheus's samples", Duration::from_secs(40), || {
            let counted = self.query("count_over_time(redtape_commands_total[1m])");
            counted.values().any(|n| *n >= f64::from(wanted)).then_some(())
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("prometheus: log\n{}", tail(&self.log(), 20));
        }
    }
}

/// Whether the answer is a 200, and its body.
fn http_get(port: u16, path: &str) -> Option<(bool, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.contains(" 200 "), body.to_owned()))
}
