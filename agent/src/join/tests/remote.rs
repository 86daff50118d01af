//! A source that is not on this VM: what is kept of it, and how its changes arrive.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, timeout};

use super::judged::{REFUSED, edited, tree};
use super::{BUNDLE, Bundle, Case, vm};
use crate::config::tests::judged::rows;
use crate::facts::{HostState, Membership};
use crate::join::assemble::assemble;
use crate::join::source::Source;
use crate::join::{Join, run};
use crate::supervise::Scope;

/// Longer than any wait of the product, in paused time.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Answers that a test gives one by one; the source is silent between them.
#[derive(Debug)]
pub(in crate::join) struct Scripted {
    answers: Mutex<mpsc::UnboundedReceiver<Result<Bundle>>>,
    accepted: watch::Sender<Option<Bundle>>,
}

impl Scripted {
    pub(in crate::join) async fn bundle(&self) -> Result<Bundle> {
        let answer = self.answers.lock().await.recv().await;
        answer.unwrap_or_else(|| Err(anyhow!("the script is at its end")))
    }

    pub(in crate::join) fn accepted(&self, bundle: &Bundle) {
        self.accepted.send_replace(Some(bundle.clone()));
    }
}

/// A machine of which nothing is known, and which stays as it is.
fn host() -> watch::Receiver<HostState> {
    watch::Sender::default().subscribe()
}

struct Remote {
    case: Case,
    answer: mpsc::UnboundedSender<Result<Bundle>>,
    join: Join,
    /// The bundle that the source was told is in use.
    accepted: watch::Receiver<Option<Bundle>>,
}

impl Remote {
    fn new(case: Case) -> Self {
        let (answer, answers) = mpsc::unbounded_channel();
        let (told, accepted) = watch::channel(None);
        let join = Join {
            source: Arc::new(Source::Scripted(Scripted {
                answers: Mutex::new(answers),
                accepted: told,
            })),
            config: Arc::new(case.config.clone()),
            host: case.host.clone(),
            taken: Arc::default(),
        };
        let state = &case.config.paths.state;
        case.host.make_directory(state, 0o700, None).unwrap();
        Self {
            case,
            answer,
            join,
            accepted,
        }
    }

    /// The directory's bundle as a remote source gives it.
    fn bundle(&self) -> Bundle {
        let mut bundle = self.case.bundle().unwrap();
        bundle.token = None;
        bundle
    }

    fn answer(&self, bundle: Bundle) {
        self.answer.send(Ok(bundle)).unwrap();
    }

    async fn first(&self, problem: &watch::Sender<Option<String>>) -> Membership {
        timeout(DEADLINE, self.join.first(problem)).await.unwrap().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn first_start_waits_for_an_answer_and_says_for_what() {
    let (remote, problem) = (Remote::new(Case::new()), watch::Sender::new(None));
    let mut seen = problem.subscribe();
    remote.answer.send(Err(anyhow!("connection refused"))).unwrap();
    let told = async {
        let told = seen.wait_for(Option::is_some).await.unwrap().clone();
        remote.answer(remote.bundle());
        told
    };
    let (membership, told) = tokio::join!(remote.first(&problem), told);
    assert_eq!(told.as_deref(), Some("connection refused"));
    assert_eq!(membership.token_file, None);
    assert_eq!(*problem.borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn later_start_asks_nobody() {
    let (remote, problem) = (Remote::new(Case::new()), watch::Sender::new(None));
    remote.answer(remote.bundle());
    let membership = remote.first(&problem).await;
    let later = Remote::new(remote.case);
    assert_eq!(later.first(&problem).await.env, membership.env);
    // Nor does the source take a change for the beginning.
    assert_eq!(*later.accepted.borrow(), Some(later.bundle()));
}

#[tokio::test(start_paused = true)]
async fn cache_that_is_damaged_is_as_good_as_none() {
    let remote = Remote::new(Case::new());
    let path = remote.case.config.paths.membership();
    remote.case.host.write(&path, "{}", 0o600, None).unwrap();
    remote.answer(remote.bundle());
    remote.first(&watch::Sender::new(None)).await;
}

#[tokio::test(start_paused = true)]
async fn cached_membership_is_refreshed_at_once() {
    let remote = Remote::new(Case::new());
    remote.answer(remote.bundle());
    let publish = watch::Sender::new(Arc::new(remote.first(&watch::Sender::new(None)).await));
    let mut news = publish.subscribe();
    remote.case.edit("hosts", "10.200.0.2", "10.200.0.9");
    remote.answer(remote.bundle());
    let (scope, drain) = Scope::detached();
    let task = run(
        scope,
        remote.join.clone(),
        host(),
        publish.clone(),
        watch::Sender::new(None),
    );
    let start = Instant::now();
    let test = async {
        news.changed().await.unwrap();
        drain.cancel();
    };
    let (ended, ()) = timeout(DEADLINE, async { tokio::join!(task, test) }).await.unwrap();
    ended.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "it waited as if it had asked before"
    );
    assert_eq!(news.borrow().hosts.first().unwrap().ip.to_string(), "10.200.0.9");
}

#[tokio::test(start_paused = true)]
async fn network_that_changes_has_the_addresses_looked_up_and_the_source_not_asked() {
    let remote = Remote::new(Case::new());
    remote.answer(remote.bundle());
    let first = remote.first(&watch::Sender::new(None)).await;
    // As on another network.
    let moved = Membership {
        instance_ips: vec!["192.0.2.77".parse().unwrap()],
        ..first.clone()
    };
    let publish = watch::Sender::new(Arc::new(moved.clone()));
    let (mut news, network) = (publish.subscribe(), watch::Sender::new(HostState::default()));
    let (scope, drain) = Scope::detached();
    let (join, hears) = (remote.join.clone(), network.subscribe());
    let task = run(scope, join, hears, publish.clone(), watch::Sender::new(None));
    let test = async {
        // The look of the start.
        news.changed().await.unwrap();
        publish.send_replace(Arc::new(moved));
        news.mark_unchanged();
        network.send_modify(|host| host.has_default_route = true);
        news.changed().await.unwrap();
        drain.cancel();
    };
    let (ended, ()) = timeout(DEADLINE, async { tokio::join!(task, test) }).await.unwrap();
    ended.unwrap();
    assert_eq!(news.borrow().instance_ips, first.instance_ips);
}

#[tokio::test(start_paused = true)]
async fn network_that_changes_takes_no_bundle_back_that_the_disk_refused() {
    let remote = Remote::new(Case::new());
    remote.answer(remote.bundle());
    let first = remote.first(&watch::Sender::new(None)).await;
    let (host, cached) = (&remote.case.host, remote.case.config.paths.membership());
    host.remove(&cached).unwrap();
    host.make_directory(&cached, 0o700, None).unwrap();
    remote.case.edit("hosts", "10.200.0.2", "10.200.0.9");
    remote.answer(remote.bundle());

    let publish = watch::Sender::new(Arc::new(first.clone()));
    let (mut news, network) = (publish.subscribe(), watch::Sender::new(HostState::default()));
    let (scope, drain) = Scope::detached();
    let (join, hears) = (remote.join.clone(), network.subscribe());
    let task = run(scope, join, hears, publish.clone(), watch::Sender::new(None));
    let test = async {
        let is_newest = |it: &Arc<Membership>| it.hosts.first().unwrap().ip.to_string() == "10.200.0.9";
        let mut moved = Membership::clone(&*news.wait_for(is_newest).await.unwrap());
        moved.instance_ips = vec!["192.0.2.77".parse().unwrap()];
        publish.send_replace(Arc::new(moved));
        network.send_modify(|host| host.has_default_route = true);
        let is_back = |it: &Arc<Membership>| it.instance_ips == first.instance_ips;
        assert!(is_newest(&news.wait_for(is_back).await.unwrap()));
        drain.cancel();
    };
    let (ended, ()) = timeout(DEADLINE, async { tokio::join!(task, test) }).await.unwrap();
    ended.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_are_published_when_they_are_good_and_different() {
    let (remote, problem) = (Remote::new(Case::new()), watch::Sender::new(None));
    remote.answer(remote.bundle());
    let publish = watch::Sender::new(Arc::new(remote.first(&problem).await));
    let (mut news, mut told) = (publish.subscribe(), problem.subscribe());
    let (scope, drain) = Scope::detached();
    let task = run(scope, remote.join.clone(), host(), publish.clone(), problem.clone());
    let test = async {
        let mut broken = remote.bundle();
        broken.env.insert("TRUST_DOMAIN".to_owned(), "no name".to_owned());
        remote.answer(broken);
        told.wait_for(Option::is_some).await.unwrap();
        assert!(!news.has_changed().unwrap());
        let cached = remote.case.host.text(&remote.case.config.paths.membership());
        assert!(!cached.contains("no name"), "{cached}");
        assert_eq!(*remote.accepted.borrow(), Some(remote.bundle()));

        remote.answer(remote.bundle());
        told.wait_for(Option::is_none).await.unwrap();
        assert!(!news.has_changed().unwrap());

        remote.case.edit(
            "cluster.env",
            "ISTIO_INBOUND_PORTS='3550'",
            "ISTIO_INBOUND_PORTS='3550,8080'",
        );
        remote.answer(remote.bundle());
        news.changed().await.unwrap();
        assert_eq!(news.borrow().inbound_ports, Some(vec![3550, 8080]));
        assert_eq!(*remote.accepted.borrow(), Some(remote.bundle()));
        drain.cancel();
    };
    let (ended, ()) = timeout(DEADLINE, async { tokio::join!(task, test) }).await.unwrap();
    ended.unwrap();
    // What changed last is what the next start begins with.
    let later = Remote::new(remote.case).first(&problem).await;
    assert_eq!(later.inbound_ports, Some(vec![3550, 8080]));
}

/// Every input that a start refuses comes while the VM serves: it stays the member that it was, nothing is kept of the
/// input, `status` has the words of a start, and the next good answer ends them.
#[tokio::test(start_paused = true)]
async fn member_that_serves_stays_as_it_was_whatever_its_source_may_not_say() {
    let (remote, problem) = (Remote::new(Case::new()), watch::Sender::new(None));
    remote.answer(remote.bundle());
    let publish = watch::Sender::new(Arc::new(remote.first(&problem).await));
    let (news, mut told) = (publish.subscribe(), problem.subscribe());
    let state = remote.case.host.real_path(&remote.case.config.paths.state);
    let before = tree(&state);
    let (scope, drain) = Scope::detached();
    let task = run(scope, remote.join.clone(), host(), publish.clone(), problem.clone());
    let test = async {
        for (input, ..) in rows(REFUSED) {
            let (name, text) = edited(&input);
            // A remote source gives tokens apart.
            if name == "istio-token" {
                continue;
            }
            remote.case.write(name, &text);
            let answer = remote.case.bundle();
            remote
                .case
                .write(name, BUNDLE.iter().find(|(file, _)| *file == name).unwrap().1);
            let at_a_start = answer
                .clone()
                .and_then(|bundle| assemble(&bundle, &remote.case.config, &vm()));
            let wanted = at_a_start.expect_err(&input).to_string();
            remote.answer.send(answer.map_err(anyhow::Error::from)).unwrap();
            let said = told.wait_for(Option::is_some).await.unwrap().clone();
            assert_eq!(said, Some(wanted), "{input}");
            assert!(!news.has_changed().unwrap(), "{input}");
            assert_eq!(tree(&state), before, "{input}");
            remote.answer(remote.bundle());
            told.wait_for(Option::is_none).await.unwrap();
        }
        drain.cancel();
    };
    let (ended, ()) = tokio::join!(task, test);
    ended.unwrap();
    assert!(!news.has_changed().unwrap());
}
