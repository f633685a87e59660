//! What one request means for its session: pure.

use super::replies::{Intent, Kind};

/// What to do about one request besides passing it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Ordinary, with what it changes when the server agrees.
    Normal(Intent),
    /// `CLIENT REPLY ON | OFF | SKIP`.
    Reply(ReplyMode),
}

/// `CLIENT REPLY`'s argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyMode {
    On,
    Off,
    Skip,
}

fn text(arg: Option<&&[u8]>) -> Option<String> {
    arg.map(|a| String::from_utf8_lossy(a).into_owned())
}

/// Reads a request. `args` may lack the end of a huge one, `argc` is its full count.
pub(crate) fn meaning(name: &[u8], args: &[&[u8]], argc: usize, in_multi: bool) -> Meaning {
    let intent = match name {
        b"exec" if in_multi => Intent::Exec,
        b"discard" if in_multi => Intent::Discard,
        b"multi" if !in_multi => Intent::Multi,
        b"quit" | b"shutdown" => Intent::Farewell,
        b"reset" => Intent::Reset,
        b"monitor" | b"sync" | b"psync" => Intent::Raw,
        b"select" => {
            let db = args.get(1).and_then(|a| std::str::from_utf8(a).ok()).and_then(|s| s.parse().ok());
            db.map_or(Intent::Plain, Intent::Select)
        }
        b"auth" => Intent::Auth(if argc == 2 { "default".to_owned() } else { text(args.get(1)).unwrap_or_default() }),
        b"hello" => hello(args),
        b"client" => match client(args) {
            Meaning::Normal(intent) => intent,
            // Takes effect when it runs, and is answered as it then is.
            reply @ Meaning::Reply(_) if !in_multi => return reply,
            Meaning::Reply(_) => Intent::Plain,
        },
        b"subscribe" | b"psubscribe" | b"ssubscribe" => Intent::Subscribe(argc.saturating_sub(1).max(1)),
        b"unsubscribe" | b"punsubscribe" | b"sunsubscribe" if argc > 1 => Intent::Subscribe(argc - 1),
        b"unsubscribe" => Intent::UnsubscribeAll(Kind::Channel, None),
        b"punsubscribe" => Intent::UnsubscribeAll(Kind::Pattern, None),
        b"sunsubscribe" => Intent::UnsubscribeAll(Kind::Shard, None),
        _ => Intent::Plain,
    };
    let at_once = matches!(intent, Intent::Exec | Intent::Discard | Intent::Multi | Intent::Farewell | Intent::Reset);
    Meaning::Normal(if in_multi && !at_once { Intent::Queued(Box::new(intent)) } else { intent })
}

fn hello(args: &[&[u8]]) -> Intent {
    let resp3 = args.get(1).and_then(|a| match *a {
        b"2" => Some(false),
        b"3" => Some(true),
        _ => None,
    });
    let (mut user, mut name) = (None, None);
    let mut at = 2;
    while at < args.len() {
        if args[at].eq_ignore_ascii_case(b"auth") {
            user = text(args.get(at + 1));
            at += 3;
        } else if args[at].eq_ignore_ascii_case(b"setname") {
            name = text(args.get(at + 1));
            at += 2;
        } else {
            at += 1;
        }
    }
    Intent::Hello { resp3, user, name }
}

fn client(args: &[&[u8]]) -> Meaning {
    let is = |i: usize, word: &str| args.get(i).is_some_and(|a| a.eq_ignore_ascii_case(word.as_bytes()));
    if is(1, "setname") {
        return Meaning::Normal(text(args.get(2)).map_or(Intent::Plain, Intent::SetName));
    }
    if is(1, "reply") && args.len() == 3 {
        for (word, mode) in [("on", ReplyMode::On), ("off", ReplyMode::Off), ("skip", ReplyMode::Skip)] {
            if is(2, word) {
                return Meaning::Reply(mode);
            }
        }
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
        for (line, want) in [
            ("GET k", normal(Intent::Plain)),
            ("SELECT 3", normal(Intent::Select(3))),
            ("SELECT x", normal(Intent::Plain)),
            ("AUTH secret", normal(Intent::Auth("default".into()))),
            ("AUTH ann secret", normal(Intent::Auth("ann".into()))),
            (
                "HELLO 3 AUTH ann s SETNAME app",
                normal(Intent::Hello { resp3: Some(true), user: Some("ann".into()), name: Some("app".into()) }),
            ),
            ("HELLO", normal(Intent::Hello { resp3: None, user: None, name: None })),
            ("CLIENT SETNAME app", normal(Intent::SetName("app".into()))),
            ("CLIENT REPLY OFF", Meaning::Reply(ReplyMode::Off)),
            ("CLIENT ID", normal(Intent::Plain)),
            ("SUBSCRIBE a b", normal(Intent::Subscribe(2))),
            ("UNSUBSCRIBE", normal(Intent::UnsubscribeAll(Kind::Channel, None))),
            ("PUNSUBSCRIBE a", normal(Intent::Subscribe(1))),
            ("MONITOR", normal(Intent::Raw)),
            ("QUIT", normal(Intent::Farewell)),
        ] {
            assert_eq!(read(line, false), want, "{line}");
        }
        assert_eq!(read("SELECT 3", true), normal(Intent::Queued(Box::new(Intent::Select(3)))));
        assert_eq!(read("EXEC", true), normal(Intent::Exec));
    }
}
