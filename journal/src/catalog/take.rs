//! Taking what is decoded.

use crate::block::RecordView;
use crate::types::Group;

/// Takes what a part holds, in its order.
pub trait TakeRecords {
    /// The only record of its group. Whether it was taken; if not, it is given as a group.
    fn single(&mut self, record: &RecordView<'_>) -> bool {
        let _ = record;
        false
    }

    /// A group.
    fn group(&mut self, group: Group);
}

impl TakeRecords for Vec<Group> {
    fn group(&mut self, group: Group) {
        self.push(group);
    }
}
