use std::future::ready;

use anyhow::anyhow;
use tokio::time::{Instant, sleep};

use super::*;
use crate::control_plane::fixtures::membership;
use crate::part::Shared;

const SECOND: Duration = Duration::from_secs(1);

fn channels() -> Channels {
    Channels::new(membership(), &Config::default(), Shared::default())
}

fn preempt(channels: &Channels) {
    channels.eviction.send_replace(Some(Eviction {
        reason: "its cloud takes it".to_owned(),
        at: Instant::now(),
    }));
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_an_agent_that_takes_over_and_for_no_other() {
    let leaves_after = async |stop, resumed, starts: bool| {
        let (begun, started) = (Instant::now(), CancellationToken::new());
        let start = async {
            sleep(SECOND).await;
            if starts {
                started.cancel();
            }
        };
        let stop = once_it_can_leave(ready(stop), pending(), resumed, started.clone());
        tokio::join!(start, async {
            stop.await;
            begun.elapsed()
        })
        .1
    };
    for stop in [|| Stop::Leave, || Stop::Evicted, || Stop::Quit] {
        assert_eq!(leaves_after(stop(), true, true).await, SECOND);
        assert_eq!(leaves_after(stop(), true, false).await, START_TIMEOUT);
        assert_eq!(leaves_after(stop(), false, false).await, Duration::ZERO);
    }
    assert_eq!(leaves_after(Stop::HandOver, true, true).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn second_signal_ends_the_wait_for_an_agent_that_takes_over() {
    let begun = Instant::now();
    once_it_can_leave(ready(Stop::Leave), sleep(SECOND), true, CancellationToken::new()).await;
    assert_eq!(begun.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn notice_of_the_cloud_and_order_of_root_are_heard_at_any_time() {
    let channels = channels();
    preempt(&channels);
    assert!(matches!(told(&channels).await, Stop::Evicted));
    channels.eviction.send_replace(None);
    channels.order.send_replace(Some(Order::Quit));
    assert!(matches!(told(&channels).await, Stop::Quit));
    assert!(is_for_good(&channels));
}

/// The time after which a drain that waits for callers is told not to.
async fn hastened_after(channels: &Channels, haste: impl Future<Output = ()>) -> Duration {
    let (begun, hastened) = (Instant::now(), watch::Sender::new(false));
    let mut told = hastened.subscribe();
    let drain = Box::pin(async {
        told.wait_for(|hastened| *hastened).await.unwrap();
    });
    hasten(drain, no_time_left(haste, channels), &hastened).await;
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn order_in_the_greatest_haste_decides_on_how_long_callers_are_waited_for() {
    let second_signal = || sleep(30 * SECOND);
    assert_eq!(hastened_after(&channels(), second_signal()).await, 30 * SECOND);

    // The VM leaves for a signal already.
    let preempted = channels();
    let notice = async {
        sleep(3 * SECOND).await;
        preempt(&preempted);
    };
    let (took, ()) = tokio::join!(hastened_after(&preempted, second_signal()), notice);
    assert_eq!(took, 3 * SECOND + EVICTION_TIMEOUT);

    // The notice came while the agent took over.
    let preempted = channels();
    preempt(&preempted);
    sleep(START_TIMEOUT).await;
    let took = hastened_after(&preempted, second_signal()).await;
    assert_eq!(took, EVICTION_TIMEOUT - START_TIMEOUT);

    let quit = channels();
    let order = async {
        sleep(SECOND).await;
        quit.order.send_replace(Some(Order::Quit));
    };
    assert_eq!(tokio::join!(hastened_after(&quit, second_signal()), order).0, SECOND);
}

#[tokio::test(start_paused = true)]
async fn stop_is_followed_while_a_drain_that_root_ordered_waits_for_callers() {
    let mut supervisor = Supervisor::default();
    for part in ["drain", "leave"] {
        supervisor.spawn(part, 60 * SECOND, |scope| async move {
            scope.ready();
            scope.draining().await;
            pending().await
        });
    }
    let begun = Instant::now();
    let stop = async {
        sleep(SECOND).await;
        Stop::Evicted
    };
    assert!(matches!(empty(&mut supervisor, stop).await, End::Leave(Ok(()))));
    assert_eq!(begun.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn part_that_fails_after_a_drain_that_root_ordered_has_the_vm_leave() {
    let mut supervisor = Supervisor::default();
    for part in CALLERS {
        supervisor.spawn(part, SECOND, |scope| async move {
            scope.draining().await;
            Ok(())
        });
    }
    supervisor.spawn("xds", SECOND, |_| async {
        sleep(SECOND).await;
        Err(anyhow!("its socket is gone"))
    });
    let End::Leave(Err(error)) = empty(&mut supervisor, pending()).await else {
        panic!("it is left to the next agent");
    };
    assert_eq!(
        format!("{error:#}"),
        "a part failed after /drain: xds: its socket is gone"
    );
}
