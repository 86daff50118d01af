//! The counts of what was turned away, as a part that runs nothing: every part counts in them.

use std::time::SystemTime;

use crate::bounds::Refused;
use crate::part::{Metric, MetricKind, Part, Sample, Section, State, ago};

/// Shows the counts.
#[derive(Debug)]
pub(super) struct RefusedPart;

const SECTION: State<Vec<Refused>> = State {
    key: "refused",
    title: "Refused",
    live: |channels| channels.refusals.all(),
    offline: |_| Vec::new(),
    lines: |refused, now| refused.iter().map(|refused| line(refused, now)).collect(),
};

impl Part for RefusedPart {
    fn name(&self) -> &'static str {
        "refused"
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        &[REFUSED]
    }
}

const REFUSED: Metric = Metric {
    name: "istio_vm_agent_refused_total",
    help: "What was turned away because a bound was reached, by its kind.",
    kind: MetricKind::Counter,
    labels: &["what"],
    read: |channels, _| {
        let kinds = channels.refusals.all().into_iter();
        kinds
            .map(|kind| Sample::labeled_count([&kind.what], kind.count))
            .collect()
    },
};

fn line(refused: &Refused, now: SystemTime) -> String {
    let Refused {
        what,
        count,
        whose,
        last,
    } = refused;
    let whose = match whose.as_str() {
        "" => String::new(),
        whose => format!(" ({whose})"),
    };
    format!("{what}: {count}, the last one {}{whose}", ago(*last, now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn count_is_told_with_its_last_client_where_clients_are_told_apart() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431);
        let refused = |whose: &str| Refused {
            what: "DNS forwards".to_owned(),
            count: 17,
            whose: whose.to_owned(),
            last: now - Duration::from_secs(90),
        };
        assert_eq!(
            line(&refused("uid 1000"), now),
            "DNS forwards: 17, the last one 1m 30s ago (uid 1000)"
        );
        assert_eq!(line(&refused(""), now), "DNS forwards: 17, the last one 1m 30s ago");
    }
}
