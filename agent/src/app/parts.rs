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

use crate::join::Join;
use crate::part::Part;

/// The parts in the order of their start, which is also the order of `status` and of `plan`. The drain is the reverse,
/// and so is `revert`. Verbs without an agent have no `join`.
pub fn parts(join: Option<Join>) -> Vec<Box<dyn Part>> {
    vec![
        Box::new(versions::VersionsPart),
        Box::new(crate::upgrade::UpgradePart),
        Box::new(readiness::ReadinessPart),
        Box::new(crate::host_events::HostEventsPart),
        Box::new(crate::join::JoinPart(join)),
        Box::new(crate::hosts::HostsPart),
        Box::new(crate::identity::IdentityPart),
        Box::new(crate::identity::SdsPart),
        Box::new(crate::xds::XdsPart),
        Box::new(control_plane::ControlPlanePart),
        Box::new(crate::dns::DnsPart),
        Box::new(crate::envoy::EnvoyPart),
        Box::new(crate::intercept::InterceptPart),
        Box::new(crate::workload::ContainerPart),
        Box::new(crate::workload::ServicePart),
        Box::new(crate::health::LivenessPart),
        Box::new(crate::health::ProbePart),
        Box::new(refused::RefusedPart),
        Box::new(reload::ReloadPart),
        Box::new(crate::metrics::MetricsPart),
        Box::new(orders::OrdersPart),
        Box::new(crate::envoy::DrainPart),
        Box::new(crate::xds::LeavePart),
    ]
}
