//! `dns`: a name, or the name of an address, as programs on this VM are answered, and who knows it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::configuration::ConfigSource;
use super::{Outcome, Output, print};
use crate::config::{Config, ports};
use crate::dns::{Answer, ask, is_of_mesh};
use crate::host::Host;
use crate::join::Join;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The answers, and whose they are.
#[derive(Debug, Serialize)]
struct Document<'a> {
    name: &'a str,
    /// `mesh`, or `servers`.
    source: &'static str,
    /// Servers that are asked what the mesh doesn't know.
    servers: Vec<IpAddr>,
    answers: Vec<Answer>,
}

pub(super) async fn run(path: &Path, output: Output, name: &str) -> Result<Outcome> {
    let host = Host::system();
    let config = ConfigSource::at_hand_or_default(path, &host)?;
    let conf = host.resolv_conf(Path::new(RESOLV_CONF))?.unwrap_or_default();
    let answers = ask((Ipv4Addr::LOCALHOST, ports::DNS).into(), name).await.context(
        "the agent answers no DNS: `istio-vm-agent status` says whether it runs, and whether DNS is captured",
    )?;
    let document = Document {
        name,
        source: match is_known(&host, &config, name, &conf.search) {
            true => "mesh",
            false => "servers",
        },
        servers: conf.servers.iter().map(|server| server.address).collect(),
        answers,
    };
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&document)? + "\n",
        Output::Text => text(&document),
    })?;
    Ok(match document.answers.iter().all(|answer| answer.records.is_empty()) {
        true => Outcome::Wrong,
        false => Outcome::Fine,
    })
}

/// True for a name of the mesh, by the table that the agent has written down.
fn is_known(host: &Host, config: &Config, name: &str, search: &[String]) -> bool {
    let membership = Join::open(config, host).ok().and_then(|join| join.at_hand().ok()?);
    let names = host.name_table(&config.paths.names()).ok().flatten();
    membership
        .zip(names)
        .is_some_and(|(membership, names)| is_of_mesh(&names, &membership.spiffe_id.namespace, name, search))
}

fn text(document: &Document<'_>) -> String {
    let mut text = String::new();
    for answer in &document.answers {
        if answer.records.is_empty() {
            text += &format!("{:5} none ({})\n", answer.kind, answer.code);
        }
        for record in &answer.records {
            text += &format!("{:5} {}, for {} s", record.kind, record.data, record.ttl);
            if record.name.trim_end_matches('.') != document.name {
                text += &format!(", of {}", record.name);
            }
            text.push('\n');
        }
    }
    let servers: Vec<String> = document.servers.iter().map(IpAddr::to_string).collect();
    let source = match (document.source, servers.as_slice()) {
        ("mesh", _) => "the mesh's names".to_owned(),
        (_, []) => format!("nobody: {RESOLV_CONF} names no server"),
        (_, servers) => format!("{}, now or before", servers.join(", ")),
    };
    text + &format!("from  {source}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::AnswerRecord;

    fn document(source: &'static str, servers: &[&str]) -> Document<'static> {
        let said = AnswerRecord {
            name: "cart.".to_owned(),
            kind: "A".to_owned(),
            ttl: 30,
            data: "10.0.0.1".to_owned(),
        };
        let alias = AnswerRecord {
            name: "other.".to_owned(),
            ..said.clone()
        };
        let answer = |kind: &str, code: &str, records| Answer {
            kind: kind.to_owned(),
            code: code.to_owned(),
            records,
        };
        Document {
            name: "cart",
            source,
            servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            answers: vec![
                answer("A", "No Error", vec![said, alias]),
                answer("AAAA", "No Error", Vec::new()),
            ],
        }
    }

    #[test]
    fn answers_are_told_with_whose_they_are() {
        assert_eq!(
            text(&document("mesh", &["10.0.0.2"])),
            "A     10.0.0.1, for 30 s\nA     10.0.0.1, for 30 s, of other.\nAAAA  none (No Error)\nfrom  the mesh's names\n"
        );
        let of_servers = text(&document("servers", &["10.0.0.2", "fd00::2"]));
        assert!(
            of_servers.ends_with("from  10.0.0.2, fd00::2, now or before\n"),
            "{of_servers}"
        );
        let of_nobody = text(&document("servers", &[]));
        assert!(
            of_nobody.ends_with("from  nobody: /etc/resolv.conf names no server\n"),
            "{of_nobody}"
        );
    }
}
