//! A fresh installation: the unit is started without a configuration, and that is no failure.
//!
//! Not an ExecCondition= of the unit: whatever keeps systemd from starting that program counts as an unmet condition,
//! after a crash too, and then nobody starts the agent again.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use sd_notify::NotifyState;

use super::Outcome;
use super::configuration::ConfigSource;
use crate::host::Host;
use crate::sidecar;

/// The example in the package.
pub(super) const EXAMPLE: &str = "/usr/share/doc/istio-vm-agent/examples/config.toml";

/// `None` when there is something at `path`, or may be in the instance's metadata; else says what to do next.
pub(super) async fn report_missing(path: &Path) -> Result<Option<Outcome>> {
    if ConfigSource::new(path, &Host::system())?.any().await? {
        return Ok(None);
    }
    let next = match sidecar::find(&Host::system()) {
        Ok(Some(_)) => "Istio's own agent is here: `istio-vm-agent import --dry-run` shows what it was told as a \
                        configuration of ours, `istio-vm-agent import --switch` puts us in its place."
            .to_owned(),
        _ => format!(
            "`istio-vm-agent up` asks where this VM joins, and joins. Or write {} (start from {EXAMPLE}), try it with \
             `istio-vm-agent check`, then `systemctl start istio-vm-agent`; on Google Compute Engine the instance's attribute \
             istio-vm-agent-config will do.",
            path.display()
        ),
    };
    writeln!(
        io::stderr(),
        "There is no configuration yet: this agent has changed nothing on this VM.\n{next}"
    )?;
    // Else the end of this process would be a failed start.
    sd_notify::notify(&[NotifyState::Ready])?;
    Ok(Some(Outcome::Unconfigured))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_file_the_agent_is_not_to_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert_eq!(report_missing(&path).await.unwrap(), Some(Outcome::Unconfigured));
        std::fs::File::create(&path).unwrap();
        assert_eq!(report_missing(&path).await.unwrap(), None);
    }
}
