//! The selection among several control planes as a part: `control_plane` is below all features, and names none.

use std::time::SystemTime;

use crate::control_plane;
use crate::facts::{ControlPlane, ControlPlaneHealth, ControlPlanes};
use crate::part::{Context, Metric, MetricKind, Part, SHORT, Sample, Section, State, Task, ago};
use crate::supervise::Clock;

/// Asks the control planes that are not in use how they are.
#[derive(Debug)]
pub(super) struct ControlPlanePart;

const SECTION: State<ControlPlanes> = State {
    key: "control_planes",
    title: "",
    live: |channels| channels.selector.facts(),
    offline: |_| ControlPlanes::default(),
    lines,
};

impl Part for ControlPlanePart {
    fn name(&self) -> &'static str {
        "control_plane"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let channels = &context.channels;
        let addresses = context.site.config.control_plane.addresses.clone();
        let inputs = control_plane::Inputs {
            membership: channels.membership.subscribe(),
            credentials: channels.credentials.subscribe(),
            clock: Clock::System,
        };
        let selector = channels.selector.clone();
        Some(Task::new(SHORT, |scope| {
            control_plane::check(scope, selector, addresses, inputs)
        }))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        &[CURRENT, REACHABLE]
    }
}

const CURRENT: Metric = Metric {
    name: "istio_vm_agent_control_plane_current",
    help: "1 for the control plane that streams and certificates are asked of, 0 for each other that is configured.",
    kind: MetricKind::Gauge,
    labels: &["address"],
    read: |channels, _| {
        let planes = channels.selector.facts();
        let is_current = |plane: &ControlPlane| f64::from(u8::from(plane.address == planes.current));
        let all = planes.all.iter();
        all.map(|plane| Sample::labeled([&plane.address], is_current(plane)))
            .collect()
    },
};

const REACHABLE: Metric = Metric {
    name: "istio_vm_agent_control_plane_reachable",
    help: "1 for a control plane that answered when it was asked last, 0 for one that did not; absent before.",
    kind: MetricKind::Gauge,
    labels: &["address"],
    read: |channels, _| {
        let planes = channels.selector.facts().all.into_iter();
        let reachable = |plane: ControlPlane| match plane.health {
            ControlPlaneHealth::Unknown => None,
            ControlPlaneHealth::Reachable => Some(Sample::labeled([&plane.address], 1.0)),
            ControlPlaneHealth::Unreachable { .. } => Some(Sample::labeled([&plane.address], 0.0)),
        };
        planes.filter_map(reachable).collect()
    },
};

/// The control planes, where there are several.
fn lines(planes: &ControlPlanes, now: SystemTime) -> Vec<String> {
    if planes.all.len() < 2 {
        return Vec::new();
    }
    let turned = match (&planes.reason, planes.since) {
        (Some(reason), Some(since)) => Some(format!("turned to {} {}: {reason}", planes.current, ago(since, now))),
        _ => None,
    };
    let all = planes.all.iter().map(|plane| line(plane, planes, now));
    all.chain(turned).collect()
}

fn line(plane: &ControlPlane, planes: &ControlPlanes, now: SystemTime) -> String {
    let health = match &plane.health {
        ControlPlaneHealth::Unknown => "not asked yet".to_owned(),
        ControlPlaneHealth::Reachable => format!("well since {}", ago(plane.since, now)),
        ControlPlaneHealth::Unreachable { error } => format!("UNWELL since {}: {error}", ago(plane.since, now)),
    };
    let mark = match plane.address == planes.current {
        true => "* ",
        false => "- ",
    };
    format!("{mark}{}, {health}", plane.address)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn control_planes_are_told_apart() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431);
        let mut planes = ControlPlanes {
            current: "b:15012".to_owned(),
            since: Some(now - Duration::from_secs(5)),
            reason: Some("refused by a:15012".to_owned()),
            all: vec![
                ControlPlane {
                    address: "a:15012".to_owned(),
                    health: ControlPlaneHealth::Unreachable {
                        error: "refused".to_owned(),
                    },
                    since: now - Duration::from_secs(5),
                },
                ControlPlane {
                    address: "b:15012".to_owned(),
                    health: ControlPlaneHealth::Reachable,
                    since: now - Duration::from_secs(90),
                },
            ],
        };
        let told = [
            "- a:15012, UNWELL since 5s ago: refused",
            "* b:15012, well since 1m 30s ago",
            "turned to b:15012 5s ago: refused by a:15012",
        ];
        assert_eq!(lines(&planes, now), told);
        planes.all.remove(0);
        assert!(lines(&planes, now).is_empty());
    }
}
