//! `status`: from the running agent, or from what the host shows.

use std::io::stdout;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::Args;
use tokio::time::{Instant, sleep};

use super::configuration::ConfigSource;
use super::unconfigured::EXAMPLE;
use super::{Outcome, Output, is_abandoned, print_printable};
use crate::app::parts;
use crate::facts::Health;
use crate::host::Host;
use crate::part::{Code, Section, Site, Units};
use crate::status::{Agent, QUICK_TIMEOUT, Status, ask};
use crate::terminal::{Paint, printable};

/// Between two looks.
const POLL: Duration = Duration::from_millis(500);
/// Longest wait when none is given; a new Envoy may have to be fetched.
const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// Options of `status`.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Options {
    /// Show it again whenever it changes, until ^C.
    #[arg(long)]
    watch: bool,
    /// Wait until the VM is ready, for 60 s or as long as is given; exit with 0 once it is.
    #[arg(long, value_name = "ready[=TIMEOUT]")]
    wait: Option<Wait>,
}

/// The longest wait until the VM is ready.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Wait(Duration);

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (state, timeout) = match text.split_once('=') {
            Some((state, timeout)) => (state, humantime::parse_duration(timeout).ok()),
            None => (text, Some(DEFAULT_WAIT)),
        };
        match (state, timeout) {
            ("ready", Some(timeout)) => Ok(Self(timeout)),
            _ => Err("write `ready`, or with a longest wait `ready=90s`".to_owned()),
        }
    }
}

pub(super) async fn run(path: &Path, output: Output, options: Options) -> Result<Outcome> {
    let host = Host::system();
    let site = Site {
        config: ConfigSource::at_hand_or_default(path, &host)?,
        host,
        units: Units::default(),
    };
    let sections: Vec<_> = parts(None).iter().flat_map(|part| part.sections()).collect();
    let start = Instant::now();
    let mut shown = None;
    loop {
        let status = status(path, &site, &sections, QUICK_TIMEOUT).await;
        let is_over = options.is_over(&status.health, start.elapsed());
        if options.watch || is_over {
            let text = shown_as(&status, &sections, output, options.watch)?;
            if shown.as_ref() != Some(&text) {
                print_printable(&text)?;
            }
            shown = Some(text);
        }
        if is_over || options.watch && is_abandoned(stdout()) {
            return Ok(options.outcome(&status.health));
        }
        sleep(POLL).await;
    }
}

/// The document for programs.
pub(super) async fn document(path: &Path) -> Result<String> {
    let host = Host::system();
    let site = Site {
        config: ConfigSource::at_hand_or_default(path, &host)?,
        host,
        units: Units::default(),
    };
    let sections: Vec<_> = parts(None).iter().flat_map(|part| part.sections()).collect();
    Ok(serde_json::to_string_pretty(&status(path, &site, &sections, QUICK_TIMEOUT).await)? + "\n")
}

impl Options {
    /// True when there is nothing more to wait for.
    fn is_over(self, health: &Health, waited: Duration) -> bool {
        match self.wait {
            Some(Wait(longest)) => health.ready || waited >= longest,
            None => !self.watch,
        }
    }

    fn outcome(self, health: &Health) -> Outcome {
        let is_enough = self.wait.is_some() || health.problems.is_empty();
        match health.ready && is_enough {
            true => Outcome::Fine,
            false => Outcome::Wrong,
        }
    }
}

/// The running agent's document when it comes `within` this time, else what the host shows; `path` is the configuration's.
pub(super) async fn status(path: &Path, site: &Site, sections: &[Box<dyn Section>], within: Duration) -> Status {
    match ask(&site.config.paths.status_socket(), within).await {
        Ok(status) => status,
        Err(reason) => offline(path, site, sections, reason),
    }
}

/// The document as it is printed; one of many goes into the place of the one before, or for programs into a line of its own.
fn shown_as(status: &Status, sections: &[Box<dyn Section>], output: Output, is_one_of_many: bool) -> Result<String> {
    let paint = Paint::of_stdout();
    let text = || status.to_painted(sections, SystemTime::now(), paint);
    Ok(match (output, is_one_of_many) {
        (Output::Json, false) => printable(&(serde_json::to_string_pretty(status)? + "\n")).into_owned(),
        (Output::Json, true) => printable(&(serde_json::to_string(status)? + "\n")).into_owned(),
        (Output::Text, false) => text(),
        (Output::Text, true) => format!("{}{}\n", paint.clear(), text()),
    })
}

/// The first thing to do about an agent that gives no answer: one that runs is not started by a start, nor is one that has
/// no configuration, or a wrong one.
fn remedy(path: &Path, reason: &str) -> String {
    if reason.starts_with("it runs") {
        return "`systemctl kill --signal=KILL istio-vm-agent` ends it; the next one is started at once, and no call is lost"
            .to_owned();
    }
    let known = ConfigSource::new(path, &Host::system()).and_then(|source| source.at_hand());
    match known {
        Ok(Some(_)) => Code::AgentDown.remedy().to_owned(),
        Ok(None) => format!(
            "there is no configuration: `istio-vm-agent up` asks where this VM joins, writes it and starts; or write {} (start \
             from {EXAMPLE}), then `systemctl start istio-vm-agent`",
            path.display()
        ),
        Err(_) => {
            "the configuration is wrong: `istio-vm-agent config validate` names all of it; then `systemctl start \
                   istio-vm-agent`"
                .to_owned()
        }
    }
}

/// The status that the host shows without the agent. Nothing here waits for anybody.
fn offline(path: &Path, site: &Site, sections: &[Box<dyn Section>], reason: String) -> Status {
    let sections = sections
        .iter()
        .map(|section| (section.key().to_owned(), section.offline(site)));
    Status {
        health: Health {
            ready: false,
            problems: vec![format!("no agent answers: {reason}")],
            codes: vec![Code::AgentDown.name().to_owned()],
            remedy: Some(remedy(path, &reason)),
        },
        agent: Agent::NotAnswering { reason },
        sections: sections.collect(),
        ..Status::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(ready: bool, problems: &[&str]) -> Health {
        Health {
            ready,
            problems: problems.iter().map(|&problem| problem.to_owned()).collect(),
            ..Health::default()
        }
    }

    #[test]
    fn remedy_of_an_agent_that_is_not_there_depends_on_its_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let told = |text: &str| {
            std::fs::write(&path, text).unwrap();
            remedy(&path, "not running")
        };
        assert!(told("[join]\ndirectory = { path = '/b' }\n").contains("systemctl start"));
        assert!(told("[nonsense]").starts_with("the configuration is wrong"));
        assert!(remedy(&path, "it runs, and hangs").contains("KILL"));
    }

    #[test]
    fn wait_is_for_readiness_and_as_long_as_given() {
        assert_eq!("ready".parse(), Ok(Wait(DEFAULT_WAIT)));
        assert_eq!("ready=1m 30s".parse(), Ok(Wait(Duration::from_secs(90))));
        for wrong in ["", "healthy", "ready=", "ready=soon", "=3s"] {
            assert!(wrong.parse::<Wait>().unwrap_err().contains("`ready=90s`"), "{wrong}");
        }
    }

    #[test]
    fn wait_ends_with_readiness_and_fails_with_its_time() {
        let options = Options {
            watch: false,
            wait: Some(Wait(Duration::from_secs(3))),
        };
        let amiss = health(true, &["istiod is away"]);
        assert!(options.is_over(&amiss, Duration::ZERO));
        assert_eq!(options.outcome(&amiss), Outcome::Fine);
        let unready = health(false, &["Envoy is down"]);
        assert!(!options.is_over(&unready, Duration::from_secs(2)));
        assert!(options.is_over(&unready, Duration::from_secs(3)));
        assert_eq!(options.outcome(&unready), Outcome::Wrong);
    }

    #[test]
    fn without_a_wait_anything_amiss_is_told_by_the_exit_code() {
        let once = Options {
            watch: false,
            wait: None,
        };
        assert!(once.is_over(&health(false, &[]), Duration::ZERO));
        assert_eq!(once.outcome(&health(true, &["istiod is away"])), Outcome::Wrong);
        assert_eq!(once.outcome(&health(true, &[])), Outcome::Fine);
        let watch = Options {
            watch: true,
            wait: None,
        };
        assert!(!watch.is_over(&health(true, &[]), Duration::from_secs(999)));
    }
}
