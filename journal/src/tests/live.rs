//! A reader beside a live writer.

use crate::catalog::Catalog;
use crate::model::{Fixture, OwnedGroup};
use crate::types::{Group, Lsn, TimelineId};
use crate::verify::verify;

#[test]
fn a_reader_beside_a_writer_sees_whole_groups_and_more_each_time() {
    let mut journal = Fixture::new(4000);
    journal.timeline();
    let dir = journal.dir().to_owned();
    let reader = std::thread::spawn(move || {
        let mut seen = 0;
        while seen < 600 {
            let catalog = Catalog::open(&dir).unwrap();
            let groups: Vec<Group> = catalog.groups(Lsn(0), TimelineId(1)).collect::<Result<_, _>>().unwrap();
            assert!(groups.len() >= seen && groups.len().is_multiple_of(3));
            seen = groups.len();
            let report = verify(&dir, true, |_| ()).unwrap();
            assert_eq!(report.problems, []);
        }
    });
    for n in 0..200u8 {
        let value = vec![n; usize::from(n)];
        journal.block(&[OwnedGroup::simple(&value), OwnedGroup::simple(&value), OwnedGroup::simple(b"x")]);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    reader.join().unwrap();
    journal.close();
    journal.check();
}
