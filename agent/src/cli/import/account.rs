//! The user istio-proxy. Istio's own package gives it whatever number is free; ours must be 1337, which the rules let
//! pass.

use anyhow::{Context, Result, ensure};

use crate::config::{ConfigError, ports};
use crate::host::{CommandError, Host, Invocation};

const NAME: &str = "istio-proxy";

/// What its package made over to the user.
const OWNED: [&str; 5] = [
    "/etc/certs",
    "/var/lib/istio/config",
    "/var/lib/istio/envoy",
    "/var/lib/istio/proxy",
    "/var/log/istio",
];

/// Ids of the user and its group; `None` when there is no such user.
fn ids(host: &Host) -> Result<Option<(u32, u32)>> {
    Ok(entry(host, NAME)?.and_then(|line| {
        let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
        Some((fields.next()??, fields.next()??))
    }))
}

fn entry(host: &Host, key: &str) -> Result<Option<String>> {
    match host.run(&Invocation::new(["getent", "passwd", key])) {
        Ok(line) => Ok(Some(line.trim().to_owned())),
        // Its way to say that there is none.
        Err(CommandError::Failed { .. } | CommandError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the user has our number.
pub(super) fn is_ours(host: &Host) -> Result<bool> {
    Ok(ids(host)?.is_none_or(|ids| ids == (ports::PROXY_UID, ports::PROXY_GID)))
}

/// Refuses to go on when systemd would run Envoy under another number than the rules let pass.
///
/// # Errors
/// When the user has another one, with what to do.
pub(in crate::cli) fn expect_own_id(host: &Host) -> Result<(), ConfigError> {
    match ids(host) {
        Ok(Some((uid, gid))) if (uid, gid) != (ports::PROXY_UID, ports::PROXY_GID) => Err(ConfigError::key(
            "user istio-proxy",
            format!(
                "has user id {uid} and group id {gid}, and Envoy would be redirected to itself: both must be 1337; \
                 `istio-vm-agent import --switch` changes them, or groupmod and usermod"
            ),
        )),
        _ => Ok(()),
    }
}

/// Nobody else may have the number that it is to get.
pub(super) fn expect_free(host: &Host) -> Result<()> {
    let owner = entry(host, &ports::PROXY_UID.to_string())?.unwrap_or_default();
    ensure!(
        owner.is_empty() || owner.starts_with("istio-proxy:"),
        "user id 1337 is taken, and istio-proxy must have it: {owner}"
    );
    Ok(())
}

/// Gives the user our number, and what was its own back to it. None of its processes may run.
pub(super) fn renumber(host: &Host) -> Result<()> {
    let (uid, gid) = (ports::PROXY_UID.to_string(), ports::PROXY_GID.to_string());
    let run = |argv: &[&str]| host.run(&Invocation::new(argv.iter().copied()));
    run(&["groupmod", "--gid", &gid, NAME]).context("failed to change the group's id")?;
    run(&["usermod", "--uid", &uid, "--gid", &gid, NAME]).context("failed to change the user's id")?;
    let mut chown = vec!["chown", "--recursive", "--no-dereference", "istio-proxy:istio-proxy"];
    for path in OWNED {
        if host.meta(path.as_ref())?.is_some() {
            chown.push(path);
        }
    }
    if chown.len() > 4 {
        run(&chown).context("failed to make its files over to it")?;
    }
    Ok(())
}
