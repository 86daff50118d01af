//! The service under a systemd of one unit.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::supervisor::run;
use crate::facts::{EnvoyState, InterceptState, LivenessState, ServiceState};
use crate::host::{CommandError, Host, Invocation, Run};
use crate::supervise::Scope;
use crate::workload::gate::Gate;

/// A systemd of one unit.
#[derive(Clone, Debug, Default)]
struct Systemd(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The answer to `systemctl show`.
    shown: String,
    /// Every call that changes something.
    calls: Vec<String>,
    /// ActiveState after a start; empty: the service runs at once.
    starts_as: &'static str,
    /// True while the application does not heed its stop signal.
    is_stubborn: bool,
}

const STOPPED: &str = "LoadState=loaded\nActiveState=inactive\nResult=success\n";
const STARTS: &str = "LoadState=loaded\nActiveState=activating\nSubState=start\n";
const RUNS: &str = "LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=7\n";

impl Run for Systemd {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        let mut state = self.0.lock().unwrap();
        let verb = call.argv[1].as_str();
        if verb == "show" {
            return Ok(state.shown.clone());
        }
        state.calls.push(call.to_string());
        match verb {
            "start" if !state.starts_as.is_empty() => state.shown = state.starts_as.to_owned(),
            "start" => state.shown = RUNS.to_owned(),
            "kill" => state.is_stubborn = false,
            _ if state.is_stubborn => {
                return Err(CommandError::Unbounded {
                    call: Box::new(call.clone()),
                    excess: format!("took longer than {:?}", call.limit),
                });
            }
            _ => state.shown = STOPPED.to_owned(),
        }
        Ok(String::new())
    }
}

impl Systemd {
    fn with(shown: &str) -> Self {
        let systemd = Self::default();
        systemd.show(shown);
        systemd
    }

    fn show(&self, shown: &str) {
        self.0.lock().unwrap().shown = shown.to_owned();
    }

    fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }
}

struct Agent {
    drain: CancellationToken,
    ended: watch::Receiver<bool>,
    envoy: watch::Sender<EnvoyState>,
    intercept: watch::Sender<InterceptState>,
    liveness: watch::Sender<LivenessState>,
    state: watch::Receiver<ServiceState>,
}

impl Agent {
    fn start(systemd: &Systemd) -> Self {
        let (scope, drain) = Scope::detached();
        let (envoy, envoy_rx) = watch::channel(EnvoyState::Waiting);
        let (intercept, intercept_rx) = watch::channel(InterceptState::Absent);
        let (publish, state) = watch::channel(ServiceState::default());
        let (end, ended) = watch::channel(false);
        let host = Host::new("/nowhere", systemd.clone());
        let config = toml::from_str("unit = 'shop.service'").unwrap();
        let gate = Gate::new(envoy_rx, Some(intercept_rx));
        let (liveness, liveness_rx) = watch::channel(LivenessState::default());
        let task = run(scope, host, config, gate, liveness_rx, publish);
        Scope::detached().0.spawn(async move {
            task.await.unwrap();
            end.send_replace(true);
        });
        Self {
            drain,
            ended,
            envoy,
            intercept,
            liveness,
            state,
        }
    }

    fn opens(&self) {
        self.envoy.send_replace(EnvoyState::Ready {
            pid: 1,
            adopted: false,
            restarts: 0,
            successor: None,
        });
        self.intercept.send_replace(InterceptState::Active {
            backend: "nftables".to_owned(),
            rules: 9,
            open_bridge: None,
        });
    }

    /// Waits for a state that Debug-prints with `text` in it.
    async fn shows(&mut self, text: &str) {
        let seen = self.state.wait_for(|state| format!("{state:?}").contains(text));
        let seen = tokio::time::timeout(Duration::from_secs(600), seen).await;
        seen.unwrap_or_else(|_| panic!("never showed {text:?}")).unwrap();
    }

    async fn stop(&mut self) {
        self.drain.cancel();
        self.ended.wait_for(|ended| *ended).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn service_starts_only_behind_envoy_and_the_rules_and_stops_with_the_mesh() {
    let systemd = Systemd::with(STOPPED);
    let mut agent = Agent::start(&systemd);
    agent.shows("waits for Envoy").await;
    assert_eq!(systemd.calls(), [""; 0]);
    agent.opens();
    agent.shows("Running").await;
    assert_eq!(systemd.calls(), ["systemctl start --no-block shop.service"]);
    agent.stop().await;
    assert_eq!(
        systemd.calls()[1..],
        ["systemctl stop --job-mode=ignore-dependencies shop.service"]
    );
}

#[tokio::test(start_paused = true)]
async fn service_that_ends_is_started_again_and_one_that_systemd_starts_is_left_to_it() {
    let systemd = Systemd::with(RUNS);
    let mut agent = Agent::start(&systemd);
    // It runs, and is adopted before Envoy is there.
    agent.shows("restarts: 0").await;
    systemd.show("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\n");
    agent.shows("auto-restart").await;
    systemd.show(RUNS);
    agent.shows("restarts: 0").await;
    assert_eq!(systemd.calls(), [""; 0]);

    agent.opens();
    systemd.show("LoadState=loaded\nActiveState=failed\nResult=exit-code\nExecMainStatus=3\n");
    agent.shows("exited with status 3").await;
    agent.shows("restarts: 1").await;
    assert_eq!(systemd.calls(), ["systemctl start --no-block shop.service"]);
}

#[tokio::test(start_paused = true)]
async fn service_that_its_probe_finds_dead_is_started_again() {
    let systemd = Systemd::with(RUNS);
    let mut agent = Agent::start(&systemd);
    agent.opens();
    agent.shows("restarts: 0").await;
    let reason = "the liveness probe fails: no answer within 1s".to_owned();
    agent.liveness.send_replace(LivenessState::Failed { reason });
    agent.shows("to be started again: the liveness probe fails").await;
    agent.shows("restarts: 1").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        systemd.calls(),
        [
            "systemctl stop --job-mode=ignore-dependencies shop.service",
            "systemctl start --no-block shop.service"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn service_that_is_not_there_is_waited_for() {
    let systemd = Systemd::with("LoadState=not-found\nActiveState=inactive\nResult=success\n");
    let mut agent = Agent::start(&systemd);
    agent.opens();
    agent.shows("shop.service is not there").await;
    systemd.show(STOPPED);
    agent.shows("Running").await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn service_that_does_not_heed_its_stop_is_killed() {
    let systemd = Systemd::with(RUNS);
    let mut agent = Agent::start(&systemd);
    agent.shows("Running").await;
    systemd.0.lock().unwrap().is_stubborn = true;
    agent.stop().await;
    let stop = "systemctl stop --job-mode=ignore-dependencies shop.service";
    assert_eq!(
        systemd.calls(),
        [stop, "systemctl kill --signal=KILL shop.service", stop]
    );
}

#[tokio::test(start_paused = true)]
async fn service_that_starts_slowly_has_not_failed_and_stops_amid_its_start() {
    let systemd = Systemd::with(STOPPED);
    systemd.0.lock().unwrap().starts_as = STARTS;
    let mut agent = Agent::start(&systemd);
    agent.opens();
    agent.shows("activating (start)").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    agent.shows("activating (start)").await;
    agent.stop().await;
    assert_eq!(
        systemd.calls(),
        [
            "systemctl start --no-block shop.service",
            "systemctl stop --job-mode=ignore-dependencies shop.service"
        ]
    );
}
