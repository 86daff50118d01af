//! The standby of a part, as a unit that the agent starts and that outlives it.

use anyhow::Result;
use futures_util::future::BoxFuture;

use super::Site;

/// Stops a part's standby, beside an agent that has failed; `None`: there is none.
///
/// # Errors
/// When systemd can't stop it.
pub fn stop_standby<'a>(site: &'a Site, unit: Option<&String>) -> BoxFuture<'a, Result<()>> {
    let unit = unit.cloned();
    let stopped = site
        .host
        .blocking(move |host| Ok(unit.map_or(Ok(()), |unit| host.stop_unit(&unit))?));
    Box::pin(stopped)
}

/// A part's standby if it runs, with what it `does`, as a trace.
///
/// # Errors
/// None: a unit that systemd knows nothing of doesn't run.
pub fn running_standby<'a>(
    site: &'a Site,
    unit: Option<&String>,
    does: &'static str,
) -> BoxFuture<'a, Result<Vec<String>>> {
    let unit = unit.cloned();
    Box::pin(site.host.blocking(move |host| {
        let active = unit.into_iter().filter(|unit| host.is_unit_active(unit));
        Ok(active.map(|unit| format!("{unit}, which {does}")).collect())
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::config::Config;
    use crate::host::fixtures::Answers;
    use crate::host::{Host, Invocation};
    use crate::part::Units;

    #[tokio::test]
    async fn standby_beside_an_agent_that_has_failed_is_stopped() {
        let runs = AtomicBool::new(true);
        let systemd = Answers(move |call: &Invocation| {
            match call.to_string().as_str() {
                "systemctl show --property=ActiveState --value dns.service" => {}
                "systemctl stop dns.service" => runs.store(false, Ordering::Relaxed),
                other => panic!("{other}"),
            }
            Ok(if runs.load(Ordering::Relaxed) {
                "active\n"
            } else {
                "inactive\n"
            }
            .to_owned())
        });
        let site = Site {
            host: Host::new("/nowhere", systemd),
            config: Config::default(),
            units: Units::default(),
        };
        let unit = "dns.service".to_owned();
        let left = async || running_standby(&site, Some(&unit), "answers DNS").await.unwrap();
        assert_eq!(left().await, ["dns.service, which answers DNS"]);
        stop_standby(&site, Some(&unit)).await.unwrap();
        assert_eq!(left().await, [""; 0]);
        stop_standby(&site, Some(&unit)).await.unwrap();
        stop_standby(&site, None).await.unwrap();
    }
}
