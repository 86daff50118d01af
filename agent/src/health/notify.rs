//! Tells systemd: READY=1 once the VM serves, STATUS= as `status` has it, WATCHDOG=1 while the runtime turns,
//! STOPPING=1 at the drain. Without systemd it tells nobody.

use std::io;
use std::time::Duration;

use anyhow::Result;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::facts::Health;
use crate::supervise::Scope;
use crate::terminal::one_line;

/// Tells systemd until the drain. An agent whose runtime is stuck is restarted by systemd's watchdog.
pub async fn notify(scope: Scope, health: watch::Receiver<Health>) -> Result<()> {
    tell(scope, health, sd_notify::watchdog_enabled(), sd_notify::notify).await
}

async fn tell(
    scope: Scope,
    mut health: watch::Receiver<Health>,
    watchdog: Option<Duration>,
    send: impl Fn(&[NotifyState<'_>]) -> io::Result<()>,
) -> Result<()> {
    let mut feed = watchdog.map(feeding);
    let mut was_ready = false;
    scope.ready();
    loop {
        let (status, ready) = {
            let health = health.borrow_and_update();
            (status(&health), health.ready)
        };
        let mut news = vec![NotifyState::Status(&status)];
        if ready && !was_ready {
            // systemd wants it once; a VM that is unready later says so in its status.
            news.push(NotifyState::Ready);
            was_ready = true;
        }
        report(send(&news));
        loop {
            tokio::select! {
                biased;
                () = scope.draining() => {
                    report(send(&[NotifyState::Stopping, NotifyState::Status("stopping")]));
                    return Ok(());
                }
                // A stop while it isn't known yet who this VM is: whoever judged is gone before this task's drain.
                Ok(()) = health.changed() => break,
                () = due(&mut feed) => report(send(&[NotifyState::Watchdog])),
            }
        }
    }
}

/// Twice per interval, as sd_watchdog_enabled(3) recommends.
fn feeding(watchdog: Duration) -> Interval {
    let mut feed = interval((watchdog / 2).max(Duration::from_millis(1)));
    feed.set_missed_tick_behavior(MissedTickBehavior::Delay);
    feed
}

async fn due(feed: &mut Option<Interval>) {
    match feed {
        Some(feed) => drop(feed.tick().await),
        None => std::future::pending().await,
    }
}

fn report(sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::warn!("failed to tell systemd: {error}: check that NOTIFY_SOCKET may be written to");
    }
}

/// One line: a second one would be another message to systemd.
fn status(health: &Health) -> String {
    let cause = health.codes.first().filter(|_| !health.ready);
    let verdict = match (health.ready, cause) {
        (true, _) => "serving".to_owned(),
        (false, None) => "not serving".to_owned(),
        // By the code the version before knows whose fault it is (upgrade/unit.rs).
        (false, Some(code)) => format!("not serving [{code}]"),
    };
    let status = match health.problems.as_slice() {
        [] => verdict,
        [problem] => format!("{verdict}: {problem}"),
        [problem, rest @ ..] => format!("{verdict}: {problem} (and {} more: istio-vm-agent status)", rest.len()),
    };
    one_line(&status).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct Told {
        health: watch::Sender<Health>,
        drain: tokio_util::sync::CancellationToken,
        lines: Arc<Mutex<Vec<String>>>,
        ended: watch::Receiver<bool>,
    }

    fn start(watchdog: Option<Duration>) -> Told {
        let (scope, drain) = Scope::detached();
        let (health, receiver) = watch::channel(Health::default());
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let sink = Arc::clone(&lines);
        let (end, ended) = watch::channel(false);
        let send = move |news: &[NotifyState<'_>]| {
            sink.lock().unwrap().extend(news.iter().map(ToString::to_string));
            Ok(())
        };
        let task = tell(scope, receiver, watchdog, send);
        Scope::detached().0.spawn(async move {
            task.await.unwrap();
            end.send_replace(true);
        });
        Told {
            health,
            drain,
            lines,
            ended,
        }
    }

    impl Told {
        /// Sets the verdict and returns what systemd is told of it.
        async fn judge(&self, ready: bool, problems: &[&str]) -> Vec<String> {
            let problems: Vec<_> = problems.iter().map(|&problem| problem.to_owned()).collect();
            self.health.send_replace(Health {
                ready,
                codes: problems.iter().map(|_| "envoy-down".to_owned()).collect(),
                problems,
                ..Health::default()
            });
            self.after(Duration::from_millis(1)).await
        }

        /// Lets paused time pass, and all that it wakes.
        async fn after(&self, time: Duration) -> Vec<String> {
            tokio::time::sleep(time).await;
            std::mem::take(&mut self.lines.lock().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ready_is_told_once_and_the_status_always() {
        let mut told = start(None);
        assert_eq!(told.after(Duration::from_millis(1)).await, ["STATUS=not serving"]);
        assert_eq!(
            told.judge(false, &["Envoy is down", "x", "y"]).await,
            ["STATUS=not serving [envoy-down]: Envoy is down (and 2 more: istio-vm-agent status)"]
        );
        assert_eq!(told.judge(true, &[]).await, ["STATUS=serving", "READY=1"]);
        assert_eq!(told.judge(false, &["x"]).await, ["STATUS=not serving [envoy-down]: x"]);
        assert_eq!(
            told.judge(true, &["istiod is away"]).await,
            ["STATUS=serving: istiod is away"]
        );
        assert_eq!(told.after(Duration::from_secs(3600)).await, [""; 0]);
        told.drain.cancel();
        told.ended.wait_for(|ended| *ended).await.unwrap();
        assert_eq!(*told.lines.lock().unwrap(), ["STOPPING=1", "STATUS=stopping"]);
    }

    #[tokio::test(start_paused = true)]
    async fn stop_is_told_when_whoever_judged_is_gone_before() {
        let mut told = start(None);
        assert_eq!(told.after(Duration::from_millis(1)).await, ["STATUS=not serving"]);
        told.health = watch::Sender::default();
        assert_eq!(told.after(Duration::from_secs(1)).await, [""; 0]);
        told.drain.cancel();
        told.ended.wait_for(|ended| *ended).await.unwrap();
        assert_eq!(*told.lines.lock().unwrap(), ["STOPPING=1", "STATUS=stopping"]);
    }

    #[tokio::test(start_paused = true)]
    async fn watchdog_is_fed_twice_per_interval_whatever_the_health_is() {
        let told = start(Some(Duration::from_secs(10)));
        assert_eq!(
            told.after(Duration::from_secs(1)).await,
            ["STATUS=not serving", "WATCHDOG=1"]
        );
        let fed = told.after(Duration::from_secs(100)).await;
        assert_eq!(fed, vec!["WATCHDOG=1"; 20]);
    }
}
