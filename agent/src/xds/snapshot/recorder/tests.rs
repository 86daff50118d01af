use istio_api::frame::{AnyRequest, XdsProtocol};
use tokio::time::{Instant, advance};

use super::*;
use crate::config::PathsConfig;
use crate::control_plane::ControlPlaneSelector;
use crate::control_plane::fixtures::membership;
use crate::facts::{Departure, ProbeState, Successor, XdsState};
use crate::host::{Host, System};
use crate::supervise::Clock;
use crate::xds::tests::resource;
use crate::xds::{Inputs, Options, Outputs};

const CDS: &str = "cds";

struct Rig {
    root: tempfile::TempDir,
    envoy: watch::Sender<EnvoyState>,
    state: watch::Receiver<XdsState>,
    context: Context,
}

impl Rig {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("state")).unwrap();
        let host = Host::new(root.path(), System);
        let envoy = watch::Sender::default();
        let (publish, state) = watch::channel(XdsState::default());
        let (clock, path) = (Clock::System, std::path::PathBuf::from("/state/xds.snapshot"));
        let selector = ControlPlaneSelector::new(vec!["istiod:15012".to_owned()], Duration::ZERO, clock);
        let options = Options {
            snapshot: path,
            ..Options::new(host, &PathsConfig::default(), selector)
        };
        let inputs = Inputs {
            membership: watch::channel(Arc::new(membership())).1,
            credentials: watch::channel(None).1,
            probe: watch::channel(ProbeState::NotConfigured).1,
            envoy: envoy.subscribe(),
            host: watch::Sender::default().subscribe(),
            departure: watch::channel(Departure::Staying).1,
        };
        let outputs = Outputs {
            state: publish,
            names: watch::Sender::default(),
        };
        let context = Context::new(options, inputs, outputs);
        Self {
            root,
            envoy,
            state,
            context,
        }
    }

    /// A VM whose Envoy is ready.
    fn ready() -> Self {
        let rig = Self::new();
        rig.envoy.send_replace(serving(1));
        rig
    }

    fn problem(&self) -> Option<String> {
        self.state.borrow().snapshot_problem.clone()
    }

    /// Names and versions in the file.
    fn kept(&self) -> Vec<(String, String)> {
        let membership = self.context.inputs.membership.borrow().clone();
        let snapshot = self.context.snapshot.load(&membership).unwrap().unwrap_or_default();
        let names = snapshot.0.into_iter().flat_map(|(type_url, resources)| {
            let resources = resources.into_values().collect();
            Frame::of_resources(&type_url, "", resources, Vec::new())
                .changes()
                .unwrap()
                .resources
        });
        names.map(|resource| (resource.name, resource.version)).collect()
    }
}

fn response(type_url: &str, names: &[(&str, &str)]) -> Frame {
    let resources = names
        .iter()
        .map(|(name, version)| resource(name, version, b"as it came"));
    Frame::of_resources(type_url, "1", resources.collect(), Vec::new())
}

fn serving(pid: u32) -> EnvoyState {
    EnvoyState::Ready {
        pid,
        adopted: false,
        restarts: 0,
        successor: None,
    }
}

/// An Envoy that asked for all clusters, and has those that it says.
fn session(held: &[&str]) -> Session {
    let mut session = Session::new(XdsProtocol::Delta);
    session.note(&AnyRequest {
        type_url: CDS.to_owned(),
        versions: held.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect(),
        ..AnyRequest::default()
    });
    session
}

/// Envoy accepts a response.
fn accept(recorder: &mut Recorder<'_>, session: &mut Session, response: &Frame) {
    let changes = response.changes().unwrap();
    session.sent(CDS, &changes);
    session.accepted(CDS, changes);
    recorder.accepted(CDS, response);
}

/// Writes once, and waits until it is done.
async fn write(recorder: &mut Recorder<'_>, session: &Session) {
    recorder.due().await;
    recorder.write(session);
    finish(recorder).await;
}

/// Waits until what is done to the file is done.
async fn finish(recorder: &mut Recorder<'_>) {
    let Stage::Writing(write) = &mut recorder.stage else {
        panic!("nothing is written")
    };
    let write = write.await;
    recorder.written(write);
}

fn versions(kept: &[(String, String)]) -> Vec<(&str, &str)> {
    kept.iter().map(|(name, version)| (&**name, &**version)).collect()
}

#[tokio::test(start_paused = true)]
async fn recorder_writes_once_envoy_is_ready_and_no_sooner_than_some_seconds_after_a_change() {
    let rig = Rig::new();
    let mut recorder = Recorder::new(&rig.context);
    let mut session = session(&[]);
    let start = Instant::now();
    accept(&mut recorder, &mut session, &response(CDS, &[("a", "1"), ("b", "1")]));
    accept(&mut recorder, &mut session, &response(CDS, &[("a", "2")]));
    {
        let due = recorder.due();
        tokio::pin!(due);
        let not_ready = timeout(WRITE_AFTER * 9, &mut due).await;
        assert!(not_ready.is_err(), "an Envoy that is not ready has less than all");
        rig.envoy.send_replace(serving(1));
        due.await;
    }
    write(&mut recorder, &session).await;
    assert_eq!(versions(&rig.kept()), [("a", "2"), ("b", "1")]);
    assert!(start.elapsed() >= WRITE_AFTER && recorder.size == 0);
    assert!(matches!(recorder.stage, Stage::Resting));

    let changed = Instant::now();
    accept(&mut recorder, &mut session, &response(CDS, &[("c", "1")]));
    advance(WRITE_AFTER / 2).await;
    accept(&mut recorder, &mut session, &response(CDS, &[("c", "2")]));
    write(&mut recorder, &session).await;
    assert_eq!(changed.elapsed(), WRITE_AFTER);
    assert_eq!(versions(&rig.kept()), [("a", "2"), ("b", "1"), ("c", "2")]);
}

#[test]
fn successor_is_waited_for_until_it_has_failed() {
    let followed_by = |failed: Option<&str>| EnvoyState::Ready {
        pid: 1,
        adopted: false,
        restarts: 0,
        successor: Some(Successor {
            since: std::time::SystemTime::UNIX_EPOCH,
            failed: failed.map(str::to_owned),
            lacks: None,
        }),
    };
    assert!(is_settled(&serving(1)) && !is_settled(&EnvoyState::Waiting));
    assert!(!is_settled(&followed_by(None)));
    assert!(is_settled(&followed_by(Some("it exited"))));
}

#[tokio::test(start_paused = true)]
async fn recorder_drops_what_envoy_has_no_more_and_keeps_the_last_good_of_what_it_refused() {
    let rig = Rig::ready();
    let mut recorder = Recorder::new(&rig.context);
    let mut session = session(&[]);
    accept(&mut recorder, &mut session, &response(CDS, &[("a", "1"), ("b", "1")]));
    write(&mut recorder, &session).await;
    // Refused: it never gets to the recorder.
    session.sent(CDS, &response(CDS, &[("a", "bad"), ("new", "bad")]).changes().unwrap());
    let removal = Frame::of_resources(CDS, "2", Vec::new(), vec!["b".to_owned()]);
    accept(&mut recorder, &mut session, &removal);
    write(&mut recorder, &session).await;
    assert_eq!(versions(&rig.kept()), [("a", "1")]);
}

#[tokio::test(start_paused = true)]
async fn recorder_of_an_envoy_that_was_there_before_waits_until_it_knows_all_that_envoy_has() {
    let rig = Rig::ready();
    let mut recorder = Recorder::new(&rig.context);
    let mut session = session(&["a", "b"]);
    // Refused: Envoy has not had it before either.
    session.sent(CDS, &response(CDS, &[("new", "bad")]).changes().unwrap());
    accept(&mut recorder, &mut session, &response(CDS, &[("a", "2")]));
    write(&mut recorder, &session).await;
    assert_eq!(rig.context.snapshot.written(), None);
    let problem = rig.problem().unwrap();
    assert!(problem.contains("b of cds"), "{problem}");
    accept(&mut recorder, &mut session, &response(CDS, &[("b", "2")]));
    write(&mut recorder, &session).await;
    assert_eq!(rig.problem(), None);
    assert_eq!(versions(&rig.kept()), [("a", "2"), ("b", "2")]);
    // With a file of before a difference is enough.
    let mut next = Recorder::new(&rig.context);
    accept(&mut next, &mut session, &response(CDS, &[("b", "3")]));
    write(&mut next, &session).await;
    assert_eq!(versions(&rig.kept()), [("a", "2"), ("b", "3")]);
}

#[tokio::test(start_paused = true)]
async fn write_that_fails_leaves_the_old_file_is_told_and_tried_again() {
    let rig = Rig::ready();
    let mut recorder = Recorder::new(&rig.context);
    let mut session = session(&[]);
    accept(&mut recorder, &mut session, &response(CDS, &[("a", "1")]));
    write(&mut recorder, &session).await;
    let (file, aside) = (rig.root.path().join("state"), rig.root.path().join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    accept(&mut recorder, &mut session, &response(CDS, &[("a", "2"), ("b", "2")]));
    write(&mut recorder, &session).await;
    let problem = rig.problem().unwrap();
    assert!(problem.contains("/state/xds.snapshot"), "{problem}");
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(versions(&rig.kept()), [("a", "1")]);
    // What came meanwhile is newer than what failed.
    accept(&mut recorder, &mut session, &response(CDS, &[("a", "3")]));
    let failed = Instant::now();
    write(&mut recorder, &session).await;
    assert_eq!(failed.elapsed(), RETRY_AFTER);
    assert_eq!(versions(&rig.kept()), [("a", "3"), ("b", "2")]);
    assert_eq!(rig.problem(), None);
}

/// Clusters "a" and "b" of so many bytes each.
fn large(names: &[&str], size: usize) -> Frame {
    let value = vec![0; size];
    let resources = names.iter().map(|name| resource(name, "1", &value));
    Frame::of_resources(CDS, "1", resources.collect(), Vec::new())
}

#[tokio::test(start_paused = true)]
async fn recorder_counts_what_a_response_replaces_once() {
    let rig = Rig::ready();
    let mut recorder = Recorder::new(&rig.context);
    let mut session = session(&[]);
    let whole = large(&["a", "b"], MAX_BYTES / 3);
    for _ in 0..2 {
        assert!(recorder.wants(CDS, whole.0.len()));
        accept(&mut recorder, &mut session, &whole);
    }
    write(&mut recorder, &session).await;
    assert_eq!((rig.kept().len(), rig.problem()), (2, None));
}

#[tokio::test(start_paused = true)]
async fn recorder_of_more_than_a_file_may_have_removes_the_file_until_another_istiod_sends_less() {
    let rig = Rig::ready();
    let mut recorder = Recorder::new(&rig.context);
    let mut session = session(&[]);
    accept(&mut recorder, &mut session, &large(&["a", "b"], MAX_BYTES / 3));
    write(&mut recorder, &session).await;
    assert!(rig.context.snapshot.written().is_some());
    // Too large with what is in the file.
    accept(&mut recorder, &mut session, &large(&["c", "d"], MAX_BYTES / 3));
    write(&mut recorder, &session).await;
    finish(&mut recorder).await;
    assert_eq!(rig.context.snapshot.written(), None);
    assert!(rig.problem().unwrap().contains("more than"));
    assert!(!recorder.wants(CDS, 1));

    recorder.peer_changed();
    assert!(recorder.wants(CDS, 1));
    let less = Frame::of_resources(CDS, "2", Vec::new(), ["b", "c", "d"].map(str::to_owned).into());
    accept(&mut recorder, &mut session, &less);
    write(&mut recorder, &session).await;
    assert_eq!(rig.context.snapshot.written(), None, "a was let go");
    accept(&mut recorder, &mut session, &response(CDS, &[("a", "2")]));
    write(&mut recorder, &session).await;
    assert_eq!(versions(&rig.kept()), [("a", "2")]);
    assert_eq!(rig.problem(), None);
}

#[tokio::test(start_paused = true)]
async fn recorder_keeps_no_secret_and_holds_no_more_than_a_file_may_have() {
    let rig = Rig::ready();
    let mut recorder = Recorder::new(&rig.context);
    assert!(recorder.wants(CDS, MAX_BYTES) && !recorder.wants(super::super::SECRET, 1));
    recorder.accepted(CDS, &response(CDS, &[("a", "1")]));
    assert!(!recorder.wants(CDS, MAX_BYTES + 1));
    assert!(recorder.accepted.0.is_empty());
    assert!(rig.problem().unwrap().contains("more than"));
    finish(&mut recorder).await;
    assert!(matches!(recorder.stage, Stage::Resting));
}

#[tokio::test(start_paused = true)]
async fn snapshot_that_waits_for_its_write_is_kept_by_an_agent_that_ends() {
    for is_ready in [true, false] {
        let rig = if is_ready { Rig::ready() } else { Rig::new() };
        let (mut session, mut recorder) = (session(&[]), Recorder::new(&rig.context));
        accept(&mut recorder, &mut session, &response(CDS, &[("a", "1")]));
        recorder.hasten();
        let is_due = timeout(Duration::from_secs(1), recorder.due()).await.is_ok();
        assert_eq!(
            is_due, is_ready,
            "it waits for its usual time, or for no whole configuration"
        );
        recorder.finish(&session).await;
        assert_eq!(!rig.kept().is_empty(), is_ready);
    }
}
