//! Interprets one request for its session. Pure.

use redtape_wire::url::Secret;
use redtape_wire::word;

use super::replies::{Credential, Hello, Intent, Kind, PinReasons};

/// How to treat a request besides passing it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// An ordinary request, with its effect if the server accepts it.
    Normal(Intent),
    /// `CLIENT REPLY ON | OFF | SKIP`.
    Reply(ReplyMode),
    /// Its effect is unknown: it may be any command, or the deciding part is missing.
    Unclear,
}

/// `CLIENT REPLY`'s argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyMode {
    On,
    Off,
    Skip,
}

/// A connection's name as text: servers take printable ASCII only.
fn text(arg: Option<&&[u8]>) -> Option<String> {
    arg.map(|a| String::from_utf8_lossy(a).into_owned())
}

/// True if the effect of a request on its session depends on unknown parts.
fn is_unclear(name: &[u8], args: &[&[u8]], argc: usize) -> bool {
    // Number of first arguments that determine its effect.
    let deciding = match name {
        b"hello" => argc,
        b"auth" | b"client" => 3,
        b"acl" | b"script" | b"select" => 2,
        _ => 1,
    };
    let ambiguous = |at: usize| args.get(at).is_some_and(|arg| word::is_ambiguous(arg));
    // For other commands the subcommand does not matter, or the stronger effect is assumed.
    ambiguous(0) || (name == b"client" && ambiguous(1)) || args.len() < deciding.min(argc)
}

/// Interprets a request. `args` may lack the end of a huge one, `argc` is its full count.
pub(crate) fn meaning(name: &[u8], args: &[&[u8]], argc: usize, in_multi: bool) -> Meaning {
    if is_unclear(name, args, argc) {
        return Meaning::Unclear;
    }
    let intent = match name {
        // With too many arguments it still ends the transaction; otherwise it has no effect. Whether there is a
        // transaction may be known only later: an earlier DISCARD may be refused.
        b"exec" => Intent::Exec,
        b"discard" if in_multi && argc == 1 => Intent::Discard,
        b"multi" if argc == 1 => Intent::Multi,
        b"quit" => Intent::Quit,
        b"reset" if argc == 1 => Intent::Reset,
        b"monitor" | b"sync" | b"psync" => Intent::Raw,
        b"select" => {
            let db = args.get(1).and_then(|a| std::str::from_utf8(a).ok()).and_then(|s| s.parse().ok());
            db.map_or(Intent::Plain, Intent::Select)
        }
        b"auth" if argc == 2 => Intent::Auth(Box::new(credential(Some(&b"default".as_slice()), args.get(1)))),
        b"auth" => Intent::Auth(Box::new(credential(args.get(1), args.get(2)))),
        b"hello" => Intent::Hello(Box::new(hello(args))),
        b"client" => match client(args, argc) {
            Meaning::Normal(intent) => intent,
            Meaning::Unclear => return Meaning::Unclear,
            reply @ Meaning::Reply(_) if !in_multi => return reply,
            // Takes effect in the middle of the answer to EXEC, which may then never be completed.
            Meaning::Reply(_) => Intent::Raw,
        },
        b"subscribe" | b"psubscribe" | b"ssubscribe" => Intent::Subscribe(argc.saturating_sub(1).max(1)),
        b"unsubscribe" | b"punsubscribe" | b"sunsubscribe" if argc > 1 => Intent::Subscribe(argc - 1),
        b"watch" => Intent::Pin(PinReasons::WATCH),
        b"unwatch" if !in_multi => Intent::Unpin(PinReasons::WATCH),
        b"asking" => Intent::Pin(PinReasons::ASKING),
        b"readonly" => Intent::Pin(PinReasons::READONLY),
        b"acl" if args.get(1).is_some_and(|a| word::is_one_of(a, &["setuser", "deluser", "load"])) => {
            Intent::Pin(PinReasons::DOUBT)
        }
        // The field sets that it prepares belong to the connection.
        b"himport" => Intent::Unknown,
        b"readwrite" => Intent::Unpin(PinReasons::READONLY),
        b"script" if args.get(1).is_some_and(|a| word::is(a, "debug")) => Intent::Pin(PinReasons::FOREVER),
        b"unsubscribe" => Intent::UnsubscribeAll(Kind::Channel, None),
        b"punsubscribe" => Intent::UnsubscribeAll(Kind::Pattern, None),
        b"sunsubscribe" => Intent::UnsubscribeAll(Kind::Shard, None),
        _ => Intent::Plain,
    };
    let at_once = matches!(intent, Intent::Exec | Intent::Discard | Intent::Quit | Intent::Reset);
    Meaning::Normal(if in_multi && !at_once { Intent::Queued(Box::new(intent)) } else { intent })
}

fn credential(user: Option<&&[u8]>, password: Option<&&[u8]>) -> Credential {
    let secret = password.and_then(|p| std::str::from_utf8(p).ok()).map(Secret::new);
    Credential { user: user.map(|u| u.to_vec()).unwrap_or_default(), password: secret }
}

fn hello(args: &[&[u8]]) -> Hello {
    let resp3 = args.get(1).and_then(|a| match *a {
        b"2" => Some(false),
        b"3" => Some(true),
        _ => None,
    });
    let mut hello = Hello { resp3, ..Hello::default() };
    let mut at = 2;
    while at < args.len() {
        if word::is(args[at], "auth") {
            hello.several_users |= hello.auth.is_some();
            hello.auth = Some(credential(args.get(at + 1), args.get(at + 2)));
            at += 3;
        } else if word::is(args[at], "setname") {
            hello.name = text(args.get(at + 1));
            at += 2;
        } else {
            at += 1;
        }
    }
    hello
}

fn client(args: &[&[u8]], argc: usize) -> Meaning {
    let is = |i: usize, word: &str| args.get(i).is_some_and(|a| word::is(a, word));
    if is(1, "setname") {
        let name = text(args.get(2));
        return Meaning::Normal(name.map_or(Intent::Plain, |n| Intent::SetName(n.into_boxed_str())));
    }
    if is(1, "reply") && argc == 3 {
        for (word, mode) in [("on", ReplyMode::On), ("off", ReplyMode::Off), ("skip", ReplyMode::Skip)] {
            if is(2, word) {
                return Meaning::Reply(mode);
            }
        }
    }
    for (word, hold) in
        [("tracking", PinReasons::TRACKING), ("no-evict", PinReasons::NO_EVICT), ("no-touch", PinReasons::NO_TOUCH)]
    {
        if is(1, word) {
            return Meaning::Normal(if is(2, "off") { Intent::Unpin(hold) } else { Intent::Pin(hold) });
        }
    }
    if is(1, "kill") {
        return Meaning::Normal(Intent::Pin(PinReasons::DOUBT));
    }
    if is(1, "unpause") {
        return Meaning::Normal(Intent::Pause(0));
    }
    if is(1, "pause")
        && let Some(millis) = args.get(2).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok())
    {
        return Meaning::Normal(Intent::Pause(millis));
    }
    if is(1, "capa") || is(1, "import-source") {
        return Meaning::Normal(Intent::Pin(PinReasons::FOREVER));
    }
    Meaning::Normal(Intent::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, in_multi: bool) -> Meaning {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        meaning(args[0].to_ascii_lowercase().as_slice(), &args, args.len(), in_multi)
    }

    #[test]
    fn meanings() {
        let normal = Meaning::Normal;
        let ann = |user: &str| Credential { user: user.into(), password: Some(Secret::new("secret")) };
        for (line, want) in [
            ("GET k", normal(Intent::Plain)),
            ("SELECT 3", normal(Intent::Select(3))),
            ("SELECT x", normal(Intent::Plain)),
            ("AUTH secret", normal(Intent::Auth(Box::new(ann("default"))))),
            ("AUTH ann secret", normal(Intent::Auth(Box::new(ann("ann"))))),
            (
                "HELLO 3 AUTH ann secret SETNAME app",
                normal(Intent::Hello(Box::new(Hello {
                    resp3: Some(true),
                    auth: Some(ann("ann")),
                    name: Some("app".into()),
                    several_users: false,
                }))),
            ),
            (
                "HELLO 2 AUTH bob secret AUTH ann secret",
                normal(Intent::Hello(Box::new(Hello {
                    resp3: Some(false),
                    auth: Some(ann("ann")),
                    several_users: true,
                    ..Hello::default()
                }))),
            ),
            ("HELLO", normal(Intent::Hello(Box::default()))),
            ("CLIENT SETNAME app", normal(Intent::SetName("app".into()))),
            ("CLIENT REPLY OFF", Meaning::Reply(ReplyMode::Off)),
            ("CLIENT ID", normal(Intent::Plain)),
            ("client tracking on bcast", normal(Intent::Pin(PinReasons::TRACKING))),
            ("CLIENT TRACKING off", normal(Intent::Unpin(PinReasons::TRACKING))),
            ("HIMPORT PREPARE s a b", normal(Intent::Unknown)),
            ("CLIENT CAPA redirect", normal(Intent::Pin(PinReasons::FOREVER))),
            ("WATCH k", normal(Intent::Pin(PinReasons::WATCH))),
            ("SCRIPT LOAD x", normal(Intent::Plain)),
            ("SUBSCRIBE a b", normal(Intent::Subscribe(2))),
            ("UNSUBSCRIBE", normal(Intent::UnsubscribeAll(Kind::Channel, None))),
            ("PUNSUBSCRIBE a", normal(Intent::Subscribe(1))),
            ("MONITOR", normal(Intent::Raw)),
            ("QUIT", normal(Intent::Quit)),
            // As the server reads words: up to the first NUL.
            (
                "HELLO 3 AUTH\0x ann secret setname\0 app",
                normal(Intent::Hello(Box::new(Hello {
                    resp3: Some(true),
                    auth: Some(ann("ann")),
                    name: Some("app".into()),
                    several_users: false,
                }))),
            ),
            ("CLIENT REPLY OFF\0", Meaning::Reply(ReplyMode::Off)),
            ("CLIENT REPLY OFF x", normal(Intent::Plain)),
            ("CLIENT TRACKING off\0x", normal(Intent::Unpin(PinReasons::TRACKING))),
            ("ACL setuser\0 x", normal(Intent::Pin(PinReasons::DOUBT))),
            ("SCRIPT DEBUG\0 yes", normal(Intent::Pin(PinReasons::FOREVER))),
            ("CLIENT REPLY\0 OFF", Meaning::Unclear),
            ("AUTH\x00409 ann secret", Meaning::Unclear),
            // No server accepts such numbers.
            ("SELECT 3\0", normal(Intent::Plain)),
            ("HELLO 03", normal(Intent::Hello(Box::default()))),
        ] {
            assert_eq!(read(line, false), want, "{line}");
        }
        assert_eq!(read("SELECT 3", true), normal(Intent::Queued(Box::new(Intent::Select(3)))));
        assert_eq!(read("CLIENT REPLY OFF", true), normal(Intent::Queued(Box::new(Intent::Raw))));
        assert_eq!(read("EXEC", true), normal(Intent::Exec));
        // Refused unless the MULTI before it was refused.
        assert_eq!(read("MULTI", true), normal(Intent::Queued(Box::new(Intent::Multi))));
    }
}
