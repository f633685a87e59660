//! Makes metrics and registers them, with one call for each.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::MetricsError;
use crate::numbers::{Count, Level, Seconds};

/// Upper bounds of a histogram of latencies, in seconds.
const LATENCY_BUCKETS: [f64; 15] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// A metric that has no value of its own: it shows one of the status.
struct View {
    described: Vec<Desc>,
    now: Box<dyn Fn() -> Vec<MetricFamily> + Send + Sync>,
}

impl Collector for View {
    fn desc(&self) -> Vec<&Desc> {
        self.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.now)()
    }
}

/// Registers metrics of one registry.
pub(super) struct Registrar<'a>(pub(super) &'a Registry);

impl Registrar<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.add(IntCounter::new(name, help)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.add(IntGauge::new(name, help)?)
    }

    pub(super) fn float(&self, name: &str, help: &str) -> Result<Gauge, MetricsError> {
        self.add(Gauge::new(name, help)?)
    }

    /// Shows a count of the status.
    pub(super) fn show_count(&self, name: &str, help: &str, count: &Count) -> Result<(), MetricsError> {
        let (opts, count) = (Opts::new(name, help), count.clone());
        self.show(&IntCounter::with_opts(opts.clone())?, move || {
            // A counter of Prometheus only grows, so each page has one of its own.
            let Ok(shown) = IntCounter::with_opts(opts.clone()) else { return Vec::new() };
            shown.inc_by(count.get());
            shown.collect()
        })
    }

    /// Shows a level of the status.
    pub(super) fn show_level(&self, name: &str, help: &str, level: &Level) -> Result<(), MetricsError> {
        let (gauge, level) = (IntGauge::new(name, help)?, level.clone());
        self.show(&gauge.clone(), move || {
            gauge.set(level.get());
            gauge.collect()
        })
    }

    /// Shows a duration of the status.
    pub(super) fn show_seconds(&self, name: &str, help: &str, seconds: &Seconds) -> Result<(), MetricsError> {
        let (gauge, seconds) = (Gauge::new(name, help)?, seconds.clone());
        self.show(&gauge.clone(), move || {
            gauge.set(seconds.get());
            gauge.collect()
        })
    }

    fn show(
        &self,
        like: &impl Collector,
        now: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static,
    ) -> Result<(), MetricsError> {
        let described = like.desc().into_iter().cloned().collect();
        self.0.register(Box::new(View { described, now: Box::new(now) }))
    }

    pub(super) fn latency(&self, name: &str, help: &str) -> Result<Histogram, MetricsError> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec()))?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, MetricsError> {
        self.add(IntGaugeVec::new(Opts::new(name, help), &[label])?)
    }

    /// Each of the known `values` is shown from the start, as 0.
    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&str],
    ) -> Result<IntCounterVec, MetricsError> {
        let counters = self.add(IntCounterVec::new(Opts::new(name, help), &[label])?)?;
        for value in values {
            counters.with_label_values(&[*value]);
        }
        Ok(counters)
    }

    fn add<M: prometheus::core::Collector + Clone + 'static>(&self, metric: M) -> Result<M, MetricsError> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}
