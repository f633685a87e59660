//! A digest over groups, which is the same in whatever blocks they are.
//!
//! It is compared before a copy takes the place of its segment, and is kept nowhere. It is there against faults of this program and
//! of the machine, not against an attacker who chooses the bytes: so it is a fast hash (XXH3, 128 bits).

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::block::{BlockHeader, EncodedGroup, GroupWalk};
use crate::error::Damage;

/// Takes group after group.
#[derive(Default)]
pub(crate) struct GroupsDigest {
    hasher: Xxh3,
    /// Hashes of the origins of the present block, in the order of their numbers.
    origins: Vec<u64>,
}

impl std::fmt::Debug for GroupsDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupsDigest")
    }
}

impl GroupsDigest {
    /// Adds all groups of a block; `on_key` as in [`GroupWalk::next_group`].
    pub(super) fn add_block(
        &mut self,
        header: &BlockHeader,
        payload: &[u8],
        on_key: &mut impl FnMut(Option<(u32, &[u8])>),
    ) -> Result<(), Damage> {
        self.begin_block();
        let mut walk = GroupWalk::new(*header, payload);
        while let Some(group) = walk.next_group(on_key)? {
            self.add(&group);
        }
        Ok(())
    }

    /// The groups that come now are those of another block.
    pub(super) fn begin_block(&mut self) {
        self.origins.clear();
    }

    /// Adds the next group.
    pub(super) fn add(&mut self, group: &EncodedGroup<'_>) {
        if let Some(origin) = group.new_origin {
            self.origins.push(xxh3_64(origin));
        }
        let origin = usize::try_from(group.origin).ok().and_then(|at| self.origins.get(at));
        // Every field has its size, and the length of the only one that varies is among them.
        let mut head = [0; 41];
        head[0] = group.flags;
        head[1..9].copy_from_slice(&group.ts.0.to_le_bytes());
        head[9..17].copy_from_slice(&group.slack.to_le_bytes());
        head[17..25].copy_from_slice(&origin.copied().unwrap_or_default().to_le_bytes());
        head[25..33].copy_from_slice(&group.end_offset.0.to_le_bytes());
        head[33..41].copy_from_slice(&(group.records.len() as u64).to_le_bytes());
        self.hasher.update(&head);
        self.hasher.update(group.records);
    }

    /// The digest of all that was added.
    pub(super) fn finish(&self) -> u128 {
        self.hasher.digest128()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::block::{Block, BlockBuilder, Groups};
    use crate::model::any_groups;
    use crate::types::{Group, Lsn, Micros, ReplOffset};

    fn digest_of(blocks: &[Block]) -> u128 {
        let mut digest = GroupsDigest::default();
        for block in blocks {
            digest.add_block(&block.header, block.payload(), &mut |_| ()).unwrap();
        }
        digest.finish()
    }

    proptest! {
        #[test]
        fn it_is_the_same_in_whatever_blocks(groups in any_groups(1..12), every in 1usize..5) {
            let blocks = |every: usize| {
                let mut builder = BlockBuilder::new(Lsn(1), Micros(0), ReplOffset(0), 0);
                let blocks = groups.chunks(every).map(|some| {
                    for group in some {
                        group.push(&mut builder).unwrap();
                    }
                    builder.finish(Micros(9))
                });
                blocks.collect::<Vec<_>>()
            };
            let whole = digest_of(&blocks(groups.len()));
            prop_assert_eq!(digest_of(&blocks(every)), whole);
            if groups.len() > 1 {
                prop_assert_ne!(digest_of(&blocks(1)[1..]), whole);
            }
        }

        #[test]
        fn it_differs_wherever_the_groups_do(groups in any_groups(1..6), at: prop::sample::Index, bit in 0u32..8) {
            let mut builder = BlockBuilder::new(Lsn(1), Micros(0), ReplOffset(0), 0);
            for group in &groups {
                group.push(&mut builder).unwrap();
            }
            let block = builder.finish(Micros(9));
            let mut payload = block.payload().to_vec();
            let at = at.index(payload.len());
            payload[at] ^= 1 << bit;
            let groups = |payload: &[u8]| -> Option<Vec<Group>> {
                Groups::new(block.header, Bytes::copy_from_slice(payload)).collect::<Result<_, _>>().ok()
            };
            let mut digest = GroupsDigest::default();
            let walked = digest.add_block(&block.header, &payload, &mut |_| ());
            let changed = groups(&payload);
            prop_assert_eq!(walked.is_ok(), changed.is_some());
            if changed.is_some() && changed != groups(block.payload()) {
                prop_assert_ne!(digest.finish(), digest_of(std::slice::from_ref(&block)));
            }
        }
    }
}
