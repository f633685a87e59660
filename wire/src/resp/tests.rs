use proptest::prelude::*;
use redis_protocol::resp2::types::Resp2Frame as _;

use super::request::{Rest, parse_request};
use super::*;

fn args_of(buf: &[u8], args: &Args) -> Vec<Vec<u8>> {
    args.iter().map(|(a, b)| buf[*a..*b].to_vec()).collect()
}

#[test]
fn whole_partial_and_broken_requests() {
    let mut args = Args::new();
    let set = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\nrest";
    assert_eq!(parse_request(set, &mut args), Ok(Parsed::Whole { len: 26 }));
    assert_eq!(args_of(set, &args), [b"SET".to_vec(), b"k".to_vec(), vec![]]);
    let rest = |args_left, bytes_left, announced, consumed| {
        Ok(Parsed::Partial(Some(Rest { args_left, bytes_left, announced, consumed })))
    };
    assert_eq!(parse_request(&set[..25], &mut args), rest(0, 1, 0, 25));
    assert_eq!(parse_request(&set[..14], &mut args), rest(2, 0, 0, 13));
    assert_eq!(parse_request(&set[..11], &mut args), rest(2, 2, 3, 11));
    assert_eq!(parse_request(&set[..9], &mut args), rest(2, 4, 3, 9), "what is missing is not what is announced");
    assert_eq!(parse_request(b"*3\r", &mut args), Ok(Parsed::Partial(None)));
    assert_eq!(parse_request(b"*0\r\nx", &mut args), Ok(Parsed::Whole { len: 4 }));
    assert_eq!(parse_request(b"*-1\r\nx", &mut args), Ok(Parsed::Whole { len: 5 }));
    for bad in [&b"*x\r\n"[..], b"*1\r\n+OK\r\n", b"*1\r\n$-1\r\n", b"*99999999999999999999\r\n"] {
        assert!(parse_request(bad, &mut args).is_err(), "{bad:?}");
    }
}

#[test]
fn inline_requests_as_redis_splits_them() {
    let mut args = Args::new();
    let mut split = |line: &[u8]| match parse_request(line, &mut args) {
        Ok(Parsed::Inline { args, .. }) => {
            args.map(|a| a.iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(split(b"SET  a \"b c\\x21\\n\"\r\n"), Some(vec!["SET".into(), "a".into(), "b c!\n".into()]));
    assert_eq!(split(b"GET 'it\\'s'\n"), Some(vec!["GET".into(), "it's".into()]));
    assert_eq!(split(b"\r\n"), Some(vec![]));
    assert_eq!(split(b"GET \"open\r\n"), None);
    assert_eq!(split(b"GET \"a\"b\r\n"), None);
    assert_eq!(split(b"GET \"a\\x00b\"\r\n"), Some(vec!["GET".into(), "a\0b".into()]));
    // A server sees no end of the line behind a NUL.
    for line in [&b"GET a\0\r\n"[..], b"\0\n", b"AUTH ann\0"] {
        assert_eq!(parse_request(line, &mut Args::new()), Err(ParseError), "{}", line.escape_ascii());
    }
    for line in [&b"\0\n"[..], b"GET a\0b\r\n", b"\0\r\nQUIT\n"] {
        assert!(parse_request(line, &mut args).is_err(), "{line:?}: Redis finds no end of it");
    }
    assert!(parse_request(b"GET a\r\n\0", &mut args).is_ok());
}

/// Every reply form of RESP2 and RESP3, each one frame.
const REPLIES: &[&[u8]] = &[
    b"+OK\r\n",
    b"-ERR no such thing\r\n",
    b":-12\r\n",
    b"$3\r\na\r\n\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:2\r\n",
    b"*2\r\n*1\r\n:1\r\n*2\r\n$1\r\n:\r\n_\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n#t\r\n",
    b"~2\r\n,1.5\r\n(123456789012345678901234567890\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n\r\n\r\n",
    b"=8\r\ntxt:abcd\r\n",
    b"!5\r\nERR x\r\n",
    b"|1\r\n+ttl\r\n:3\r\n$1\r\nv\r\n",
    b"%0\r\n",
];

fn scan_all(bytes: &[u8], step: usize) -> (Vec<(usize, Frame)>, bool) {
    let mut scanner = ReplyScanner::new();
    let (mut at, mut frames) = (0, Vec::new());
    for chunk in bytes.chunks(step) {
        let mut used = 0;
        while used < chunk.len() {
            let (n, frame) = scanner.scan(&chunk[used..]).expect("sound");
            used += n;
            if let Some(frame) = frame {
                frames.push((at + used, frame));
            }
        }
        at += chunk.len();
    }
    (frames, scanner.at_boundary())
}

#[test]
fn replies_end_where_they_end_at_every_split() {
    let stream = REPLIES.concat();
    let mut ends = Vec::new();
    let mut at = 0;
    for reply in REPLIES {
        at += reply.len();
        ends.push((at, reply[0]));
    }
    for step in 1..=stream.len() {
        let (frames, boundary) = scan_all(&stream, step);
        assert!(boundary);
        assert_eq!(frames.iter().map(|(at, f)| (*at, f.kind)).collect::<Vec<_>>(), ends, "step {step}");
        let sub = &frames[8].1;
        assert_eq!((sub.first.as_bytes(), sub.last_integer), (&b"subscribe"[..], 2));
        assert_eq!(frames[1].1.line.as_bytes(), b"ERR no such thing");
        assert_eq!(frames[12].1.first.as_bytes(), b"message");
        assert_eq!(frames[3].1.first.as_bytes(), b"");
    }
    let mut scanner = ReplyScanner::new();
    assert!(scanner.scan(b"?what\r\n").is_err());
}

proptest! {
    #[test]
    fn encoded_commands_parse_back(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..12), cut in any::<prop::sample::Index>()) {
        let mut wire = Vec::new();
        encode_command(&mut wire, &words);
        let mut args = Args::new();
        prop_assert_eq!(parse_request(&wire, &mut args), Ok(Parsed::Whole { len: wire.len() }));
        prop_assert_eq!(args_of(&wire, &args), words.clone());
        // The reference decoder of the field agrees.
        let (frame, used) = redis_protocol::resp2::decode::decode(&wire).expect("resp2").expect("whole");
        prop_assert_eq!(used, wire.len());
        let theirs: Vec<Vec<u8>> = match frame {
            redis_protocol::resp2::types::OwnedFrame::Array(items) => items.iter().map(|i| i.as_bytes().unwrap_or_default().to_vec()).collect(),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(theirs, words);
        let cut = cut.index(wire.len());
        prop_assert!(matches!(parse_request(&wire[..cut], &mut args), Ok(Parsed::Partial(_))));
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut args = Args::new();
        let _ = parse_request(&bytes, &mut args);
        let mut scanner = ReplyScanner::new();
        let mut used = 0;
        while used < bytes.len() {
            match scanner.scan(&bytes[used..]) {
                Ok((n, _)) if n > 0 => used += n,
                _ => break,
            }
        }
    }
}
