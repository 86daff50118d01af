//! `[health]`.

use serde::{Deserialize, Serialize};

use super::{Checks, ProbeConfig};
use crate::facts::{Probe, ProbeKind};

/// Failures after which an application is started again, as Kubernetes has it.
pub(super) const LIFE: u32 = 3;

/// `[health]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// The probe; absent: the WorkloadGroup's.
    pub probe: Option<ProbeConfig>,
    /// The application is started again when this one fails; it is asked three times unless it says otherwise.
    pub liveness_probe: Option<ProbeConfig<LIFE>>,
    /// The others are not asked, and the application is healthy for nobody, until this one has succeeded.
    pub startup_probe: Option<ProbeConfig<LIFE>>,
    /// True when the WorkloadGroup's probe may be a command, which whoever writes the group then runs on this VM.
    pub allow_remote_exec: bool,
}

impl HealthConfig {
    /// The operator's probe, else the WorkloadGroup's; and why that may not be asked.
    pub fn choose(&self, theirs: Option<&Probe>) -> Option<(Probe, Option<&'static str>)> {
        if let Some(probe) = &self.probe {
            return Some((probe.0.clone(), None));
        }
        let is_command = |probe: &Probe| matches!(probe.kind, ProbeKind::Exec { .. });
        let refused = "the WorkloadGroup's probe is a command, and those are the operator's to allow: give a probe in \
                       [health.probe], or set health.allow_remote_exec = true";
        theirs.map(|probe| {
            let reason = (is_command(probe) && !self.allow_remote_exec).then_some(refused);
            (probe.clone(), reason)
        })
    }

    pub(super) fn checks(&self) -> Checks {
        let probe = self.probe.iter().flat_map(|probe| probe.checks("health.probe"));
        let liveness = self.liveness_probe.iter();
        let startup = self.startup_probe.iter();
        probe
            .chain(liveness.flat_map(|probe| probe.checks("health.liveness_probe")))
            .chain(startup.flat_map(|probe| probe.checks("health.startup_probe")))
            .collect()
    }
}
