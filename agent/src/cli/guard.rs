//! `guard`: on boot, before dockerd publishes a port: the rules for calls to this VM, so that none reaches the
//! application past Envoy until the agent has joined again. Calls from this VM wait for nobody.

use std::path::Path;

use anyhow::Result;

use super::configuration::Places;
use super::{Verdict, say};
use crate::config::FailPolicy;
use crate::host::Host;
use crate::intercept;
use crate::join::Join;

pub(super) fn run(path: &Path) -> Result<Verdict> {
    let host = Host::system();
    let Some(config) = Places::new(path, &host)?.at_hand()? else {
        return say("This VM has never had a configuration: there is nothing to guard yet.\n");
    };
    if config.intercept.on_envoy_down.inbound == FailPolicy::Open {
        return say(
            "intercept.on_envoy_down.inbound is \"open\": calls are taken past the mesh until Envoy is ready.\n",
        );
    }
    let Some(membership) = Join::open(&config, &host)?.at_hand()? else {
        return say("This VM has never been in a mesh: there is nothing to guard yet.\n");
    };
    intercept::guard(&membership, &intercept::Options::new(host.clone(), &config))?.apply(&host)?;
    say("Calls to this VM are refused until the agent has joined the mesh.\n")
}
