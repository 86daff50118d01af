//! `configured`: what the unit asks before it starts the agent, so that a fresh installation has not failed.

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use super::Verdict;
use crate::host::Host;
use crate::sidecar;

/// Where the package puts it.
const EXAMPLE: &str = "/usr/share/doc/istio-vm-agent/examples/config.toml";

/// Two lines, and exit code 1, when nothing is at `path`.
pub(super) fn run(path: &Path) -> Result<Verdict> {
    if path.try_exists()? {
        return Ok(Verdict::Fine);
    }
    let next = match sidecar::find(&Host::system()) {
        Ok(Some(_)) => "Istio's own agent is here: `istio-vm-agent import --dry-run` shows what it was told as a \
                        configuration of ours, `istio-vm-agent import --switch` puts us in its place."
            .to_owned(),
        _ => format!(
            "Write {} (start from {EXAMPLE}), try it with `istio-vm-agent check`, then `systemctl start istio-vm-agent`.",
            path.display()
        ),
    };
    writeln!(
        std::io::stderr(),
        "There is no configuration yet: this agent has changed nothing on this VM.\n{next}"
    )?;
    Ok(Verdict::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_the_unit_is_not_to_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert_eq!(run(&path).unwrap(), Verdict::Wrong);
        std::fs::File::create(&path).unwrap();
        assert_eq!(run(&path).unwrap(), Verdict::Fine);
    }
}
