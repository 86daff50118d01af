//! `run`: everything that can be wrong in the input is found before anything is touched.

use std::path::Path;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use super::{Verdict, take_proxy_group};
use crate::app::{self, Inputs, Stop};
use crate::config::Config;
use crate::host::Host;
use crate::join::Join;
use crate::telemetry;

pub(super) fn run(path: &Path, envoy_unit: Option<String>) -> Result<Verdict> {
    let config = Config::load(path)?;
    let host = Host::system();
    let join = Join::open(&config, &host)?;
    // A bad bundle is found before anything is touched.
    join.check()?;
    telemetry::install(&config.log)?;
    take_proxy_group()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut usr1 = signal(SignalKind::user_defined1())?;
        let stop = async move {
            tokio::select! {
                _ = term.recv() => tracing::info!("SIGTERM: leaving the mesh"),
                _ = int.recv() => tracing::info!("SIGINT: leaving the mesh"),
                _ = usr1.recv() => {
                    tracing::info!("SIGUSR1: leaving Envoy and the rules to the next agent");
                    return Stop::HandOver;
                }
            }
            Stop::Leave
        };
        let inputs = Inputs {
            config,
            join,
            host,
            envoy_unit,
        };
        app::run(inputs, stop).await
    })?;
    Ok(Verdict::Fine)
}
