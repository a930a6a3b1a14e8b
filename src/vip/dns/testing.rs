//! Tables of services for tests.

use std::{collections::HashMap, sync::Arc};

use crate::{
    config::Config,
    model::ServiceName,
    service::{Services, now},
    telemetry::Metrics,
};

/// The services of a configuration, with these VIPs.
pub(super) fn services(file: &str, vips: &[(&str, &str)]) -> Arc<Services> {
    let config = Config::parse("t.yaml", file, &|_| None).unwrap().config;
    let vips: HashMap<_, _> =
        vips.iter().map(|(name, vip)| (ServiceName::parse(name).unwrap(), vip.parse().unwrap())).collect();
    Arc::new(Services::new(&config, &Metrics::new(), None, 1, &vips, None, now()).unwrap())
}
