//! `run`: everything that can be wrong in the input is found before anything is touched.

mod signals;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::configuration::{Found, Places};
use super::exposure::exposures;
use super::import::expect_own_id;
use super::{Verdict, block_on, configured, take_proxy_group};
use crate::app::{self, Ended, Inputs};
use crate::host::{Copies, Host, KeptSockets};
use crate::join::Join;
use crate::part::{Site, Units};
use crate::{sidecar, telemetry};
use signals::Signals;

pub(super) fn run(path: &Path, units: Option<Units>) -> Result<Verdict> {
    let kept = KeptSockets::from_environment();
    let copies = kept.copies();
    // By hand it is an error, as for every other verb.
    if units.is_some()
        && let Some(verdict) = block_on(configured::missing(path))?
    {
        return Ok(verdict);
    }
    let host = Host::system();
    let (found, join) = block_on(prepare(path, &host))?;
    sidecar::expect_inactive(&host)?;
    if units.is_some() {
        expect_own_id(&host)?;
    }
    telemetry::install(&found.config.log)?;
    tracing::info!("the configuration is {}", found.origin);
    for exposed in exposures(&found.config, path, &host) {
        tracing::warn!("{}", exposed.detail());
    }
    let config = found.config;
    take_proxy_group()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let stop = Signals::new()?.stop(path.to_owned(), config.paths.clone());
        let site = Site {
            host,
            config,
            units: units.unwrap_or_default(),
        };
        let inputs = Inputs { site, join, kept };
        app::run(inputs, stop).await
    })?;
    // Its tasks let go of their sockets.
    drop(runtime);
    match ended {
        Ended::Done => Ok(Verdict::Fine),
        Ended::BeginAgain => begin_again(&copies),
    }
}

/// Becomes this program anew, with the same pid, arguments and environment: for systemd nothing has happened.
#[expect(
    clippy::disallowed_methods,
    reason = "Host::run waits for a child; this process itself goes on as another"
)]
fn begin_again(sockets: &Copies) -> Result<Verdict> {
    let arguments = std::env::args_os().skip(1);
    let sockets = sockets.hand_on().context("failed to hand the DNS sockets on")?;
    let mut program = Command::new("/proc/self/exe");
    Err(program.args(arguments).envs(sockets).exec()).context("failed to begin again")
}

/// The configuration and its source, as good as they can be known to be without asking the source. What came with the
/// instance is kept: it is as good as it gets.
pub(super) async fn prepare(path: &Path, host: &Host) -> Result<(Found, Join)> {
    let places = Places::new(path, host)?;
    let found = places.find().await?;
    let join = Join::open(&found.config, host)?;
    join.check()?;
    places.keep(&found)?;
    Ok((found, join))
}
