//! Rounds over a cluster: in each, every primary is given those of its slots that are not finished yet. Slots that move meanwhile come in
//! a later one, and the parts become small, so that those which rest get finished.

use std::time::Instant;

use redtape_wire::slot::{SLOTS, SlotSet};

use super::nodes::{LOOK_EVERY, MOVE_WAIT_MAX, Primaries, Primary};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer, Unit};
use crate::target::server::ServerTarget;

/// The smallest part of a primary's slots: one that moves again and again keeps no other waiting.
const PART_MIN: usize = 1;
/// After an interruption the parts have one slot for so many, after a success so many times as many.
const PART_FACTOR: usize = 4;

/// What is done with the keys of some slots.
pub(crate) trait SlotWork {
    /// On the primary that holds them.
    fn run(
        &mut self,
        target: &mut ServerTarget,
        slots: &SlotSet,
        observer: &mut dyn Observer,
    ) -> Result<(), RestoreError>;

    /// A slot has moved in the middle of that, and it will be run again for all of them: what was done must be known then.
    fn interrupted(&mut self) -> Result<(), RestoreError>;
}

/// Until all slots are finished. `name`: what is done, in words.
pub(crate) fn in_rounds(
    primaries: &mut Primaries,
    interrupt: &Interrupt,
    (name, work): (&str, &mut dyn SlotWork),
    observer: &mut dyn Observer,
) -> Result<(), RestoreError> {
    observer.on(&Event::Step { name, total: 100, unit: Unit::Percent });
    let mut rounds = Rounds { finished: SlotSet::default(), part: usize::from(SLOTS), work, observer };
    let mut moved_at = Instant::now();
    loop {
        primaries.refresh()?;
        let before = rounds.finished.len();
        primaries.all.iter_mut().try_for_each(|primary| rounds.visit(primary))?;
        if rounds.finished.len() == u32::from(SLOTS) {
            rounds.observer.on(&Event::StepDone);
            return Ok(());
        }
        if rounds.finished.len() > before {
            moved_at = Instant::now();
        } else {
            std::thread::sleep(LOOK_EVERY);
        }
        if moved_at.elapsed() >= MOVE_WAIT_MAX {
            let mut left = SlotSet::all();
            left.subtract(&rounds.finished);
            return Err(primaries.still_moving(&left));
        }
        interrupt.check()?;
    }
}

/// Tells of a part only what there is to know: there may be hundreds.
struct Notes<'a>(&'a mut dyn Observer);

impl Observer for Notes<'_> {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Note(_) = event {
            self.0.on(event);
        }
    }
}

struct Rounds<'a> {
    finished: SlotSet,
    /// Slots that are given at once.
    part: usize,
    work: &'a mut dyn SlotWork,
    observer: &'a mut dyn Observer,
}

impl Rounds<'_> {
    /// Parts of a primary's slots, until all are finished or one has moved.
    fn visit(&mut self, primary: &mut Primary) -> Result<(), RestoreError> {
        let mut left = primary.slots.clone();
        left.subtract(&self.finished);
        while !left.is_empty() {
            let part = left.lowest(self.part);
            match self.work.run(&mut primary.target, &part, &mut Notes(self.observer)) {
                Ok(()) => {
                    left.subtract(&part);
                    self.finished.add(&part);
                    self.observer.on(&Event::At(u64::from(self.finished.len() * 100 / u32::from(SLOTS))));
                    self.part = self.part.saturating_mul(PART_FACTOR).min(usize::from(SLOTS));
                }
                Err(RestoreError::OtherNode { .. }) => {
                    self.part = (self.part.min(part.len() as usize) / PART_FACTOR).max(PART_MIN);
                    return self.work.interrupted();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
