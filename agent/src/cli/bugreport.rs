//! `bugreport`: one archive about this VM for whoever is to find out what is wrong, istiod's operators among them. Works
//! without an agent; what can't be had is told in the archive, and costs the rest nothing.
//!
//! Secrets are not taken out of it, they don't come in: our own documents have none, of Envoy's only the fields that are
//! known are taken (`fields`), and of the journal no line about a request. What looks like a key or a token all the same is
//! cut (`secrets`).

mod archive;
mod fields;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod journal;
mod secrets;

use std::path::{Path, PathBuf, absolute};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use futures_util::future::{FutureExt, LocalBoxFuture, join_all};
use nix::unistd::{getgid, setgid};
use tokio::time::timeout;

use super::configuration::ConfigSource;
use super::{Outcome, Output, check, config, print, status, take_proxy_group};
use crate::envoy::{self, Admin};
use crate::facts::date;
use crate::host::{Host, Invocation};

/// Longest time for one piece; all are asked for at once.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);

/// Commands whose output is a piece, none of which changes anything.
const COMMANDS: [(&str, &[&str]); 11] = [
    ("rules/nft.txt", &["nft", "list", "ruleset"]),
    ("rules/iptables.txt", &["iptables-save", "--counters"]),
    ("rules/ip6tables.txt", &["ip6tables-save", "--counters"]),
    ("network/addresses.txt", &["ip", "-details", "address"]),
    ("network/routes.txt", &["ip", "route", "show", "table", "all"]),
    (
        "network/sockets.txt",
        &["ss", "--numeric", "--listening", "--tcp", "--udp", "--processes"],
    ),
    ("network/resolv.conf", &["cat", "/etc/resolv.conf"]),
    ("host/kernel.txt", &["uname", "-srvm"]),
    ("host/os-release.txt", &["cat", "/etc/os-release"]),
    ("host/systemd.txt", &["systemctl", "--version"]),
    (
        "host/units.txt",
        &[
            "systemctl",
            "list-units",
            "--all",
            "--no-pager",
            "--full",
            "istio*",
            "docker.service",
        ],
    ),
];

/// Makes of Envoy's answer what is in the report.
type Taken = fn(&str) -> Result<String>;

/// Paths of Envoy's admin interface that a report asks for, and the part of each answer that it takes.
const ENVOY: [(&str, &str, Taken); 6] = [
    ("envoy/config_dump.json", "/config_dump?include_eds", dump),
    ("envoy/server_info.json", "/server_info", |text| {
        secrets::known_fields(text, fields::SERVER_INFO)
    }),
    ("envoy/certs.json", "/certs", |text| {
        secrets::known_fields(text, fields::CERTS)
    }),
    ("envoy/clusters.txt", "/clusters", |text| Ok(text.to_owned())),
    ("envoy/listeners.txt", "/listeners", |text| Ok(text.to_owned())),
    ("envoy/stats.txt", "/stats?usedonly", |text| {
        Ok(secrets::known_statistics(text))
    }),
];

/// Options of `bugreport`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// The archive to write, a .tar.gz that only its owner may read.
    #[arg(default_value = "./istio-vm-agent-bugreport.tar.gz", value_parser = PathBufValueParser::new().try_map(absolute))]
    file: PathBuf,
}

/// A file of the archive, or why it isn't there.
#[derive(Debug)]
struct Piece {
    name: &'static str,
    content: Result<String>,
}

pub(super) async fn run(path: &Path, output: Output, options: &Options) -> Result<Outcome> {
    let own_group = getgid();
    // So that this process's own calls pass the rules of a running agent.
    let _ = take_proxy_group();
    let host = Host::system().hurried(PIECE_TIMEOUT);
    let now = SystemTime::now();
    let pieces = join_all(pieces(path, &host)).await;
    let archive = archive::tar_gz(&pieces, now).context("failed to make the archive")?;
    setgid(own_group).context("failed to leave group istio-proxy")?;
    host.write_bytes(&options.file, &archive, 0o600)
        .with_context(|| format!("failed to write {}", options.file.display()))?;
    let file = options.file.display();
    let missing = pieces.iter().filter(|piece| piece.content.is_err()).count();
    print(&match output {
        Output::Json => {
            serde_json::json!({ "file": file.to_string(), "missing": missing, "at": date(now) }).to_string() + "\n"
        }
        Output::Text => format!(
            "{file}: {} files; of {missing} that could not be had it says why. It has no secrets, but names and addresses of \
             this VM and its mesh.\n",
            pieces.len() - missing
        ),
    })
}

fn pieces<'a>(path: &'a Path, host: &Host) -> Vec<LocalBoxFuture<'a, Piece>> {
    let mut pieces = vec![
        piece("status.json", status::document(path)),
        piece("check.json", check::document(path)),
        piece("config.txt", config::shown(path)),
        piece("journal.txt", journal::text(host.clone())),
    ];
    pieces.extend(COMMANDS.map(|(name, argv)| {
        let host = host.clone();
        piece(name, async move {
            let call = Invocation::new(argv.iter().copied()).within(PIECE_TIMEOUT);
            host.blocking(move |host| Ok(host.run(&call)?)).await
        })
    }));
    let admin = ConfigSource::at_hand_or_default(path, host)
        .map(|config| envoy::Options::new(host.clone(), &config, None).admin())
        .map_err(|error| format!("{error:#}"));
    pieces.extend(ENVOY.map(|(name, question, taken)| {
        let admin = admin.clone();
        piece(name, ask_envoy(admin, question, taken))
    }));
    pieces
}

/// The part of a `/config_dump` that a report has: istioctl reads it as one (`istioctl proxy-config … --file`).
pub(super) fn dump(text: &str) -> Result<String> {
    secrets::known_fields(text, fields::CONFIG_DUMP)
}

async fn ask_envoy(admin: Result<Admin, String>, question: &str, taken: Taken) -> Result<String> {
    taken(&admin.map_err(|error| anyhow!(error))?.show(question).await?)
}

fn piece<'a>(name: &'static str, content: impl Future<Output = Result<String>> + 'a) -> LocalBoxFuture<'a, Piece> {
    async move {
        let late = |_| Err(anyhow!("not there within {PIECE_TIMEOUT:?}"));
        let content = timeout(PIECE_TIMEOUT, content).await.unwrap_or_else(late);
        Piece {
            name,
            content: content.map(|text| secrets::scrubbed(&text)),
        }
    }
    .boxed_local()
}

#[cfg(test)]
mod tests {
    use std::env::current_dir;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn archive_is_written_below_the_working_directory() {
        let here = current_dir().unwrap();
        let file = |line: &[&str]| Line::parse_from(line).options.file;
        assert_eq!(file(&["bugreport"]), here.join("istio-vm-agent-bugreport.tar.gz"));
        assert_eq!(file(&["bugreport", "r.tgz"]), here.join("r.tgz"));
        assert_eq!(file(&["bugreport", "/r.tgz"]), Path::new("/r.tgz"));
    }
}
