//! The list of parts.

mod control_plane;
mod orders;
mod readiness;
mod refused;
mod reload;
mod versions;

#[cfg(test)]
mod dashboard;
#[cfg(test)]
mod document;

use crate::dns::DnsPart;
use crate::envoy::{DrainPart, EnvoyPart};
use crate::health::{LivenessPart, ProbePart};
use crate::host_events::HostEventsPart;
use crate::hosts::HostsPart;
use crate::identity::{IdentityPart, SdsPart};
use crate::intercept::InterceptPart;
use crate::join::{Join, JoinPart};
use crate::metrics::MetricsPart;
use crate::part::Part;
use crate::upgrade::UpgradePart;
use crate::workload::{ContainerPart, ServicePart};
use crate::xds::{LeavePart, XdsPart};
use control_plane::ControlPlanePart;
use orders::OrdersPart;
use readiness::ReadinessPart;
use refused::RefusedPart;
use reload::ReloadPart;
use versions::VersionsPart;

/// The parts in the order of their start, which is also the order of `status` and of `plan`. The drain is the reverse,
/// and so is `revert`. Verbs without an agent have no `join`.
pub fn parts(join: Option<Join>) -> Vec<Box<dyn Part>> {
    vec![
        Box::new(VersionsPart),
        Box::new(UpgradePart),
        Box::new(ReadinessPart),
        Box::new(HostEventsPart),
        Box::new(JoinPart(join)),
        Box::new(HostsPart),
        Box::new(IdentityPart),
        Box::new(SdsPart),
        Box::new(XdsPart),
        Box::new(ControlPlanePart),
        Box::new(DnsPart),
        Box::new(EnvoyPart),
        Box::new(InterceptPart),
        Box::new(ContainerPart),
        Box::new(ServicePart),
        Box::new(LivenessPart),
        Box::new(ProbePart),
        Box::new(RefusedPart),
        Box::new(ReloadPart),
        Box::new(MetricsPart),
        Box::new(OrdersPart),
        Box::new(DrainPart),
        Box::new(LeavePart),
    ]
}
