//! What systemd says of a unit.

use super::{CommandError, Host, Invocation};

impl Host {
    /// A property of a unit as `systemctl show` prints it, trimmed; of a unit that isn't there, what systemd takes for
    /// granted. Fails where no systemd runs. Blocks.
    pub fn unit_property(&self, unit: &str, name: &str) -> Result<String, CommandError> {
        let property = format!("--property={name}");
        let value = self.run(&Invocation::new(["systemctl", "show", &property, "--value", unit]))?;
        Ok(value.trim().to_owned())
    }
}
