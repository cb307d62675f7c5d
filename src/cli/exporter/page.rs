//! The text that Prometheus reads: exposition format 0.0.4.
//!
//! A writer of our own: prometheus-client writes OpenMetrics only, and the other libraries want to own the counters, while
//! ours are read from elsewhere. `promtool check metrics` judges it in the tests.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::families::{Family, Kind};

/// The media type of what [`Page::text`] gives.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Samples by metric.
#[derive(Debug, Default)]
pub(super) struct Page {
    families: BTreeMap<&'static str, (Family, String)>,
}

impl Page {
    /// One sample; `labels` are the values of the family's labels, in their order.
    pub(super) fn put(&mut self, family: Family, labels: &[&str], value: impl Number) {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let pairs = family.labels.iter().copied().zip(labels.iter().copied());
        self.sample(family, "", pairs, &value.text());
    }

    /// One sample, if it is known.
    pub(super) fn put_known(&mut self, family: Family, labels: &[&str], value: Option<impl Number>) {
        if let Some(value) = value {
            self.put(family, labels, value);
        }
    }

    /// A histogram of cumulative `buckets`: upper bounds and counts, the smallest first.
    pub(super) fn histogram(
        &mut self,
        family: Family,
        buckets: impl IntoIterator<Item = (f64, u64)>,
        sum: f64,
        count: u64,
    ) {
        debug_assert_eq!(family.kind, Kind::Histogram);
        for (bound, below) in buckets {
            self.sample(family, "_bucket", [("le", bound.text().as_str())], &below.text());
        }
        self.sample(family, "_bucket", [("le", "+Inf")], &count.text());
        self.sample(family, "_sum", [], &sum.text());
        self.sample(family, "_count", [], &count.text());
    }

    /// All of it, ordered by name.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        for (family, samples) in self.families.values() {
            let Family { name, help, kind, .. } = family;
            let _ = writeln!(text, "# HELP {name} {}", escaped(help, false));
            let _ = writeln!(text, "# TYPE {name} {}", kind.word());
            text.push_str(samples);
        }
        text
    }

    fn sample<'a>(
        &mut self,
        family: Family,
        suffix: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        value: &str,
    ) {
        let (_, samples) = self
            .families
            .entry(family.name)
            .or_insert((family, String::new()));
        samples.push_str(family.name);
        samples.push_str(suffix);
        let labels: Vec<String> = labels
            .into_iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value, true)))
            .collect();
        if !labels.is_empty() {
            let _ = write!(samples, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(samples, " {value}");
    }
}

/// What a sample can be.
pub(super) trait Number {
    /// As the format writes it.
    fn text(&self) -> String;
}

impl Number for u64 {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Number for f64 {
    fn text(&self) -> String {
        // As Go writes them, so that a bound has one name wherever it comes from.
        if *self == 0.0 || (1e-4..1e21).contains(&self.abs()) {
            return self.to_string();
        }
        let text = format!("{self:e}");
        match text.split_once("e-") {
            Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
            None => text,
        }
    }
}

impl Number for bool {
    fn text(&self) -> String {
        u64::from(*self).to_string()
    }
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    match quotes {
        true => text.replace('"', "\\\""),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::families::{QUEUE_DEPTH, SECONDS, SPOOL, UP, WAITING};
    use super::*;

    #[test]
    fn samples_stand_under_help_and_type_of_their_metric() {
        let mut page = Page::default();
        page.put(WAITING, &["a \"b\"\\\nc"], 3);
        page.put(UP, &[], true);
        page.put(WAITING, &["é"], 0);
        page.put_known(SPOOL, &[], None::<u64>);
        page.put_known(QUEUE_DEPTH, &["7000"], Some(u64::MAX));
        assert_eq!(
            page.text(),
            "# HELP verdictd_queue_depth Packets that wait for a verdict\n\
             # TYPE verdictd_queue_depth gauge\n\
             verdictd_queue_depth{queue=\"7000\"} 18446744073709551615\n\
             # HELP verdictd_up Whether the engine answers\n\
             # TYPE verdictd_up gauge\n\
             verdictd_up 1\n\
             # HELP verdictd_webhook_waiting_events Events on disk that wait for an endpoint\n\
             # TYPE verdictd_webhook_waiting_events gauge\n\
             verdictd_webhook_waiting_events{endpoint=\"a \\\"b\\\"\\\\\\nc\"} 3\n\
             verdictd_webhook_waiting_events{endpoint=\"é\"} 0\n"
        );
    }

    #[test]
    fn a_histogram_ends_with_all_of_it() {
        let mut page = Page::default();
        page.histogram(SECONDS, [(2.5e-6, 1), (0.001, 4), (10.0, 4)], 0.25, 5);
        let text = page.text();
        let samples: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            samples,
            [
                "verdictd_verdict_seconds_bucket{le=\"2.5e-06\"} 1",
                "verdictd_verdict_seconds_bucket{le=\"0.001\"} 4",
                "verdictd_verdict_seconds_bucket{le=\"10\"} 4",
                "verdictd_verdict_seconds_bucket{le=\"+Inf\"} 5",
                "verdictd_verdict_seconds_sum 0.25",
                "verdictd_verdict_seconds_count 5",
            ]
        );
    }
}
