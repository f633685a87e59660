//! Times that the wall clock has shown twice.
//!
//! A step of the clock is a mark in the journal: `clock-7200s@2026-11-20T11:00:00.000000Z` is a step back by two hours,
//! to the time after the `@`. Writes from then until the clock has passed the mark's own time have that time in the
//! journal, as times never go back there.

use redtape_journal::{ClockStep, Mark, Micros};

/// For each step back of the clock that makes `asked` ambiguous: a warning for the user.
pub(crate) fn came_twice(marks: &[Mark], asked: Micros) -> Vec<String> {
    let told = |mark: &Mark| {
        let back_to = ClockStep::of(&mark.name).filter(|step| step.by < 0)?.to;
        let which = if asked < mark.ts { "This is the first time, before the step" } else { "This is the end of both" };
        (back_to <= asked && asked <= mark.ts).then(|| {
            format!(
                "{asked} is ambiguous: the wall clock stepped back from about {} to {back_to}. {which}. What was written behind \
                 the step has the time {} in the journal until the clock had passed that: `redtape log` shows it, and \
                 --at lsn:N or mark:NAME tells its two passes apart; mark:{} is the step itself",
                mark.ts, mark.ts, mark.name
            )
        })
    };
    marks.iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use redtape_journal::Lsn;

    use super::*;

    #[test]
    fn only_what_lies_between_both_ends_of_a_step_back_came_twice() {
        let mark = |name: &str| Mark { name: name.to_owned(), ts: Micros(7_200_000_000), lsn: Lsn(9) };
        let back = mark("clock-3600s@1970-01-01T01:00:00.000000Z");
        let others = [
            "clock+3600s@1970-01-01T01:00:00.000000Z",
            "clock-3600s@yesterday",
            "clock-s@1970-01-01T01:00:00.000000Z",
            "clock-3600s@latest",
            "deploy",
        ];
        let marks: Vec<Mark> = others.iter().map(|name| mark(name)).chain([back.clone()]).collect();
        for (asked, expected) in
            [(3_599_999_999, 0), (3_600_000_000, 1), (5_000_000_000, 1), (7_200_000_000, 1), (7_200_000_001, 0)]
        {
            let told = came_twice(&marks, Micros(asked));
            assert_eq!(told.len(), expected, "{asked}: {told:?}");
            assert!(told.iter().all(|t| t.contains(&format!("mark:{}", back.name))), "{told:?}");
        }
    }
}
