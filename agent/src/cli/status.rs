//! `status`: from the running agent, or from what the host shows.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;

use super::configuration::ConfigSource;
use super::{Outcome, Output, print};
use crate::app::parts;
use crate::facts::Health;
use crate::host::Host;
use crate::part::{Section, Site, Units};
use crate::status::{Agent, QUICK_TIMEOUT, Status, ask};

pub(super) async fn run(path: &Path, output: Output) -> Result<Outcome> {
    let host = Host::system();
    let site = Site {
        config: ConfigSource::at_hand_or_default(path, &host)?,
        host,
        units: Units::default(),
    };
    let sections: Vec<_> = parts(None).iter().flat_map(|part| part.sections()).collect();
    let status = match ask(&site.config.paths.status_socket(), QUICK_TIMEOUT).await {
        Ok(status) => status,
        Err(reason) => offline(&site, &sections, reason),
    };
    print(&match output {
        Output::Text => status.to_text(&sections, SystemTime::now()),
        Output::Json => serde_json::to_string_pretty(&status)? + "\n",
    })?;
    Ok(if status.health.ready && status.health.problems.is_empty() {
        Outcome::Fine
    } else {
        Outcome::Wrong
    })
}

/// The status that the host shows without the agent. Nothing here waits for anybody.
fn offline(site: &Site, sections: &[Box<dyn Section>], reason: String) -> Status {
    let problems = vec![format!(
        "no agent answers ({reason}): `systemctl status istio-vm-agent` and `journalctl -u istio-vm-agent` say why"
    )];
    let sections = sections
        .iter()
        .map(|section| (section.key().to_owned(), section.offline(site)));
    Status {
        agent: Agent::NotAnswering { reason },
        health: Health { ready: false, problems },
        sections: sections.collect(),
    }
}
