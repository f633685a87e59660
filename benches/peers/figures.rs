//! Figures made of figures: medians, and one peer in proportion to another. Pure.

use crate::latency::{Pace, Trips};
use crate::peers::Name;
use crate::rounds::{Series, Slice};

pub(crate) fn total_cpu(slice: &Slice) -> f64 {
    slice.server_cpu + slice.proxy_cpu
}

/// The median over the rounds of one peer's number in proportion to another's in the same round.
pub(crate) fn ratio(series: &[Series], of: Name, to: Name, what: impl Fn(&Slice) -> f64) -> Option<f64> {
    let values = |name| -> Option<Vec<f64>> {
        let found = series.iter().find(|s| s.peer == name && s.failed.is_none() && !s.slices.is_empty())?;
        Some(found.slices.iter().map(&what).collect())
    };
    Some(paired(&values(of)?, &values(to)?))
}

pub(crate) fn paired(of: &[f64], to: &[f64]) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| of / to))
}

/// What a peer adds to Redis's own p50 (median over the rounds), in µs.
pub(crate) fn added_us(trips: &[Trips], name: Name, pace: Pace) -> Option<f64> {
    let p50 = |name| {
        let found = trips.iter().find(|t| t.peer == name && t.pace == pace && t.failed.is_none())?;
        (!found.p50.is_empty()).then_some(&found.p50)
    };
    Some(median(p50(name)?.iter().zip(p50(Name::Redis)?).map(|(with, without)| with - without)))
}

/// Not a number for no values.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
