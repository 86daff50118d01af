//! `proxy secrets`: the certificates that Envoy has.

use std::time::SystemTime;

use anyhow::Result;

use super::{json, table};
use crate::cli::Output;
use crate::envoy::view::{Certificate, Dump, Secret};
use crate::facts::date;

pub(super) fn shown(dump: &Dump, output: Output, now: SystemTime) -> Result<String> {
    match output {
        Output::Text => Ok(table_at(dump, now)),
        Output::Json => json(&dump.secrets.iter().map(Secret::of).collect::<Vec<_>>()),
    }
}

pub(super) fn table_at(dump: &Dump, now: SystemTime) -> String {
    let secrets: Vec<Secret> = dump.secrets.iter().map(Secret::of).collect();
    let rows = secrets.iter().map(|secret| {
        let kind = if secret.is_ca { "CA" } else { "Cert Chain" };
        let first = secret.certificates.first();
        let of_first = |text: fn(&Certificate) -> String| first.map(text).unwrap_or_default();
        [
            secret.name.clone(),
            kind.to_owned(),
            secret.state.clone(),
            secret.is_valid(now).to_string(),
            of_first(|it| it.serial.clone()),
            of_first(|it| date(it.not_after)),
            of_first(|it| date(it.not_before)),
        ]
        .into()
    });
    let header = [
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
    ];
    table(&header, rows)
}
