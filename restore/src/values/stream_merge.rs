//! A live stream with what it lacks of a wanted one. Pure.
//!
//! | part | |
//! | --- | --- |
//! | entries | those of both; an entry never changes, so one id with other fields is a conflict |
//! | last id, greatest deleted id | the greater one |
//! | entries ever added | as many as were certainly added: an id is given once |
//! | a group that the live stream lacks | comes back as it was |
//! | a group of both | stays where it is; entries that come back are pending again where they were, if it does not have them |

use std::collections::BTreeMap;

use redtape_wire::rdb::{Bytes, Consumer, Group, Pending, Stream, StreamEntry, StreamId};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamMerge {
    /// Both have this entry, with other fields.
    Conflict(StreamId),
    /// The live stream has it all.
    NothingLacking,
    /// What it should be, and how many entries and groups it lacks.
    Lacking(Box<Stream>, u64),
}

/// Merges two streams.
pub(crate) fn merge_streams(wanted: &Stream, live: &Stream) -> StreamMerge {
    let (entries, lacking) = match merge_entries(&wanted.entries, &live.entries) {
        Ok(merged) => merged,
        Err(id) => return StreamMerge::Conflict(id),
    };
    let has_group = |name: &Bytes| live.groups.iter().any(|group| group.name == *name);
    let new_groups: Vec<&Group> = wanted.groups.iter().filter(|group| !has_group(&group.name)).collect();
    let count = (lacking.len() + new_groups.len()) as u64;
    if count == 0 && wanted.last_id <= live.last_id {
        return StreamMerge::NothingLacking;
    }
    let added_since = live.entries.iter().filter(|entry| entry.id > wanted.last_id).count() as u64;
    let entries_added =
        live.entries_added.max(wanted.entries_added.saturating_add(added_since)).max(entries.len() as u64);
    let mut groups: Vec<Group> = new_groups.into_iter().cloned().collect();
    for group in &live.groups {
        let before = wanted.groups.iter().find(|before| before.name == group.name);
        let mut group = before.map_or_else(|| group.clone(), |before| with_pending(group, before, &lacking));
        if entries_added != live.entries_added {
            // It counted entries of a stream that had begun anew.
            group.entries_read = None;
        }
        groups.push(group);
    }
    groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let merged = Stream {
        first_id: entries.first().map(|entry| entry.id).unwrap_or_default(),
        entries,
        last_id: wanted.last_id.max(live.last_id),
        max_deleted_id: wanted.max_deleted_id.max(live.max_deleted_id),
        entries_added,
        groups,
        idempotence: live.idempotence.clone().or_else(|| wanted.idempotence.clone()),
    };
    StreamMerge::Lacking(Box::new(merged), count)
}

/// Entries of both in the order of their ids, and the ids that the live stream lacks; fails with one that differs.
fn merge_entries(wanted: &[StreamEntry], live: &[StreamEntry]) -> Result<(Vec<StreamEntry>, Vec<StreamId>), StreamId> {
    let (mut wanted, mut live) = (wanted.iter().peekable(), live.iter().peekable());
    let (mut all, mut lacking) = (Vec::new(), Vec::new());
    loop {
        let next = match (wanted.peek(), live.peek()) {
            (None, None) => return Ok((all, lacking)),
            (Some(w), Some(l)) if w.id == l.id => {
                if w.fields != l.fields {
                    return Err(w.id);
                }
                wanted.next();
                live.next()
            }
            (Some(w), l) if l.is_none_or(|l| w.id < l.id) => {
                lacking.push(w.id);
                wanted.next()
            }
            _ => live.next(),
        };
        all.extend(next.cloned());
    }
}

/// A live group, in which these entries are pending again as they were.
fn with_pending(live: &Group, before: &Group, back: &[StreamId]) -> Group {
    let is_pending = |id| live.pending.binary_search_by_key(&id, |entry| entry.id).is_ok();
    let returning: Vec<&Pending> =
        before.pending.iter().filter(|entry| back.binary_search(&entry.id).is_ok() && !is_pending(entry.id)).collect();
    if returning.is_empty() {
        return live.clone();
    }
    let mut consumers: BTreeMap<Bytes, Consumer> =
        live.consumers.iter().map(|consumer| (consumer.name.clone(), consumer.clone())).collect();
    let name_of = |group: &Group, entry: &Pending| {
        group.consumers.get(entry.consumer).map(|consumer| consumer.name.clone()).unwrap_or_default()
    };
    let mut pending: Vec<(Bytes, Pending)> =
        live.pending.iter().map(|entry| (name_of(live, entry), entry.clone())).collect();
    for entry in returning {
        if let Some(consumer) = before.consumers.get(entry.consumer) {
            consumers.entry(consumer.name.clone()).or_insert_with(|| consumer.clone());
        }
        pending.push((name_of(before, entry), entry.clone()));
    }
    pending.sort_unstable_by_key(|(_, entry)| entry.id);
    let place = |name: &Bytes| consumers.keys().position(|other| other == name).unwrap_or_default();
    let pending = pending.into_iter().map(|(name, entry)| Pending { consumer: place(&name), ..entry }).collect();
    Group { pending, consumers: consumers.into_values().collect(), name: live.name.clone(), ..*live }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    fn stream(ids: &[u64], added: u64, groups: Vec<Group>) -> Stream {
        let entry = |ms: &u64| StreamEntry { id: id(*ms), fields: vec![(b"f".to_vec(), ms.to_string().into_bytes())] };
        Stream {
            entries: ids.iter().map(entry).collect(),
            last_id: id(ids.last().copied().unwrap_or(0)),
            first_id: id(ids.first().copied().unwrap_or(0)),
            max_deleted_id: id(0),
            entries_added: added,
            groups,
            idempotence: None,
        }
    }

    fn group(name: &str, last: u64, pending: &[(u64, &str)]) -> Group {
        let mut names: Vec<&str> = pending.iter().map(|(_, consumer)| *consumer).collect();
        names.sort_unstable();
        names.dedup();
        let consumer = |name: &&str| Consumer { name: name.as_bytes().to_vec(), seen_ms: 7, active_ms: 7 };
        let place = |consumer: &str| names.iter().position(|name| *name == consumer).expect("a consumer");
        let entry = |(ms, consumer): &(u64, &str)| Pending {
            id: id(*ms),
            delivered_ms: 5,
            deliveries: 2,
            consumer: place(consumer),
        };
        Group {
            name: name.as_bytes().to_vec(),
            last_id: id(last),
            entries_read: Some(1),
            consumers: names.iter().map(consumer).collect(),
            pending: pending.iter().map(entry).collect(),
        }
    }

    fn merged(wanted: &Stream, live: &Stream) -> (Stream, u64) {
        let StreamMerge::Lacking(stream, count) = merge_streams(wanted, live) else { panic!("nothing is lacking") };
        (*stream, count)
    }

    #[test]
    fn entries_of_both_in_order_and_counters_that_never_go_back() {
        let ids = |stream: &Stream| stream.entries.iter().map(|entry| entry.id.ms).collect::<Vec<_>>();
        // Trimmed, and it went on: all that it has was counted.
        let (trimmed, count) = merged(&stream(&[1, 2, 3], 3, vec![]), &stream(&[3, 4], 4, vec![]));
        assert_eq!((ids(&trimmed), count), (vec![1, 2, 3, 4], 2));
        assert_eq!((trimmed.entries_added, trimmed.last_id, trimmed.first_id), (4, id(4), id(1)));
        // Deleted, and begun anew.
        let (anew, _) = merged(&stream(&[1, 2, 3], 30, vec![]), &stream(&[7, 8], 2, vec![group("g", 8, &[])]));
        assert_eq!((ids(&anew), anew.entries_added), (vec![1, 2, 3, 7, 8], 32));
        assert_eq!(anew.groups[0].entries_read, None);
        // What only the live one has is no fault.
        assert_eq!(
            merge_streams(&stream(&[3], 3, vec![]), &stream(&[3, 4], 4, vec![group("g", 4, &[])])),
            StreamMerge::NothingLacking
        );
        let mut other = stream(&[1, 2], 2, vec![]);
        other.entries[1].fields[0].1 = b"other".to_vec();
        assert_eq!(merge_streams(&stream(&[1, 2], 2, vec![]), &other), StreamMerge::Conflict(id(2)));
    }

    #[test]
    fn groups_come_back_and_live_ones_stay_where_they_are() {
        let before =
            stream(&[1, 2, 3], 3, vec![group("both", 2, &[(1, "z"), (2, "b")]), group("gone", 3, &[(3, "c")])]);
        // Entry 1 was trimmed, and 2 acknowledged since.
        let live = stream(&[2, 3, 4], 4, vec![group("both", 4, &[(4, "a")]), group("new", 0, &[])]);
        let (all, count) = merged(&before, &live);
        assert_eq!(count, 2);
        let names: Vec<&[u8]> = all.groups.iter().map(|group| &group.name[..]).collect();
        assert_eq!(names, [&b"both"[..], b"gone", b"new"]);
        assert_eq!(all.groups[1], before.groups[1]);
        let both = &all.groups[0];
        let pending: Vec<(u64, &[u8])> =
            both.pending.iter().map(|entry| (entry.id.ms, &both.consumers[entry.consumer].name[..])).collect();
        assert_eq!((both.last_id, pending), (id(4), vec![(1, &b"z"[..]), (4, b"a")]));
    }
}
