//! Questions of `check` about the application's service.

use super::unit::Unit;
use crate::config::ServiceConfig;
use crate::part::{CheckContext, Finding, Question, Subject};

const SERVICE: Subject = Subject::new("IVA806", "service");
/// The agent's own unit, where nothing else is said.
const AGENT: &str = "istio-vm-agent.service";

pub(super) fn questions(context: &CheckContext) -> Vec<Question> {
    vec![Question::look(SERVICE, context, |site| {
        let services = site.config.workloads.services();
        let agent = site.units.agent.as_deref().unwrap_or(AGENT);
        let found = services.map(|service| match Unit::look(&site.host, &service.unit) {
            Ok(unit) => judge(service, &unit, agent),
            Err(error) => SERVICE.failed(
                format!("{error:#}"),
                "run the agent where systemd does, or start the application yourself, without [workload.service]",
            ),
        });
        let found: Vec<_> = found.collect();
        match found.is_empty() {
            true => vec![SERVICE.skipped("no service is configured")],
            false => found,
        }
    })]
}

fn judge(service: &ServiceConfig, unit: &Unit, agent: &str) -> Finding {
    let name = &service.unit;
    if let Err(error) = unit.expect_startable(name) {
        return SERVICE.failed(
            format!("{error:#}"),
            "do what the line says, then `systemctl daemon-reload`",
        );
    }
    if unit.is_after(agent) {
        return SERVICE.failed(
            format!("{name} is ordered after {agent}, which starts it: each would wait for the other"),
            format!("take After={agent} out of it: `systemctl edit --full {name}`"),
        );
    }
    if unit.starts_by_itself() {
        return SERVICE.warning(
            format!(
                "{name} is {}, so that a boot starts it before this VM is in the mesh",
                unit.file
            ),
            format!("`systemctl disable {name}`: the agent starts it"),
        );
    }
    match unit.stops_after(agent) {
        true => SERVICE.ok(format!("{name} is there, and the agent's to start")),
        false => SERVICE.warning(
            format!("at a shutdown {name} ends while this VM still leaves the mesh, and calls to it fail"),
            format!("put Before={agent} into its [Unit], by `systemctl edit {name}`"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Level;

    #[test]
    fn unit_is_named_that_the_agent_can_t_start_or_is_not_alone_to() {
        let service: ServiceConfig = toml::from_str("unit = 'shop.service'").unwrap();
        for (said, level, words) in [
            ("LoadState=not-found", Level::Failed, "shop.service is not there"),
            ("LoadState=masked\nUnitFileState=masked", Level::Failed, "is masked"),
            (
                "LoadState=loaded\nAfter=basic.target istio-vm-agent.service",
                Level::Failed,
                "each would wait",
            ),
            (
                "LoadState=loaded\nUnitFileState=enabled",
                Level::Warning,
                "is enabled, so that a boot",
            ),
            (
                "LoadState=loaded\nUnitFileState=disabled",
                Level::Warning,
                "at a shutdown",
            ),
            (
                "LoadState=loaded\nUnitFileState=static\nBefore=shutdown.target istio-vm-agent.service",
                Level::Ok,
                "",
            ),
        ] {
            let found = judge(&service, &Unit::parse(said), AGENT);
            assert_eq!(found.level, level, "{said}: {found:?}");
            assert!(found.detail.contains(words), "{said}: {found:?}");
        }
    }
}
