//! The mesh's names in /etc/hosts: one managed block, kept right while the agent runs.
//!
//! Owns the block between its two marks and nothing else of the file. Publishes nothing.
//! Never decides which names those are: they come with the membership.

mod block;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod part;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch::{Receiver, Sender};
use tokio::time::{Instant, sleep_until};

use self::block::Block;
pub use self::part::HostsPart;
use self::writer::Written;
pub use self::writer::{Writer, write_list};
use crate::facts::{HostEntry, HostEvent, Membership};
use crate::host::change::HostChange;
use crate::host::{Changes, Host};
use crate::supervise::Scope;

const PATH: &str = "/etc/hosts";

/// Wait between a change and the look at it: whoever creates the file writes it a moment later.
const SETTLE: Duration = Duration::from_millis(50);

/// Rest after a repair, so that a program that insists on its own version costs one write a second, not a loop.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// Time between two looks at the file when no event came: inotify doesn't see what another machine does to a
/// shared file, nor anything when its watches have run out.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The block with these entries; none at all when there are none.
pub fn change(entries: &[HostEntry], writer: &Writer) -> Box<dyn HostChange> {
    Box::new(Written {
        block: Block::new(entries),
        writer: writer.clone(),
    })
}

/// The change that wants no block, for `revert`: it needs no membership.
pub fn owned_block(writer: &Writer) -> Box<dyn HostChange> {
    change(&[], writer)
}

/// Puts the block in, keeps it right, and takes it out on drain. A file that can't be read or written is a `problem`, and is
/// tried again: the agent finds istiod by the membership.
///
/// # Errors
/// When the block can't be taken out at the end.
pub async fn run(
    scope: Scope,
    host: Host,
    writer: Writer,
    mut membership: Receiver<Arc<Membership>>,
    problem: Sender<Option<String>>,
) -> Result<()> {
    let mut changes = Changes::of_file(&host.real_path(Path::new(PATH)));
    let entries = membership.borrow_and_update().hosts.clone();
    let first = change(&entries, &writer);
    tell(&problem, &host.blocking(move |host| first.apply(host)).await);
    scope.ready();
    let mut rested = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = scope.draining() => break,
            changed = membership.changed() => changed.context("the membership's publisher is gone")?,
            () = changes.next() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::select! {
            biased;
            () = scope.draining() => break,
            () = sleep_until(rested.max(Instant::now() + SETTLE)) => {}
        }
        let entries = membership.borrow_and_update().hosts.clone();
        let block = change(&entries, &writer);
        let repaired = host.blocking(move |host| repair(host, &*block)).await;
        tell(&problem, &repaired);
        if matches!(repaired, Ok(true)) {
            rested = Instant::now() + REPAIR_PAUSE;
        }
        changes.follow();
    }
    host.blocking(move |host| owned_block(&writer).revert(host)).await
}

/// Publishes how an edit of the file went, when that is news.
fn tell<T>(problem: &Sender<Option<String>>, edited: &Result<T>) {
    let now = edited.as_ref().err().map(|error| {
        format!(
            "istiod's names are not in {PATH}: {error:#}: have the file writable (`lsattr`, `findmnt -T {PATH}`); this \
             agent finds istiod without"
        )
    });
    problem.send_if_modified(|known| {
        let is_news = *known != now;
        if let Some(problem) = now.as_ref().filter(|_| is_news) {
            tracing::warn!("{problem}");
        }
        *known = now;
        is_news
    });
}

/// Puts the block right, and tells whether there was something to repair.
fn repair(host: &Host, block: &dyn HostChange) -> Result<bool> {
    let repaired = block.ensure(host)?;
    if repaired {
        tracing::info!(
            code = HostEvent::HostsRepaired.code(),
            file = PATH,
            "put the managed block right"
        );
    }
    Ok(repaired)
}

#[cfg(test)]
mod tests;
