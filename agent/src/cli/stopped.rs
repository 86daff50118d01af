//! `stopped`: what is left to do when the agent's unit has been stopped while no agent ran. A running one leaves the
//! mesh itself; one that had crashed or given up could not, and what it left stands until somebody says stop.

use std::path::Path;

use anyhow::Result;

use super::configuration::of_unit;
use super::{Outcome, print, revert};
use crate::host::Host;

/// Puts the host back, /etc/hosts by way of `hosts_unit`, unless systemd is about to start `unit` again: a restart
/// hands over.
pub(super) async fn run(path: &Path, unit: &str, hosts_unit: &str) -> Result<Outcome> {
    let host = Host::system();
    if is_pending(&host, unit)? {
        return print("The agent is started again: Envoy and the rules stay.\n");
    }
    revert::revert(&host, &of_unit(&host, path, unit), Some(hosts_unit)).await?;
    print(revert::DONE)
}

/// True while systemd has a job for the unit. Its stop is over by now, so that a job is a start.
fn is_pending(host: &Host, unit: &str) -> Result<bool> {
    Ok(!matches!(host.unit_property(unit, "Job")?.as_str(), "" | "0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Invocation;
    use crate::host::fixtures::Answers;

    #[test]
    fn unit_with_a_job_is_about_to_start() {
        for (says, pending) in [("\n", false), ("0\n", false), ("4711\n", true)] {
            let systemd = Answers(move |call: &Invocation| {
                assert_eq!(call.to_string(), "systemctl show --property=Job --value a.service");
                Ok(says.to_owned())
            });
            let host = Host::new("/nowhere", systemd);
            assert_eq!(is_pending(&host, "a.service").unwrap(), pending, "{says:?}");
        }
    }
}
