use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::header::BlockKind;
use super::*;
use crate::model::{OwnedGroup, any_groups};
use crate::types::{GroupRef, KeysAt, Lsn, Micros, OTHERS_TOO, Origin, OriginKind, RecordRef, ReplOffset};

fn decode(block: &mut Block) -> Vec<crate::Group> {
    let bytes = Bytes::copy_from_slice(block.place(42, 7, None));
    let mut head = [0; BLOCK_HEADER_LEN];
    head.copy_from_slice(&bytes[..BLOCK_HEADER_LEN]);
    let header = BlockHeader::decode(&head).unwrap();
    header.check_place(42, 7).unwrap();
    assert!(header.check_place(43, 7).is_err());
    assert!(header.check_place(42, 8).is_err());
    let payload = bytes.slice(BLOCK_HEADER_LEN..);
    header.check_payload(&payload).unwrap();
    Groups::new(header, payload).collect::<Result<_, _>>().unwrap()
}

proptest! {
    #[test]
    fn what_is_pushed_comes_back(groups in any_groups(0..20), second in any_groups(0..5)) {
        let mut builder = BlockBuilder::new(Lsn(7), Micros(100), ReplOffset(50), 3);
        let mut lsn = Lsn(7);
        for batch in [groups, second] {
            let mut expected = Vec::new();
            let mut last = (builder.last_ts(), builder.end_offset());
            for group in &batch {
                let end = group.push(&mut builder).unwrap();
                expected.push(group.read_back(lsn, &mut last));
                lsn = Lsn(end.0 + 1);
                prop_assert_eq!(builder.next_lsn(), lsn);
            }
            let mut block = builder.finish(Micros(9));
            prop_assert_eq!(block.is_heartbeat(), expected.is_empty());
            prop_assert_eq!(block.next_lsn(), lsn);
            prop_assert!(builder.is_empty());
            prop_assert_eq!(decode(&mut block), expected);
        }
    }

    #[test]
    fn a_walk_gives_the_keys_and_the_groups_that_decoding_gives(groups in any_groups(1..20)) {
        let mut builder = BlockBuilder::new(Lsn(7), Micros(100), ReplOffset(50), 3);
        for group in &groups {
            group.push(&mut builder).unwrap();
        }
        let mut block = builder.finish(Micros(9));
        let (header, payload) = (block.header, Bytes::copy_from_slice(block.payload()));
        let mut expected = Vec::new();
        for record in decode(&mut block).iter().flat_map(|group| &group.records) {
            match &record.keys {
                None => expected.push(None),
                Some(keys) => {
                    let mut keys = keys.clone();
                    keys.sort_unstable();
                    expected.extend(keys.iter().map(|at| Some((record.db, record.args[*at].to_vec()))));
                    if keys.contains(&OTHERS_TOO) {
                        expected.push(None);
                    }
                }
            }
        }
        let mut seen = Vec::new();
        each_key(&header, &payload, |key| seen.push(key.map(|(db, key)| (db, key.to_vec())))).unwrap();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn single_records_are_seen_as_they_are_decoded(groups in any_groups(1..20), taken: u64) {
        let mut builder = BlockBuilder::new(Lsn(7), Micros(100), ReplOffset(50), 3);
        for group in &groups {
            group.push(&mut builder).unwrap();
        }
        let mut block = builder.finish(Micros(9));
        let (header, payload) = (block.header, Bytes::copy_from_slice(block.payload()));
        let mut expected = decode(&mut block).into_iter();
        let mut decoded = Groups::new(header, payload);
        loop {
            let (mut seen, mut was_taken) = (None, false);
            let next = decoded.next_unless(&mut |view| {
                let args = (0..view.len()).map(|n| {
                    assert_eq!(view.arg(n).unwrap(), &view.block()[view.place(n).unwrap()]);
                    Bytes::copy_from_slice(view.arg(n).unwrap())
                });
                let (args, keys) = (args.collect(), view.keys.map(Into::into));
                let len = view.len();
                assert_eq!((view.arg(len), view.is_empty()), (None, len == 0));
                seen = Some(crate::Record { lsn: view.lsn, db: view.db, args, keys });
                was_taken = taken >> (view.lsn.0 % 64) & 1 == 1;
                was_taken
            });
            let Some(next) = next else { break };
            let expected = expected.next().unwrap();
            prop_assert_eq!(seen.as_ref(), Some(&expected.records[0]).filter(|_| expected.records.len() == 1));
            prop_assert_eq!(next.unwrap(), Some(expected).filter(|_| !was_taken));
        }
        prop_assert_eq!(expected.next(), None);
    }

    #[test]
    fn joined_blocks_hold_the_same_groups(batches in prop::collection::vec(any_groups(0..6), 1..6), parts in 1usize..4) {
        let mut builder = BlockBuilder::new(Lsn(7), Micros(100), ReplOffset(50), 3);
        let mut joiner = BlockJoiner::new(Lsn(7), Micros(100), ReplOffset(50), 3);
        let (mut expected, mut joined) = (Vec::new(), Vec::new());
        for (n, batch) in batches.iter().enumerate() {
            for group in batch {
                group.push(&mut builder).unwrap();
            }
            // The source moves on without a group, too.
            builder.set_end_offset(ReplOffset(builder.end_offset().0 + n as u64));
            builder.set_db(n as u32);
            let mut block = builder.finish(Micros(9));
            joiner.begin_block();
            let mut walk = GroupWalk::new(block.header, block.payload());
            while let Some(group) = walk.next_group(&mut |_| ()).unwrap() {
                joiner.push(&group).unwrap();
            }
            joiner.end_block(&block.header);
            prop_assert_eq!(joiner.end(), (builder.end_offset(), builder.db()));
            expected.extend(decode(&mut block));
            if n % parts == 0 {
                joined.extend(decode(&mut joiner.finish(Micros(9))));
                prop_assert!(joiner.is_empty());
            }
        }
        let mut last = joiner.finish(Micros(9));
        prop_assert_eq!((last.end_offset(), last.header.end_db), (builder.end_offset(), builder.db()));
        joined.extend(decode(&mut last));
        prop_assert_eq!(joined, expected);
    }

    #[test]
    fn a_header_that_is_taken_is_encoded_alike(bytes in prop::collection::vec(any::<u8>(), 88), kind in 1u8..3, flags in 0u8..4) {
        let mut head = [0; BLOCK_HEADER_LEN];
        head[4..92].copy_from_slice(&bytes);
        head[..4].copy_from_slice(&BLOCK_MAGIC);
        let codec = head[5] % 2;
        head[4..8].copy_from_slice(&[kind, codec, flags % 2, flags / 2]);
        let crc = crc32c::crc32c(&head[..92]);
        head[92..].copy_from_slice(&crc.to_le_bytes());
        if let Ok(header) = BlockHeader::decode(&head) {
            prop_assert_eq!(header.encode(), head);
        }
    }

    #[test]
    fn arbitrary_payloads_never_panic(
        payload in prop::collection::vec(any::<u8>(), 0..300), groups in 1u32..9, records in 1u32..99,
    ) {
        let mut header = Block::heartbeat(Lsn(1), Micros(0), Micros(0), ReplOffset(0), 0).header;
        header.kind = BlockKind::Data;
        header.groups = groups;
        header.records = records;
        header.stored_len = payload.len() as u32;
        header.raw_len = payload.len() as u32;
        let walked = each_key(&header, &payload, |_| ());
        let decoded = Groups::new(header, Bytes::from(payload)).find_map(Result::err);
        prop_assert_eq!(walked.is_err(), decoded.is_some());
    }

    #[test]
    fn damaged_payloads_never_panic(groups in any_groups(1..6), at: prop::sample::Index, with: u8) {
        let mut builder = BlockBuilder::new(Lsn(1), Micros(0), ReplOffset(0), 0);
        for group in &groups {
            group.push(&mut builder).unwrap();
        }
        let mut block = builder.finish(Micros(9));
        let mut payload = block.place(0, 0, None)[BLOCK_HEADER_LEN..].to_vec();
        let at = at.index(payload.len());
        payload[at] = with;
        let walked = each_key(&block.header, &payload, |_| ());
        let decoded = Groups::new(block.header, Bytes::from(payload)).find_map(Result::err);
        prop_assert_eq!(walked.is_err(), decoded.is_some());
    }
}

#[test]
fn time_and_offset_never_go_back() {
    let origin = Arc::new(Origin::of(OriginKind::Unknown));
    let mut builder = BlockBuilder::new(Lsn(1), Micros(100), ReplOffset(50), 0);
    let group = OwnedGroup::simple(b"x");
    let args: Vec<&[u8]> = vec![b"x"];
    for (ts, offset) in [(90, 40), (120, 60), (110, 55)] {
        builder
            .push(&GroupRef {
                ts: Micros(ts),
                slack: 0,
                origin: &origin,
                atomic: false,
                end_offset: ReplOffset(offset),
                records: &[RecordRef { db: 0, args: &args, keys: KeysAt::Unknown }],
            })
            .unwrap();
    }
    assert_eq!(group.records.len(), 1);
    let groups = decode(&mut builder.finish(Micros(0)));
    let seen: Vec<_> = groups.iter().map(|g| (g.ts.0, g.end_offset.0)).collect();
    assert_eq!(seen, [(100, 50), (120, 60), (120, 60)]);
}

#[test]
fn a_group_over_the_limit_is_refused_and_changes_nothing() {
    let mut builder = BlockBuilder::new(Lsn(1), Micros(0), ReplOffset(0), 0).with_max_group_bytes(1000);
    let small = OwnedGroup::simple(&[1; 100]);
    let large = OwnedGroup::simple(&[1; 1000]);
    small.push(&mut builder).unwrap();
    let error = large.push(&mut builder).unwrap_err();
    assert!(error.bytes > error.limit && error.limit == 1000, "{error}");
    assert_eq!(small.push(&mut builder).unwrap(), Lsn(2));
    assert_eq!(decode(&mut builder.finish(Micros(0))).len(), 2);
}

#[test]
fn every_flipped_bit_of_a_header_is_found() {
    let mut block = Block::heartbeat(Lsn(9), Micros(8), Micros(10), ReplOffset(11), 2);
    let mut head = [0; BLOCK_HEADER_LEN];
    head.copy_from_slice(block.place(1, 2, None));
    for bit in 0..BLOCK_HEADER_LEN * 8 {
        head[bit / 8] ^= 1 << (bit % 8);
        assert!(BlockHeader::decode(&head).is_err(), "bit {bit}");
        head[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(BlockHeader::decode(&head).unwrap(), block.header);
}
