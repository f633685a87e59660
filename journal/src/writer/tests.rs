use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use crate::block::BlockBuilder;
use crate::catalog::Catalog;
use crate::error::{AppendError, WriterFailure};
use crate::model::{Fixture, OwnedGroup, options};
use crate::open::Journal;
use crate::types::ReplOffset;

fn block(next_lsn: u64, len: usize) -> Block {
    let mut builder = BlockBuilder::new(Lsn(next_lsn), Micros(0), ReplOffset(0), 0);
    OwnedGroup::simple(&vec![1; len]).push(&mut builder).unwrap();
    builder.finish(Micros(1))
}

fn start() -> TimelineStart {
    TimelineStart {
        timeline: TimelineId(1),
        source_id: "s".to_owned(),
        offset: ReplOffset(0),
        reason: "r".to_owned(),
        ts: Micros(0),
    }
}

/// Opens with a policy; the receiver is given every progress.
fn open(dir: &std::path::Path, sync: SyncPolicy) -> (Writer, mpsc::Receiver<Progress>) {
    let options = crate::open::OpenOptions { sync, ..options(1 << 20) };
    let (journal, _) = Journal::create_or_open(dir, options).unwrap();
    let (send, receive) = mpsc::channel();
    (journal.start(move |progress| send.send(progress).unwrap_or_default()), receive)
}

fn wait_for(receive: &mpsc::Receiver<Progress>, done: impl Fn(&Progress) -> bool) -> Progress {
    loop {
        let progress = receive.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(progress.durable_lsn <= progress.written_lsn);
        if done(&progress) {
            return progress;
        }
    }
}

#[test]
fn with_always_a_block_becomes_durable_at_once() {
    let root = tempfile::tempdir().unwrap();
    let (writer, receive) = open(root.path(), SyncPolicy::Always);
    writer.begin_timeline(start()).unwrap();
    writer.submit(block(1, 50)).unwrap();
    let progress = wait_for(&receive, |p| p.durable_lsn == Lsn(1));
    assert_eq!((progress.durable_offset, progress.durable_ts), (ReplOffset(50), Micros(10)));
    let watermarks = writer.watermarks();
    assert_eq!((watermarks.segments, watermarks.last_error), (1, None));
    writer.close().unwrap();
    let segments = std::fs::read_dir(root.path().join("segments")).unwrap();
    assert_eq!(segments.count(), 1);
}

#[test]
fn with_everysec_a_block_becomes_durable_within_a_second() {
    let root = tempfile::tempdir().unwrap();
    let (writer, receive) = open(root.path(), SyncPolicy::EverySec);
    writer.begin_timeline(start()).unwrap();
    writer.submit(block(1, 50)).unwrap();
    let begun = Instant::now();
    let progress = wait_for(&receive, |p| p.written_lsn == Lsn(1));
    assert_eq!(progress.durable_lsn, Lsn(0));
    wait_for(&receive, |p| p.durable_lsn == Lsn(1));
    let took = begun.elapsed();
    assert!((Duration::from_millis(800)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[test]
fn a_time_is_told_as_complete_when_readers_find_it_so() {
    let root = tempfile::tempdir().unwrap();
    let (writer, receive) = open(root.path(), SyncPolicy::No);
    writer.begin_timeline(start()).unwrap();
    writer.submit(block(1, 50)).unwrap();
    // Nothing but time has passed.
    writer.submit(BlockBuilder::new(Lsn(2), Micros(10), ReplOffset(50), 0).finish(Micros(99))).unwrap();
    wait_for(&receive, |p| p.complete_until == Micros(99));
    assert_eq!(writer.watermarks().complete_until, Micros(99));
    assert_eq!(Catalog::open(root.path()).unwrap().timelines()[0].complete_until, Micros(99));
}

#[test]
fn a_sync_can_be_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let (writer, receive) = open(root.path(), SyncPolicy::No);
    writer.begin_timeline(start()).unwrap();
    writer.submit(block(1, 50)).unwrap();
    writer.sync_now();
    wait_for(&receive, |p| p.durable_lsn == Lsn(1));
}

#[test]
fn a_writer_that_failed_takes_nothing_more_and_reports_nothing_as_durable() {
    for cause in 0..4 {
        let root = tempfile::tempdir().unwrap();
        let (writer, receive) = open(root.path(), SyncPolicy::Always);
        if cause > 0 {
            writer.begin_timeline(start()).unwrap();
            writer.submit(block(1, 50)).unwrap();
            wait_for(&receive, |p| p.durable_lsn == Lsn(1));
        }
        match cause {
            0 => writer.submit(block(1, 50)).unwrap(),
            1 => writer.submit(block(3, 50)).unwrap(),
            2 => writer.begin_timeline(start()).unwrap(),
            _ => {
                std::fs::remove_dir_all(root.path().join("segments")).unwrap();
                let next = TimelineStart { timeline: TimelineId(2), ..start() };
                writer.begin_timeline(next).unwrap();
            }
        }
        let progress = wait_for(&receive, |p| p.failed);
        assert_eq!(progress.durable_lsn, Lsn(u64::from(cause > 0)));
        let reason = writer.failed().unwrap();
        assert_eq!(writer.watermarks().last_error.as_ref(), Some(&reason));
        assert_eq!(writer.submit(block(2, 1)), Err(SubmitError::Failed(reason.clone())));
        let (back, error) = writer.try_submit(block(2, 1)).unwrap_err();
        assert_eq!((back, error), (block(2, 1), SubmitError::Failed(reason.clone())));
        assert_eq!(writer.close(), Err(SubmitError::Failed(reason)));
    }
}

#[test]
fn after_close_other_handles_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let (writer, _receive) = open(root.path(), SyncPolicy::No);
    let other = writer.clone();
    writer.close().unwrap();
    assert_eq!(other.submit(block(1, 1)), Err(SubmitError::Closed));
    assert_eq!(other.begin_timeline(start()), Err(SubmitError::Closed));
}

#[test]
fn a_full_queue_holds_back_until_it_is_drained_or_fails() {
    let queue = Arc::new(Queue::default());
    let full = MAX_QUEUED_BYTES / 2 + 1;
    queue.push(Item::Block(block(1, full)), false).unwrap();
    let (_, error) = queue.push(Item::Block(block(2, full)), false).unwrap_err();
    assert_eq!(error, SubmitError::Full);
    queue.push(Item::Timeline(start()), false).unwrap();
    let waiting = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.push(Item::Block(block(2, full)), true).map_err(|(_, e)| e)
    });
    std::thread::sleep(Duration::from_millis(20));
    assert!(!waiting.is_finished());
    assert_eq!(queue.take(None).items.len(), 2);
    waiting.join().unwrap().unwrap();
    let waiting = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.push(Item::Block(block(3, full)), true).map_err(|(_, e)| e)
    });
    let failure = WriterFailure::new(AppendError::Panicked);
    queue.fail(failure.clone());
    assert_eq!(waiting.join().unwrap(), Err(SubmitError::Failed(failure)));
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn a_block_larger_than_the_queue_or_a_segment_passes() {
    let mut journal = Fixture::new(1000);
    journal.timeline();
    let mut noise = vec![0; 2 * MAX_QUEUED_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    journal.block(&[OwnedGroup::simple(&noise)]);
    journal.block(&[OwnedGroup::simple(b"x")]);
    journal.close();
    journal.check();
    assert_eq!(journal.segments().len(), 2);
}

#[test]
fn a_panic_in_the_callback_is_a_failure_and_nobody_waits_for_ever() {
    let root = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::create_or_open(root.path(), options(1 << 20)).unwrap();
    let writer = journal.start(|_| panic!("the callback of a test"));
    writer.begin_timeline(start()).unwrap();
    writer.submit(block(1, 1)).unwrap();
    let closed = writer.close();
    assert!(matches!(closed, Err(SubmitError::Failed(_))), "{closed:?}");
}
