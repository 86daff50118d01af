//! The user that Istio's own agent runs as.

use anyhow::Result;

use crate::host::{CommandError, Host, Invocation};

/// The user's name, and its group's.
pub const USER: &str = "istio-proxy";

/// Ids of the user and its group; `None` when there is no such user.
///
/// # Errors
/// When the user database can't be asked.
pub fn ids(host: &Host) -> Result<Option<(u32, u32)>> {
    Ok(entry(host, "passwd", USER)?.and_then(|line| {
        let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
        Some((fields.next()??, fields.next()??))
    }))
}

/// A line of one of getent's databases; `None` when it has none for `key`.
///
/// # Errors
/// When getent can't be run.
pub fn entry(host: &Host, database: &str, key: &str) -> Result<Option<String>> {
    match host.run(&Invocation::new(["getent", database, key])) {
        Ok(line) => Ok(Some(line.trim().to_owned())),
        // Its way to say that there is none.
        Err(CommandError::Failed { .. } | CommandError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
