use redtape_journal::{Lsn, ReplOffset, SnapshotInfo, SnapshotKind, SnapshotManifest, TimelineId};
use redtape_wire::rdb::Field;

use super::*;

pub(super) fn point(clock_us: i64) -> RestorePoint {
    RestorePoint {
        timeline: TimelineId(1),
        lsn: Lsn(1),
        ts: Micros(0),
        asked: Micros(clock_us),
        before: false,
        zone: Zone::utc(),
        clock: Micros(clock_us),
        base: SnapshotInfo {
            key_index_bytes: 0,
            path: "/j/1.rdb".into(),
            manifest: SnapshotManifest {
                journal_id: String::new(),
                lsn: Lsn(0),
                timeline: TimelineId(1),
                source_id: String::new(),
                offset: ReplOffset(0),
                db: None,
                ts: Micros(0),
                kind: SnapshotKind::Base,
                bytes: 1,
                blake3: String::new(),
                magic_version: String::new(),
                server_version: String::new(),
                checksum_present: true,
                encryption: None,
                command_table: None,
            },
        },
        next_ts: None,
        warnings: Vec::new(),
    }
}

fn present(value: Value, expires_at_ms: Option<i64>) -> Present {
    Present { value, expired_fields: 0, expires_at_ms, dump_bytes: 20 }
}

#[test]
fn what_has_expired_is_not_seen() {
    let string = |expires| Some(present(Value::String(b"v".to_vec()), expires));
    assert_eq!(State::at(&point(0), None), State::Absent);
    for (clock_us, expires, gone) in
        [(5_000, None, false), (5_000, Some(5), false), (5_999, Some(5), false), (6_000, Some(5), true)]
    {
        let state = State::at(&point(clock_us), string(expires));
        assert_eq!(state == State::Expired(5), gone, "{clock_us} {expires:?}");
        assert_eq!(matches!(state, State::Present(_)), !gone, "{clock_us} {expires:?}");
    }
}

#[test]
fn fields_that_have_expired_are_counted() {
    let field = |name: &str, expires_at_ms| Field { name: name.into(), value: Vec::new(), expires_at_ms };
    let hash = Value::Hash(vec![field("a", None), field("b", Some(4)), field("c", Some(9))]);
    let State::Present(seen) = State::at(&point(5_000), Some(present(hash, None))) else { panic!("it is there") };
    assert_eq!((seen.value, seen.expired_fields), (Value::Hash(vec![field("a", None), field("c", Some(9))]), 1));
}
