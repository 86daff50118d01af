//! One round of questions: all at once, each answer told as it comes, and none waited for beyond a limit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Error, Result};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::host::CLOCK;
use super::selector::Selector;
use super::{ANSWER_TIMEOUT, control_plane, credentials, envoy, host, ports, routes, units, versions};
use crate::app::parts;
use crate::cli::configuration::{ConfigSource, LoadedConfig};
use crate::cli::root;
use crate::cli::unconfigured::EXAMPLE;
use crate::config::{Config, ConfigError};
use crate::facts::Membership;
use crate::host::Host;
use crate::join::{Answered, Join};
use crate::kube::NoBearer;
use crate::part::{CheckContext, Finding, Joined, Member, Question, Site, Subject, Units};

/// A round ends within it, whatever hangs.
pub(super) const ROUND: Duration = Duration::from_millis(4900);
/// Time that the join source is given, so that what is asked with its answer is told as not asked.
const JOIN_TIMEOUT: Duration = Duration::from_millis(4500);

const CONFIGURATION: Subject = Subject::new("IVA201", "configuration");
const JOIN: Subject = Subject::new("IVA202", "join");
const CLUSTER_ID: Subject = Subject::new("IVA205", "cluster id");

/// Receiver of each finding as it comes.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&Finding);

/// The findings of a round, by code; and the error that makes exit code 78.
#[derive(Debug, Default)]
pub(super) struct Examination {
    pub(super) findings: Vec<Finding>,
    pub(super) error: Option<Error>,
}

/// Asks everything that the configuration at `path` is about, and everything about the host.
///
/// The CA is not asked to sign when an earlier round has `signed`.
///
/// # Errors
/// When `selector` names a code that no question has.
pub(super) async fn examine(
    path: &Path,
    selector: &Selector,
    signed: Option<Finding>,
    tell: Tell<'_>,
) -> Result<Examination> {
    examine_on(&Host::system(), path, selector, signed, tell).await
}

/// [`examine`] on a host whose files may lie elsewhere; `path` is this machine's.
pub(super) async fn examine_on(
    host: &Host,
    path: &Path,
    selector: &Selector,
    signed: Option<Finding>,
    tell: Tell<'_>,
) -> Result<Examination> {
    let round = Round {
        deadline: Instant::now() + ROUND,
        selector,
        tell,
    };
    let host = host.hurried(ANSWER_TIMEOUT);
    let (config, origin) = match find(path, &host).await {
        Ok(LoadedConfig { config, origin, .. }) => (config, origin),
        Err(error) => {
            let mut questions = host::questions(&host);
            questions.push(refused(CONFIGURATION, &error, path));
            return Ok(round.ask(questions).await.ending_with(error));
        }
    };
    let site = Arc::new(Site {
        host,
        config,
        units: Units::default(),
    });
    let (publish, joined) = watch::channel(Joined::Pending);
    let context = CheckContext { site, joined };
    let mut questions = vec![Question::new(CONFIGURATION, async move {
        [CONFIGURATION.ok(format!("{origin} is good"))]
    })];
    let error = match Join::open(&context.site.config, &context.site.host) {
        Ok(join) => {
            // A local source that is wrong is a configuration that is wrong.
            let error = join.check().err();
            questions.push(ask_join(join.clone(), publish));
            questions.push(cluster_id(&context, join.clone()));
            questions.push(clock(&context, join));
            error
        }
        Err(error) => {
            publish.send_replace(Joined::Unknown);
            let error = Error::from(error);
            questions.push(refused(JOIN, &error, path));
            Some(error)
        }
    };
    questions.extend(all(&context, path, signed));
    // With a configuration that can't be used most are not asked, whatever their codes.
    selector.expect_known(&questions)?;
    let examination = round.ask(questions).await;
    Ok(match error {
        Some(error) => examination.ending_with(error),
        None => examination,
    })
}

/// Everything about a host and a membership that is known, without a word to anybody.
pub(super) async fn findings_of(config: &Config, host: &Host, membership: &Membership, join: &Join) -> Vec<Finding> {
    let site = Arc::new(Site {
        host: host.hurried(ANSWER_TIMEOUT),
        config: config.clone(),
        units: Units::default(),
    });
    let known = Joined::Known(Arc::new(membership.clone()), join.tokens());
    let context = CheckContext {
        site,
        joined: watch::channel(known).1,
    };
    let round = Round {
        deadline: Instant::now() + ROUND,
        selector: &Selector::default(),
        tell: &mut |_| {},
    };
    let questions = all(&context, Path::new(crate::config::DEFAULT_PATH), None);
    round.ask(questions).await.findings
}

async fn find(path: &Path, host: &Host) -> Result<LoadedConfig> {
    let source = ConfigSource::new(path, host)?;
    timeout(ANSWER_TIMEOUT, source.find())
        .await
        .unwrap_or_else(|_| anyhow::bail!("the instance's metadata gave no answer within {ANSWER_TIMEOUT:?}"))
}

/// The findings about an error that says by itself what is wrong.
fn refused(subject: Subject, error: &Error, path: &Path) -> Question {
    let found = failures_of(subject, error, &remedy(path));
    Question::new(subject, async move { found })
}

/// Remedy for the configuration at `path`, which can't be used.
fn remedy(path: &Path) -> String {
    if root::is_kept(path) {
        return format!("run as root: {}", root::command());
    }
    match Host::system().exists(path) {
        true => {
            format!("mend what it names, or start from {EXAMPLE}; `istio-vm-agent check --wait` tells when it is good")
        }
        false => format!("`istio-vm-agent up` asks where this VM joins, and writes it; or start from {EXAMPLE}"),
    }
}

/// A finding for each thing that is wrong.
fn failures_of(subject: Subject, error: &Error, fix: &str) -> Vec<Finding> {
    match error.downcast_ref::<ConfigError>() {
        Some(error) => error
            .faults()
            .iter()
            .map(|fault| subject.failed(fault.to_string(), fix))
            .collect(),
        None => vec![subject.failed(format!("{error:#}"), fix)],
    }
}

fn ask_join(join: Join, publish: watch::Sender<Joined>) -> Question {
    Question::new(JOIN, async move {
        let (joined, findings) = match timeout(JOIN_TIMEOUT, join.fetch()).await {
            Ok(Ok(membership)) => {
                let is = format!(
                    "{} at {}, from {}",
                    membership.spiffe_id,
                    membership.discovery_address,
                    join.source()
                );
                (Joined::Known(Arc::new(membership), join.tokens()), vec![JOIN.ok(is)])
            }
            Ok(Err(error)) => (Joined::Unknown, failures_of(JOIN, &error, &join_remedy(&error, &join))),
            Err(_) => {
                let problem = format!("{} gave no answer within {JOIN_TIMEOUT:?}", join.source());
                (Joined::Unknown, vec![JOIN.failed(problem, answer_remedy(&join))])
            }
        };
        publish.send_replace(joined);
        findings
    })
}

/// Remedy for an error of the join source: to mend what it names, or to have the source answer.
fn join_remedy(error: &Error, join: &Join) -> String {
    let mends = "mend what it names; `istio-vm-agent check --wait` tells when it is good";
    match error.downcast_ref::<ConfigError>().map(ConfigError::is_final) {
        Some(true) => mends.to_owned(),
        Some(false) => {
            "give the VM what it lacks (`ip address`), or do as the line says; the agent goes on by itself".to_owned()
        }
        None if error.is::<Answered>() || error.is::<NoBearer>() => mends.to_owned(),
        None => answer_remedy(join),
    }
}

fn answer_remedy(join: &Join) -> String {
    format!(
        "have {} give this VM's group, then `istio-vm-agent check --wait`",
        join.source()
    )
}

/// A question to the API server, which knows Istio's own name of the cluster; other sources don't.
fn cluster_id(context: &CheckContext, join: Join) -> Question {
    Question::of_member(CLUSTER_ID, context, |Member { membership, .. }| async move {
        [match join.cluster_id_problem(&membership).await {
            Ok(None) => CLUSTER_ID.ok(format!("{:?}, and nobody calls it otherwise", membership.cluster_id)),
            Ok(Some((problem, fix))) => CLUSTER_ID.failed(problem, fix),
            Err(error) => CLUSTER_ID.skipped(format!("{error:#}")),
        }]
    })
}

/// Asked when the join source has answered, well or not: it tells the time.
fn clock(context: &CheckContext, join: Join) -> Question {
    let CheckContext { site, mut joined } = context.clone();
    Question::new(CLOCK, async move {
        let _ = joined.wait_for(|joined| !matches!(joined, Joined::Pending)).await;
        match join.clock_problem() {
            Some(problem) => vec![CLOCK.failed(problem, host::SET_THE_CLOCK)],
            None => host::synchronized(site.host.clone()).await,
        }
    })
}

fn all(context: &CheckContext, path: &Path, signed: Option<Finding>) -> Vec<Question> {
    let path = PathBuf::from(path);
    let mut questions = host::questions(&context.site.host);
    questions.extend(host::questions_of_site(context));
    questions.extend(units::questions(context, &path));
    questions.extend(ports::questions(context));
    questions.extend(routes::questions(context));
    questions.extend(envoy::questions(context));
    questions.extend(control_plane::questions(context, signed));
    questions.extend(versions::questions(context));
    questions.extend(credentials::questions(context));
    for part in parts(None) {
        questions.extend(part.questions(context));
    }
    questions
}

/// The way that a round is gone.
struct Round<'a> {
    deadline: Instant,
    selector: &'a Selector,
    tell: Tell<'a>,
}

impl Round<'_> {
    async fn ask(self, mut questions: Vec<Question>) -> Examination {
        // Others wait for what it publishes.
        questions.retain(|question| question.subject == JOIN || self.selector.takes(question.subject));
        let deadline = self.deadline;
        let asked = questions.into_iter().enumerate();
        let mut answers: FuturesUnordered<_> = asked
            .map(|(index, Question { subject, answer })| async move {
                let answer = timeout_at(deadline, answer).await;
                (index, answer.unwrap_or_else(|_| vec![hangs(subject)]))
            })
            .collect();
        let mut found = Vec::new();
        while let Some((index, findings)) = answers.next().await {
            for finding in findings {
                if self.selector.takes_code(finding.code) {
                    (self.tell)(&finding);
                    found.push((index, finding));
                }
            }
        }
        found.sort_by_key(|(index, finding)| (finding.code, *index));
        Examination {
            findings: found.into_iter().map(|(_, finding)| finding).collect(),
            error: None,
        }
    }
}

impl Examination {
    /// With the error that the exit code is about, where it is one of the configuration.
    fn ending_with(self, error: Error) -> Self {
        let error = Some(error).filter(|error| error.is::<ConfigError>());
        Self { error, ..self }
    }
}

fn hangs(subject: Subject) -> Finding {
    subject.failed(
        "gave no answer in the 5 s that a check takes",
        format!(
            "see what of it hangs, and ask again: `istio-vm-agent check --only {}`",
            subject.code
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::part::Level;

    const HANGING: Subject = Subject::new("IVA801", "docker");
    const FINE: Subject = Subject::new("IVA101", "privileges");

    #[test]
    fn token_that_is_none_is_mended_in_its_place() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), crate::host::System);
        let put = |token: &str| std::fs::write(root.path().join("token"), token).unwrap();
        put("t");
        let text =
            "[join.kubernetes]\nserver = 'https://a'\nnamespace = 'n'\nworkload_group = 'w'\ntoken_file = '/token'\n";
        let join = Join::open(&Config::parse(Path::new("/c.toml"), text).unwrap(), &host).unwrap();
        // Whoever keeps it fresh writes it anew.
        put("\n");
        let error = crate::kube::token(Path::new("/token"), &host).unwrap_err();
        let remedy = join_remedy(&error.context("join.kubernetes.token_file"), &join);
        assert!(remedy.starts_with("mend what it names"), "{remedy}");
    }

    #[tokio::test(start_paused = true)]
    async fn question_that_hangs_is_named_and_keeps_no_other_from_being_told_at_once() {
        let questions = vec![
            Question::new(HANGING, pending::<Option<Finding>>()),
            Question::new(FINE, async { [FINE.ok("fine")] }),
        ];
        let (start, mut told) = (Instant::now(), Vec::new());
        let round = Round {
            deadline: start + ROUND,
            selector: &Selector::default(),
            tell: &mut |finding| told.push((finding.code, start.elapsed())),
        };
        let examination = round.ask(questions).await;
        assert_eq!(told, [("IVA101", Duration::ZERO), ("IVA801", ROUND)]);
        let levels: Vec<_> = examination.findings.iter().map(|it| (it.code, it.level)).collect();
        assert_eq!(levels, [("IVA101", Level::Ok), ("IVA801", Level::Failed)]);
    }

    #[tokio::test(start_paused = true)]
    async fn selection_leaves_out_the_rest_and_refuses_a_code_that_is_none() {
        let ask = async |only: &str| {
            let questions = vec![
                Question::new(HANGING, pending::<Option<Finding>>()),
                Question::new(FINE, async { [FINE.ok("fine")] }),
            ];
            let selector: Selector = only.split(',').map(|word| word.parse().unwrap()).collect();
            let round = Round {
                deadline: Instant::now() + ROUND,
                selector: &selector,
                tell: &mut |_| {},
            };
            selector.expect_known(&questions).map_err(|error| error.to_string())?;
            let asked = round.ask(questions).await;
            Ok::<_, String>(asked.findings.iter().map(|it| it.code).collect::<Vec<_>>().join(","))
        };
        assert_eq!(ask("host").await.as_deref(), Ok("IVA101"));
        assert_eq!(ask("IVA801").await.as_deref(), Ok("IVA801"));
        assert_eq!(ask("IVA101,workload").await.as_deref(), Ok("IVA101,IVA801"));
        assert!(ask("IVA999").await.unwrap_err().contains("IVA999"));
    }
}
