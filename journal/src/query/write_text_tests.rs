use super::*;

fn query(text: &str) -> WriteQuery {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn message(text: &str) -> String {
    match text.parse::<WriteQuery>() {
        Ok(query) => panic!("{text}: {query:?}"),
        Err(error) => error.to_string(),
    }
}

fn lsns(first: u64, last: u64) -> LsnRange {
    LsnRange { first: Lsn(first), last: Lsn(last) }
}

#[test]
fn terms_of_every_kind() {
    let all = query(
        "client=intern, client=!10.0.*,user=u,command=HSET ,command=!H*,origin=client,origin=!Expiry,key=user:*,key=!tmp:*,db=3,since=lsn:5,until=10m ago,lsn:7, lsn:18546..18600",
    );
    let expected = WriteQuery {
        clients: vec!["intern".to_owned(), "!10.0.*".to_owned()],
        users: vec!["u".to_owned()],
        commands: vec!["HSET".to_owned(), "!H*".to_owned()],
        origins: OriginKinds { wanted: vec![OriginKind::Client], unwanted: vec![OriginKind::Expiry] },
        keys: vec![b"user:*".to_vec()],
        exact_keys: Vec::new(),
        excluded_keys: vec![b"tmp:*".to_vec()],
        dbs: vec![3],
        since: Some(When::Lsn(Lsn(5))),
        until: Some(When::Ago(600_000_000)),
        lsns: vec![lsns(7, 7), lsns(18546, 18600)],
    };
    assert_eq!(all, expected);
}

#[test]
fn causes_are_globs() {
    let origins = |text| query(text).origins;
    let both = vec![OriginKind::Expiry, OriginKind::Eviction];
    assert_eq!(origins("origin=E*"), OriginKinds { wanted: both.clone(), unwanted: vec![] });
    assert_eq!(origins("origin=!e*"), OriginKinds { wanted: vec![], unwanted: both });
    let kinds = OriginKinds::of_patterns(&["*t*", "!out*"]).expect("patterns");
    let wanted: Vec<OriginKind> = OriginKind::ALL.into_iter().filter(|kind| kinds.wants(*kind)).collect();
    assert_eq!(wanted, [OriginKind::Client, OriginKind::Eviction]);
}

#[test]
fn values_in_quotes_hold_commas_and_blanks() {
    for (text, client) in [
        (r#"client="a, b""#, "a, b"),
        (r#"client= "a" "#, "a"),
        (r#"client=" a""#, " a"),
        (r#"client="a\"b\\c""#, r#"a"b\c"#),
        (r#"client="a\*b""#, r"a\*b"),
        (r#"client=!"a, b""#, "!a, b"),
        (r#"client="!a""#, r"\!a"),
        (r"client=\!a", r"\!a"),
        ("client=[::1]:6379", "[::1]:6379"),
        ("client=a=b", "a=b"),
        (r#"client=a"b"#, r#"a"b"#),
    ] {
        assert_eq!(query(text).clients, [client], "{text}");
    }
    let two = query(r#"client="a,b",user=c"#);
    assert_eq!((two.clients, two.users), (vec!["a,b".to_owned()], vec!["c".to_owned()]));
}

#[test]
fn what_is_wrong_is_said_with_what_is_allowed() {
    for (text, wants) in [
        ("", "is no filter: write NAME=VALUE with client,"),
        ("intern", "\"intern\" is no filter: write NAME=VALUE"),
        ("client=a,", "\"\" is no filter"),
        ("colour=red", "there is no filter \"colour\": write NAME=VALUE"),
        ("client=", "client= has no value; write"),
        ("client=!", "client= has no value"),
        (r#"client="a"#, "is not closed"),
        (r#"client="a"b"#, "or text follows it"),
        ("origin=s*", "\"s*\" is no origin: client, expiry,"),
        ("origin=server", "\"server\" is no origin: client, expiry,"),
        ("db=x", "\"x\" is no database"),
        ("db=!3", "db= takes no !"),
        ("lsn:x", "write lsn:18546, or lsn:18546..18600"),
        ("lsn:9..8", "are no LSNs"),
        ("lsn:9..", "are no LSNs"),
        ("since=!now", "since= takes no !"),
        ("since=now,since=now", "since= was given twice"),
        ("until=whenever", "is not a point in time"),
    ] {
        let message = message(text);
        assert!(message.contains(wants), "{text}: {message}");
    }
    let terms = |n: usize| vec!["client=a"; n].join(",");
    assert_eq!(query(&terms(TERMS_MAX - 1)).clients.len(), TERMS_MAX - 1);
    assert!(message(&terms(TERMS_MAX + 1)).contains("at most 1024 terms"));
}

#[test]
fn times_and_marks_are_resolved() {
    let now = Micros(1_000_000_000);
    let marks = [("m", 3), ("m", 9)].map(|(name, lsn)| Mark { name: name.to_owned(), ts: Micros(5), lsn: Lsn(lsn) });
    let resolved = |text: &str| query(text).resolve(now, &Zone::utc(), &marks);
    for (text, since, until) in [
        ("user=a", None, None),
        ("since=@5,until=@6", Some(Since::Time(Micros(5_000_000))), Some(Until::Time(Micros(6_000_000)))),
        ("since=10s ago,until=now", Some(Since::Time(Micros(990_000_000))), Some(Until::Time(now))),
        ("since=lsn:5,until=lsn:5", Some(Since::After(Lsn(4))), Some(Until::Upto(Lsn(5)))),
        ("since=mark:m,until=latest", Some(Since::After(Lsn(9))), None),
        ("until=mark:m", None, Some(Until::Upto(Lsn(9)))),
        ("since=latest", Some(Since::After(Lsn(u64::MAX))), None),
    ] {
        let filter = resolved(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((filter.since, filter.until), (since, until), "{text}");
    }
    assert_eq!(resolved("since=mark:x").err(), Some(WriteFilterError::Mark("x".to_owned())));
    for text in ["since=@6,until=@5", "since=lsn:6,until=lsn:5", "since=mark:m,until=lsn:9"] {
        assert_eq!(resolved(text).err(), Some(WriteFilterError::Backwards), "{text}");
    }
}
