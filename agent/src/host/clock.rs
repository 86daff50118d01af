//! Word of what becomes of the clocks: the wall clock is set, the machine sleeps.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::Host;

/// Differences below this are corrections, and not worth a word; in nanoseconds.
const WORTH_A_WORD: i128 = 500_000_000;
/// Time between two comparisons of the clocks beside the kernel's word: a clock that is turned for this process alone
/// (by a library in its place) is told to nobody.
const LOOK: Duration = Duration::from_secs(5);
/// No clock gets there, in seconds after 1970: the timer is for its cancellation alone.
const NEVER: i64 = 1 << 40;

/// Change of the clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClockChange {
    /// The wall clock was set.
    Stepped {
        /// The distance.
        by: Duration,
        /// True for one into the past.
        back: bool,
    },
    /// The machine slept for so long.
    Resumed(Duration),
}

/// The three clocks at one moment, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// The wall clock.
    real: i128,
    /// Time since the boot.
    boot: i128,
    /// The same without the time asleep.
    awake: i128,
}

/// The changes of this machine's clocks.
#[derive(Debug)]
pub struct ClockChanges {
    /// A timer that ends when the wall clock is set, or the machine wakes (TFD_TIMER_CANCEL_ON_SET).
    timer: Option<AsyncFd<OwnedFd>>,
    last: Reading,
}

impl Host {
    /// Begins to watch the clocks.
    #[expect(
        deprecated,
        reason = "deprecated for types that may change their fd; its successor is `unsafe`, and OwnedFd can't"
    )]
    pub fn clock_changes(&self) -> ClockChanges {
        let timer = timer().and_then(|timer| AsyncFd::with_interest(timer, Interest::READABLE));
        ClockChanges {
            timer: timer
                .inspect_err(|error| tracing::debug!("the kernel doesn't tell when the clock is set: {error}"))
                .ok(),
            last: Reading::now(),
        }
    }
}

impl ClockChanges {
    /// Waits for the next change.
    pub async fn next(&mut self) -> ClockChange {
        loop {
            tokio::select! {
                () = told(self.timer.as_ref()) => {}
                () = sleep(LOOK) => {}
            }
            let now = Reading::now();
            let change = now.since(self.last);
            self.last = now;
            if let Some(change) = change {
                return change;
            }
        }
    }
}

impl Reading {
    fn now() -> Self {
        // All three by the C library, so that they are one machine's.
        let real = SystemTime::now().duration_since(UNIX_EPOCH);
        let real = real.map_or_else(|before| -nanoseconds(before.duration()), nanoseconds);
        // Every Linux has both.
        let read = |clock| clock_gettime(clock).map_or(0, |time| nanoseconds(time.into()));
        Self {
            real,
            boot: read(ClockId::CLOCK_BOOTTIME),
            awake: read(ClockId::CLOCK_MONOTONIC),
        }
    }

    fn since(self, last: Self) -> Option<ClockChange> {
        let asleep = (self.boot - self.awake) - (last.boot - last.awake);
        let stepped = (self.real - self.boot) - (last.real - last.boot);
        if asleep >= WORTH_A_WORD {
            return Some(ClockChange::Resumed(duration(asleep)));
        }
        (stepped.abs() >= WORTH_A_WORD).then(|| ClockChange::Stepped {
            by: duration(stepped.abs()),
            back: stepped < 0,
        })
    }
}

fn nanoseconds(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

/// To the second.
fn duration(nanoseconds: i128) -> Duration {
    let seconds = (nanoseconds + 500_000_000) / 1_000_000_000;
    Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
}

fn timer() -> io::Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    arm(&timer)?;
    Ok(timer)
}

fn arm(timer: &OwnedFd) -> io::Result<()> {
    let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
    let never = Itimerspec {
        it_interval: time(0),
        it_value: time(NEVER),
    };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(timer, flags, &never)?;
    Ok(())
}

/// Completes when the timer was cancelled.
async fn told(timer: Option<&AsyncFd<OwnedFd>>) {
    let readable = match timer {
        Some(timer) => timer.readable().await,
        None => return std::future::pending().await,
    };
    let Ok(mut ready) = readable else {
        return std::future::pending().await;
    };
    // Reads ECANCELED, and counts from then on as not readable.
    let _ = rustix::io::read(ready.get_inner(), &mut [0; 8]);
    let _ = arm(ready.get_inner());
    ready.clear_ready();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;
    const DAY: i128 = 86_400 * SECOND;

    fn after(real: i128, boot: i128, awake: i128) -> Option<ClockChange> {
        let last = Reading {
            real: 60 * 365 * DAY,
            boot: DAY,
            awake: DAY / 2,
        };
        let now = Reading {
            real: last.real + real,
            boot: last.boot + boot,
            awake: last.awake + awake,
        };
        now.since(last)
    }

    #[test]
    fn clock_that_is_set_is_told_from_one_that_runs_and_from_a_machine_that_slept() {
        assert_eq!(after(5 * SECOND, 5 * SECOND, 5 * SECOND), None);
        assert_eq!(after(5 * SECOND + SECOND / 10, 5 * SECOND, 5 * SECOND), None);
        let day = Duration::from_secs(86_400);
        for (real, by, back) in [(DAY, day, false), (-30 * DAY, 30 * day, true)] {
            assert_eq!(
                after(SECOND + real, SECOND, SECOND),
                Some(ClockChange::Stepped { by, back })
            );
        }
        // A machine that slept for a day, whatever its clock did meanwhile.
        for real in [DAY, 0, 2 * DAY] {
            assert_eq!(
                after(real, DAY, SECOND),
                Some(ClockChange::Resumed(day - Duration::from_secs(1)))
            );
        }
    }

    #[tokio::test]
    async fn kernel_takes_a_timer_that_ends_when_the_clock_is_set() {
        assert!(Host::system().clock_changes().timer.is_some());
    }
}
