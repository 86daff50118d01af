//! Tasks that live as long as the agent: started in order, drained newest first.
//!
//! The only place that spawns tasks. One that ends before it was told to ends the agent, with its name and cause.

mod backoff;
mod clock;
mod process;
mod scope;

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use backoff::{Backoff, jittered, reconnect, sleep_jittered, spread};
pub use clock::Clock;
pub use process::{Process, is_running, start_time};
pub use scope::Scope;

/// Time after which a start-up wait says again what it waits for.
const STILL_WAITING: Duration = Duration::from_secs(15);

/// Starts tasks in order, and drains them newest first.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: Vec<Task>,
    running: JoinSet<(&'static str, Result<()>)>,
}

#[derive(Debug)]
struct Task {
    name: &'static str,
    drain: CancellationToken,
    /// Longest time that its drain is given.
    grace: Duration,
    ready: watch::Receiver<bool>,
    done: watch::Receiver<bool>,
}

impl Task {
    async fn end(&mut self) {
        self.drain.cancel();
        if timeout(self.grace, self.done.wait_for(|done| *done)).await.is_err() {
            tracing::warn!(task = self.name, "did not end within {:?}", self.grace);
        }
    }
}

impl Supervisor {
    /// Spawns a task whose end, for any reason, ends the agent.
    #[expect(clippy::disallowed_methods, reason = "this is the supervisor")]
    pub fn spawn<F, Fut>(&mut self, name: &'static str, grace: Duration, task: F)
    where
        F: FnOnce(Scope) -> Fut,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let drain = CancellationToken::new();
        let (ready_tx, ready) = watch::channel(false);
        let (done_tx, done) = watch::channel(false);
        let broken = CancellationToken::new();
        let body = task(Scope::new(drain.clone(), ready_tx, broken.clone()));
        self.running.spawn(async move {
            let result = tokio::select! {
                biased;
                result = body => result,
                () = broken.cancelled() => Err(anyhow!("a part of it panicked, which is a bug: the log has more")),
            };
            done_tx.send_replace(true);
            (name, result)
        });
        self.tasks.push(Task {
            name,
            drain,
            grace,
            ready,
            done,
        });
    }

    /// Waits until the newest task says it is ready; fails when any task ends before that.
    pub async fn newest_ready(&mut self) -> Result<()> {
        match self.tasks.len().checked_sub(1) {
            Some(newest) => self.task_ready(newest).await,
            None => Ok(()),
        }
    }

    /// Waits until every task says it is ready; fails as `newest_ready`.
    pub async fn all_ready(&mut self) -> Result<()> {
        for index in 0..self.tasks.len() {
            self.task_ready(index).await?;
        }
        Ok(())
    }

    async fn task_ready(&mut self, index: usize) -> Result<()> {
        let Some(Task { name, ready, .. }) = self.tasks.get_mut(index) else {
            return Ok(());
        };
        let mut tick = tokio::time::interval(STILL_WAITING);
        tick.tick().await;
        loop {
            tokio::select! {
                biased;
                ended = self.running.join_next() => return Err(cause(ended)),
                served = ready.wait_for(|ready| *ready) => match served {
                    Ok(_) => return Ok(()),
                    // The task is gone: its result, with the cause, is about to be joined.
                    Err(_) => return Err(cause(self.running.join_next().await)),
                },
                _ = tick.tick() => tracing::warn!(task = *name, "still waiting for {name}"),
            }
        }
    }

    /// Completes when a task ends that was not told to drain, with its name and cause. Tasks are meant never to.
    pub async fn failed(&mut self) -> anyhow::Error {
        loop {
            let ended = self.running.join_next().await;
            let was_told = |name| {
                self.tasks
                    .iter()
                    .any(|task| task.name == name && task.drain.is_cancelled())
            };
            match ended {
                Some(Ok((name, Ok(())))) if was_told(name) => {}
                ended => return cause(ended),
            }
        }
    }

    /// Drains one task by name, before the rest is left to another agent.
    pub async fn drain_one(&mut self, name: &str) {
        if let Some(task) = self.tasks.iter_mut().find(|task| task.name == name) {
            task.end().await;
        }
    }

    /// Drains newest first; each task is given its grace, then left behind.
    pub async fn drain(mut self) {
        for task in self.tasks.iter_mut().rev() {
            task.end().await;
        }
        // What a task answered to its drain is worth a line, and can't change what comes.
        while let Some(ended) = self.running.try_join_next() {
            if let Ok((name, Err(error))) = ended {
                tracing::error!(task = name, "{error:#}");
            }
        }
    }
}

fn cause(ended: Option<Result<(&'static str, Result<()>), tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        None => anyhow!("no task is left"),
        Some(Ok((name, Ok(())))) => anyhow!("{name} ended by itself"),
        Some(Ok((name, Err(error)))) => error.context(name),
        Some(Err(panic)) => anyhow::Error::from(panic).context("a task panicked"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn drain_goes_newest_first_and_leaves_a_stuck_task_behind() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut supervisor = Supervisor::default();
        for name in ["a", "b", "stuck"] {
            let log = Arc::clone(&log);
            supervisor.spawn(name, GRACE, move |scope| async move {
                scope.ready();
                scope.draining().await;
                log.lock().unwrap().push(name);
                if name == "stuck" {
                    std::future::pending::<()>().await;
                }
                Ok(())
            });
            supervisor.newest_ready().await.unwrap();
        }
        supervisor.drain().await;
        assert_eq!(*log.lock().unwrap(), ["stuck", "b", "a"]);
    }

    #[tokio::test]
    async fn task_can_be_drained_alone_and_the_others_stay() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut supervisor = Supervisor::default();
        for name in ["a", "b"] {
            let log = Arc::clone(&log);
            supervisor.spawn(name, GRACE, move |scope| async move {
                scope.draining().await;
                log.lock().unwrap().push(name);
                Ok(())
            });
        }
        supervisor.drain_one("a").await;
        assert_eq!(*log.lock().unwrap(), ["a"]);
    }

    #[tokio::test]
    async fn task_that_was_drained_alone_is_no_failure() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("a", GRACE, |scope| async move {
            scope.draining().await;
            Ok(())
        });
        supervisor.spawn("b", GRACE, |scope| async move {
            scope.draining().await;
            Err(anyhow!("disk full"))
        });
        supervisor.drain_one("a").await;
        supervisor.drain_one("b").await;
        assert_eq!(format!("{:#}", supervisor.failed().await), "b: disk full");
    }

    #[tokio::test]
    async fn task_that_ends_before_it_is_ready_gives_its_cause() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("x", GRACE, |_| async { Err(anyhow!("port taken")) });
        assert_eq!(
            format!("{:#}", supervisor.newest_ready().await.unwrap_err()),
            "x: port taken"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn task_that_nobody_waited_for_is_waited_for_in_the_end() {
        let mut supervisor = Supervisor::default();
        let (served, serves) = tokio::sync::oneshot::channel();
        supervisor.spawn("beside", GRACE, |scope| async move {
            serves.await?;
            scope.ready();
            std::future::pending().await
        });
        supervisor.spawn("newest", GRACE, |scope| async move {
            scope.ready();
            std::future::pending().await
        });
        supervisor.newest_ready().await.unwrap();
        timeout(GRACE, supervisor.all_ready()).await.unwrap_err();
        served.send(()).unwrap();
        supervisor.all_ready().await.unwrap();
    }

    #[tokio::test]
    async fn panic_of_a_loop_ends_the_agent_and_that_of_one_client_s_work_does_not() {
        let mut supervisor = Supervisor::default();
        let (ended, client) = tokio::sync::oneshot::channel::<()>();
        supervisor.spawn("server", GRACE, |scope| async move {
            scope.spawn(async move {
                let _ended = ended;
                panic!("by what one client sent");
            });
            client.await.unwrap_err();
            scope.spawn_loop(async { panic!("by what any client sent") });
            std::future::pending().await
        });
        let error = supervisor.failed().await;
        assert_eq!(
            format!("{error:#}"),
            "server: a part of it panicked, which is a bug: the log has more"
        );
    }

    #[tokio::test]
    async fn older_task_that_ends_while_a_newer_one_starts_is_noticed() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("old", GRACE, |scope| async move {
            scope.ready();
            Ok(())
        });
        supervisor.spawn("new", GRACE, |_| std::future::pending());
        assert_eq!(
            supervisor.newest_ready().await.unwrap_err().to_string(),
            "old ended by itself"
        );
    }
}
