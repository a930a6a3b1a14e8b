//! The metrics as text, a page at a time.
//!
//! The text of thousands of services takes megabytes, and what it is made from many more; so a reader is given it in
//! pages, each made when the one before has been taken, of a few services' series at a time. Names, escapes and
//! numbers are the `prometheus` crate's business.

use prometheus::{
    TextEncoder,
    proto::{self, MetricType},
};

use super::{
    Metrics, NO_SERVICE, ServiceMetrics,
    families::{FAMILIES, Family, Rows},
    series::BUCKETS,
};

/// A page is full when it has so many bytes.
const PAGE: usize = 32 * 1024;

/// No further service's series are gathered with those that are this many lines already.
const AT_ONCE: usize = 256;

/// With more services than this, the series of a service that has not been called are left out.
pub(super) const FROM_START: usize = 100;

/// The text of every metric, in pages.
#[derive(Debug)]
pub struct Pages {
    metrics: Metrics,
    /// By label.
    services: Vec<ServiceMetrics>,
    /// The family at hand.
    family: usize,
    /// Services whose part in it is written.
    written: usize,
    /// Whether its head is.
    has_head: bool,
}

impl Pages {
    pub(super) fn of(metrics: &Metrics) -> Self {
        let services = metrics.by_label();
        Self { metrics: metrics.clone(), services, family: 0, written: 0, has_head: false }
    }

    /// Writes the next few services of the family at hand, or goes on to the next family.
    fn write_some(&mut self, family: &Family, text: &mut String) {
        let mut rows = Rows { kind: family.kind, service: NO_SERVICE, from_start: true, lines: Vec::new() };
        if self.written == 0 {
            (family.of_process)(&self.metrics.0.process, &mut rows);
        }
        let all = self.services.len() <= FROM_START;
        let enough = if family.kind == MetricType::HISTOGRAM { AT_ONCE / BUCKETS.len() } else { AT_ONCE };
        for service in &self.services[self.written..] {
            if rows.lines.len() >= enough {
                break;
            }
            self.written += 1;
            (rows.service, rows.from_start) = (&service.label, all || service.has_begun());
            (family.of_service)(service, &mut rows);
        }
        let lines = rows.lines;
        self.write(family, lines, text);
        if self.written == self.services.len() {
            (self.family, self.written, self.has_head) = (self.family + 1, 0, false);
        }
    }

    fn write(&mut self, family: &Family, lines: Vec<proto::Metric>, text: &mut String) {
        if lines.is_empty() {
            return;
        }
        let mut whole = proto::MetricFamily::default();
        whole.set_name(family.name.into());
        whole.set_help(family.help.into());
        whole.set_field_type(family.kind);
        whole.set_metric(lines);
        let start = text.len();
        TextEncoder::new().encode_utf8(&[whole], text).expect("every family has a name and lines");
        if self.has_head {
            // A family has one head: HELP and TYPE, a line each.
            let head = text[start..].split_inclusive('\n').take(2).map(str::len).sum::<usize>();
            text.replace_range(start..start + head, "");
        }
        self.has_head = true;
    }
}

impl Iterator for Pages {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut text = String::new();
        while text.len() < PAGE
            && let Some(family) = FAMILIES.get(self.family)
        {
            self.write_some(family, &mut text);
        }
        (!text.is_empty()).then_some(text)
    }
}
