use redis::{Value, parse_redis_value};

use super::super::wording::Wording;
use super::*;

const SAMPLES: &str = include_str!("samples.txt");
const SECTION_TEXT: &str = "# Redtape\r\nproxy_version:1\r\n";

/// One reply of a real server.
struct Sample {
    server: &'static str,
    version: &'static str,
    resp3: bool,
    request: &'static str,
    reply: Vec<u8>,
}

fn samples() -> Vec<Sample> {
    let lines = SAMPLES.lines().filter(|l| !l.starts_with('#'));
    let sample = |line: &'static str| {
        let mut parts = line.split('\t');
        let mut part = || parts.next().unwrap();
        let (server, resp3, request, reply) = (part(), part() == "3", part(), part());
        let reply = reply.replace("\\r", "\r").replace("\\n", "\n").into_bytes();
        Sample { server, version: server.split_once('-').unwrap().1, resp3, request, reply }
    };
    lines.map(sample).collect()
}

fn asked(request: &str) -> Option<Completion> {
    completion(&request.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

impl Sample {
    fn completed(&self) -> Option<Vec<u8>> {
        let usual = Shape::usual(Wording::of(self.version), self.resp3);
        let whole = asked(self.request)?.apply(&self.reply, || SECTION_TEXT.to_owned(), &usual)?;
        assert_eq!(element_end(&whole, 0), Some(whole.len()), "{}", whole.escape_ascii());
        Some(whole)
    }

    fn since_7(&self) -> bool {
        self.version > "7"
    }
}

fn values(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        other => panic!("{other:?}"),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(b) => String::from_utf8_lossy(b).into_owned(),
        Value::SimpleString(s) => s.clone(),
        Value::VerbatimString { text, .. } => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// The row as text: names and numbers, and of lists their type and elements.
fn row(value: &Value) -> String {
    let one = |value: &Value| match value {
        Value::Int(n) => n.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Set(items) => format!("{{{}}}", items.iter().map(text).collect::<Vec<_>>().join(" ")),
        other => text(other),
    };
    values(value).iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_section_stands_behind_the_servers_own() {
    let mut seen = 0;
    for s in samples().iter().filter(|s| s.request.starts_with("INFO")) {
        let Some(whole) = s.completed() else {
            assert!(s.reply.starts_with(b"-ERR"), "{} {}", s.server, s.request);
            continue;
        };
        let before = text(&parse_redis_value(&s.reply).unwrap());
        let after = parse_redis_value(&whole).unwrap();
        assert_eq!(matches!(after, Value::VerbatimString { .. }), s.resp3);
        let apart = if before.is_empty() { "" } else { "\r\n" };
        assert_eq!(text(&after), format!("{before}{apart}{SECTION_TEXT}"), "{} {}", s.server, s.request);
        seen += 1;
    }
    assert_eq!(seen, 16);
}

#[test]
fn command_ends_with_our_rows_in_the_servers_shape() {
    let mut seen = 0;
    for s in samples().iter().filter(|s| s.request == "COMMAND") {
        let (before, after) =
            (parse_redis_value(&s.reply).unwrap(), parse_redis_value(&s.completed().unwrap()).unwrap());
        let (before, after) = (values(&before), values(&after));
        assert_eq!(&after[..before.len()], before, "{}", s.server);
        let rows: Vec<String> = after[before.len()..].iter().map(row).collect();
        let (open, close) = if s.resp3 { ('{', '}') } else { ('[', ']') };
        let list = |words: &str| format!("{open}{words}{close}");
        let expected = if s.since_7() {
            // Where subcommands would stand, Redis has a set in RESP3 if there are none, and Valkey 9 a list.
            let none = if s.server == "valkey-9.1.2" || !s.resp3 { "[]".to_owned() } else { list("") };
            let none = format!("{} {} {none}", list(""), list(""));
            [
                format!(
                    "redtape.info 1 {} 0 0 0 {} {none}",
                    list("readonly module noscript loading stale fast no_multi"),
                    list("@read @fast")
                ),
                format!(
                    "redtape.mark 2 {} 0 0 0 {} {none}",
                    list("admin module noscript loading stale no_multi"),
                    list("@admin @slow @dangerous")
                ),
            ]
        } else {
            [
                format!(
                    "redtape.info 1 {} 0 0 0 {}",
                    list("readonly noscript loading stale fast"),
                    list("@read @fast")
                ),
                format!(
                    "redtape.mark 2 {} 0 0 0 {}",
                    list("admin noscript loading stale"),
                    list("@admin @slow @dangerous")
                ),
            ]
        };
        assert_eq!((rows.len(), &rows[0], &rows[2]), (6, &expected[0], &expected[1]), "{}", s.server);
        assert!(s.since_7() || values(&after[0]).len() == 7);
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn command_info_has_rows_instead_of_nils() {
    let mut seen = 0;
    for s in samples().iter().filter(|s| s.request.starts_with("COMMAND INFO")) {
        let Some(whole) = s.completed() else {
            assert_eq!((s.server, s.request), ("redis-6.0.16", "COMMAND INFO"), "it gives no rows at all");
            continue;
        };
        let (before, after) = (parse_redis_value(&s.reply).unwrap(), parse_redis_value(&whole).unwrap());
        let (before, after) = (values(&before), values(&after));
        assert_eq!(before.len(), after.len());
        let width = if s.since_7() { 10 } else { 7 };
        assert_eq!(values(&after[0]).len(), width, "{}", s.server);
        if let [_, get, nosuch] = after {
            assert_eq!((get, nosuch), (&before[1], &Value::Nil));
            assert!(row(&after[0]).starts_with("redtape.mark 2 "));
        } else {
            assert!(row(&after[0]).starts_with("redtape.lsn 1 "));
        }
        seen += 1;
    }
    assert_eq!(seen, 16);
}

#[test]
fn count_list_docs_and_getkeys() {
    let mut seen = 0;
    for s in samples() {
        let (server, request) = (s.server, s.request);
        if request.starts_with("INFO") || request == "COMMAND" || request.starts_with("COMMAND INFO") {
            continue;
        }
        seen += 1;
        let whole = s.completed();
        let getkeys = request.starts_with("COMMAND GETKEYS");
        if request == "COMMAND GETKEYS get redtape.mark" || (s.reply.starts_with(b"-ERR") && !getkeys) {
            assert_eq!(whole, None, "{server} {request}");
            continue;
        }
        if getkeys {
            assert_eq!(whole.as_deref(), Some(&b"-ERR The command has no key arguments\r\n"[..]), "{server}");
            continue;
        }
        let (before, after) = (parse_redis_value(&s.reply).unwrap(), parse_redis_value(&whole.unwrap()).unwrap());
        match (before, after) {
            (Value::Int(before), Value::Int(after)) => assert_eq!(after, before + 6),
            (Value::Map(before), Value::Map(after)) => {
                assert_eq!(
                    (&after[..before.len()], after.len()),
                    (&before[..], before.len() + 1),
                    "{server} {request}"
                );
                let (name, entry) = &after[before.len()];
                let Value::Map(entry) = entry else { panic!("{entry:?}") };
                let mark = request.contains("mark");
                assert_eq!(text(name), if mark { "redtape.mark" } else { "redtape.lsn" });
                let names: Vec<String> = entry.iter().map(|(name, _)| text(name)).collect();
                let all = ["summary", "since", "group", "module", "arguments"];
                assert_eq!(names, &all[..if mark { 5 } else { 4 }]);
            }
            (Value::Array(before), Value::Array(after)) => {
                assert_eq!(after[..before.len()], before, "{server} {request}");
                let ours: Vec<&Value> = after[before.len()..].iter().collect();
                if request.contains("LIST") {
                    // [er]e*p* is in redtape.help, and in redtape.snapshot; in all of them there is a p.
                    assert_eq!(ours.len(), 6, "{server} {request}");
                } else {
                    let [name, entry] = ours[..] else { panic!("{ours:?}") };
                    assert!(text(name).starts_with("redtape."));
                    assert_eq!(values(entry).len(), if request.contains("mark") { 10 } else { 8 });
                }
            }
            other => panic!("{server} {request}: {other:?}"),
        }
    }
    assert_eq!(seen, 8 * 6);
}

#[test]
fn only_what_lacks_something_is_completed() {
    for (request, expected) in [
        ("INFO", true),
        ("info ALL", true),
        ("INFO everything", true),
        ("INFO Default", true),
        ("INFO modules", true),
        ("INFO server REDTAPE", true),
        ("INFO server", false),
        ("INFO redtape.info", false),
        ("COMMAND", true),
        ("command Count", true),
        ("COMMAND COUNT x", false),
        ("COMMAND INFO", true),
        ("COMMAND INFO get", false),
        ("COMMAND INFO get redtape.help", true),
        ("COMMAND DOCS", true),
        ("COMMAND DOCS get", false),
        ("COMMAND LIST", true),
        ("COMMAND LIST FILTERBY MODULE redtape", true),
        ("COMMAND LIST FILTERBY MODULE json", false),
        ("COMMAND LIST FILTERBY ACLCAT Dangerous", true),
        ("COMMAND LIST FILTERBY ACLCAT geo", false),
        ("COMMAND LIST FILTERBY PATTERN geo*", false),
        ("COMMAND GETKEYS set a b", false),
        ("COMMAND GETKEYSANDFLAGS redtape.mark a", true),
        ("COMMAND HELP", false),
        ("GET INFO", false),
    ] {
        assert_eq!(asked(request).is_some(), expected, "{request}");
    }
    assert_eq!(completion(&[]), None);
    let ours = asked("COMMAND LIST FILTERBY ACLCAT admin").unwrap();
    assert_eq!(ours, Completion(Lacks::Names(vec![2, 3, 4])));
}

#[test]
fn unexpected_replies_are_unchanged() {
    let usual = Shape::usual(Wording::of("7.0.15"), false);
    for request in [
        "INFO",
        "COMMAND",
        "COMMAND COUNT",
        "COMMAND LIST",
        "COMMAND INFO redtape.mark",
        "COMMAND DOCS",
        "COMMAND GETKEYS redtape.mark",
    ] {
        for reply in [
            &b"+QUEUED\r\n"[..],
            b"-NOPERM no\r\n",
            b"-LOADING Redis is loading\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"_\r\n",
            b"",
            b"*2",
        ] {
            let whole = asked(request).unwrap().apply(reply, String::new, &usual);
            assert_eq!(whole, None, "{request} {}", reply.escape_ascii());
        }
    }
    // Fewer elements than names were asked for.
    assert_eq!(asked("COMMAND INFO redtape.mark a").unwrap().apply(b"*1\r\n$-1\r\n", String::new, &usual), None);
}
