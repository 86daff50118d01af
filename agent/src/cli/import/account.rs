//! The user istio-proxy. Istio's own package gives it whatever number is free; ours must be 1337, which the rules let
//! pass.

use anyhow::{Context, Result, ensure};

use crate::config::{ConfigError, ports};
use crate::host::{CommandError, Host, Invocation};

const NAME: &str = "istio-proxy";
/// User and group.
pub(super) const OURS: (u32, u32) = (ports::PROXY_UID, ports::PROXY_GID);

/// What its package and the operator make over to the user.
const OWNED: [&str; 4] = ["/etc/certs", "/var/lib/istio", "/var/log/istio", "/run/secrets"];

/// Ids of the user and its group; `None` when there is no such user.
pub(super) fn ids(host: &Host) -> Result<Option<(u32, u32)>> {
    Ok(entry(host, "passwd", NAME)?.and_then(|line| {
        let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
        Some((fields.next()??, fields.next()??))
    }))
}

fn entry(host: &Host, database: &str, key: &str) -> Result<Option<String>> {
    match host.run(&Invocation::new(["getent", database, key])) {
        Ok(line) => Ok(Some(line.trim().to_owned())),
        // Its way to say that there is none.
        Err(CommandError::Failed { .. } | CommandError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Refuses to go on when systemd would run Envoy under another number than the rules let pass.
///
/// # Errors
/// When the user has another one, with what to do.
pub(in crate::cli) fn expect_own_id(host: &Host) -> Result<(), ConfigError> {
    match ids(host) {
        Ok(Some((uid, gid))) if (uid, gid) != OURS => Err(ConfigError::key(
            "user istio-proxy",
            format!(
                "has user id {uid} and group id {gid}, and Envoy would be redirected to itself: both must be 1337; \
                 `istio-vm-agent import --switch` changes them, or groupmod and usermod"
            ),
        )),
        _ => Ok(()),
    }
}

/// Nobody else may have the numbers that it is to get.
pub(super) fn expect_free(host: &Host) -> Result<()> {
    for (database, what, id) in [("passwd", "user", OURS.0), ("group", "group", OURS.1)] {
        let owner = entry(host, database, &id.to_string())?.unwrap_or_default();
        ensure!(
            owner.is_empty() || owner.starts_with("istio-proxy:"),
            "{what} id {id} is taken, and istio-proxy must have it: {owner}"
        );
    }
    Ok(())
}

/// Gives the user and its group other numbers, and with them its files. None of its processes may run.
pub(super) fn renumber(host: &Host, from: (u32, u32), to: (u32, u32)) -> Result<()> {
    let (uid, gid) = (to.0.to_string(), to.1.to_string());
    let run = |argv: &[&str]| host.run(&Invocation::new(argv.iter().copied()));
    run(&["groupmod", "--gid", &gid, NAME]).context("failed to change the group's id")?;
    run(&["usermod", "--uid", &uid, "--gid", &gid, NAME]).context("failed to change the user's id")?;
    let mut there = Vec::new();
    for path in OWNED {
        if host.meta(path.as_ref())?.is_some() {
            there.push(path);
        }
    }
    if there.is_empty() {
        return Ok(());
    }
    for (from, to) in [
        (format!("--from={}", from.0), uid),
        (format!("--from=:{}", from.1), format!(":{gid}")),
    ] {
        let argv = [
            ["chown", "--recursive", "--no-dereference", &from, &to].as_slice(),
            &there,
        ]
        .concat();
        run(&argv).context("failed to make its files over to it")?;
    }
    Ok(())
}
