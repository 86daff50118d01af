//! One step: all clusters at the wanted position, or all as they were.
//!
//! No lock is held. Each write names the version that was read, so of two operators at once at most one gets a cluster,
//! and whoever does not get all of them puts back what it got.

use std::time::Duration;

use anyhow::{Result, anyhow};
use futures_util::future::{join_all, try_join_all};
use serde_json::Value;

use crate::cluster::{Cluster, Failure, Mode};
use crate::migration::Migration;
use crate::objects::{self, Position};
use crate::output::{Event, Output};

/// Tries to put a cluster back, and the time between two.
const TRIES: u32 = 4;
const BETWEEN: Duration = Duration::from_millis(500);

/// A cluster as it was read.
pub(crate) struct Standing<'a> {
    pub(crate) cluster: &'a Cluster,
    /// The object that splits the calls.
    pub(crate) route: Option<Value>,
    pub(crate) position: Option<Position>,
    /// A change of the split by somebody else, in words.
    pub(crate) drift: Option<String>,
    /// Somebody else who manages the split, in words: a write without force would be refused.
    pub(crate) manager: Option<String>,
    /// Why the mesh doesn't take the split as it is, in words.
    pub(crate) refusal: Option<String>,
}

/// Position of the clusters together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Agreement {
    /// No cluster has a migration.
    Absent,
    /// All are at one position.
    At(Position),
    /// A step was cut in half.
    Torn,
}

/// Reads all clusters at once.
pub(crate) async fn read<'a>(clusters: &'a [Cluster], migration: &Migration) -> Result<Vec<Standing<'a>>, Failure> {
    try_join_all(clusters.iter().map(|cluster| read_one(cluster, migration))).await
}

pub(crate) async fn read_one<'a>(cluster: &'a Cluster, migration: &Migration) -> Result<Standing<'a>, Failure> {
    let name = migration.object_name();
    let kind = objects::route_kind(migration);
    let route = cluster.get(kind, migration.namespace.as_str(), &name).await?;
    let position = route.as_ref().map(Position::of);
    let managers = route.as_ref().map(objects::foreign_managers).unwrap_or_default();
    let who = managers.join(", ");
    let kind = kind.singular();
    let drift = match (&route, &position) {
        (Some(_), Some(Err(error))) => Some(format!("{kind} {name}: {error:#}")),
        (Some(route), Some(Ok(at))) if objects::share_in_force(migration, route) != Some(at.share) => {
            let who = if who.is_empty() { "somebody" } else { &who };
            Some(format!(
                "{kind} {name}: its routes are not those of {}: {who} has changed them; have it leave the \
                 object alone, then `return`",
                at.share
            ))
        }
        _ => None,
    };
    let manager = (!managers.is_empty()).then(|| {
        format!(
            "{kind} {name}: {who} manages its routes: have it leave the object alone, and `return` takes them \
             over; or have it apply what `--print` says"
        )
    });
    let refusal = route.as_ref().and_then(objects::refusal);
    Ok(Standing {
        cluster,
        refusal: refusal.map(|why| format!("{kind} {name}: {why}")),
        route,
        position: position.and_then(Result::ok),
        drift,
        manager,
    })
}

/// Position that the clusters agree on, where they do.
pub(crate) fn agreement(positions: &[Option<Position>]) -> Agreement {
    match positions {
        [Some(first), rest @ ..] if rest.iter().all(|other| other.as_ref() == Some(first)) => {
            Agreement::At(first.clone())
        }
        all if all.iter().all(Option::is_none) => Agreement::Absent,
        _ => Agreement::Torn,
    }
}

/// Brings all clusters to `position`, or leaves all as they were.
///
/// # Errors
/// When a cluster didn't take it; the error says of each cluster that could not be put back how it stands.
pub(crate) async fn move_all(
    standings: &[Standing<'_>],
    migration: &Migration,
    position: &Position,
    mode: Mode,
    output: Output,
) -> Result<()> {
    let results = join_all(standings.iter().map(|it| write(it, migration, position, mode, output))).await;
    let (mut changed, mut failures) = (Vec::new(), Vec::new());
    for (standing, result) in standings.iter().zip(results) {
        match result {
            Ok(()) => changed.push((standing, Taken::Surely)),
            Err(failure) => {
                // Without an answer it may have been done, and so it may where a gateway or etcd gave none.
                if failure.code.is_none_or(|code| code >= 500) {
                    changed.push((standing, Taken::Perhaps));
                }
                let (is_conflict, is_unknown) = (failure.is_conflict(), failure.code == Some(404));
                let failure = anyhow!(failure);
                let kind = objects::route_kind(migration);
                failures.push(match is_conflict {
                    true => failure.context("somebody wrote meanwhile; `status` tells who, the same command goes on"),
                    false if is_unknown => failure.context(format!(
                        "the cluster has no {} of {}: install them",
                        kind.plural, kind.api
                    )),
                    false => failure,
                });
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    if mode == Mode::Real {
        let put_back = changed
            .into_iter()
            .map(|(it, taken)| put_back(it, taken, migration, position, output));
        let put_back = join_all(put_back).await;
        failures.extend(put_back.into_iter().filter_map(Result::err));
    }
    Err(all_of(failures))
}

/// Brings every cluster to `position`, whatever the others do and whoever manages its split; the failures.
pub(crate) async fn move_each(
    standings: &[Standing<'_>],
    migration: &Migration,
    position: &Position,
    mode: Mode,
    output: Output,
) -> Vec<Failure> {
    let writes = standings.iter().map(|standing| async move {
        let wanted = wanted(standing, migration, position);
        standing
            .cluster
            .take_over(objects::route_kind(migration), &wanted, mode)
            .await?;
        tell(standing, position, mode, output);
        Ok(())
    });
    join_all(writes).await.into_iter().filter_map(Result::err).collect()
}

/// Several errors, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|it| format!("{it:#}")).collect::<Vec<_>>().join("\n"))]
pub(crate) struct Several(pub(crate) Vec<anyhow::Error>);

/// Errors as one.
pub(crate) fn all_of(failures: Vec<anyhow::Error>) -> anyhow::Error {
    Several(failures).into()
}

async fn write(
    standing: &Standing<'_>,
    migration: &Migration,
    position: &Position,
    mode: Mode,
    output: Output,
) -> Result<(), Failure> {
    let wanted = wanted(standing, migration, position);
    standing
        .cluster
        .apply(objects::route_kind(migration), &wanted, mode)
        .await?;
    tell(standing, position, mode, output);
    Ok(())
}

/// The object of `position`, in place of the very one that was read.
fn wanted(standing: &Standing<'_>, migration: &Migration, position: &Position) -> Value {
    let mut wanted = objects::route(migration, position);
    if let Some(route) = &standing.route {
        wanted["metadata"]["resourceVersion"] = route["metadata"]["resourceVersion"].clone();
    }
    wanted
}

fn tell(standing: &Standing<'_>, position: &Position, mode: Mode, output: Output) {
    let tense = if mode == Mode::Real { "get" } else { "would get" };
    output.tell(&Event::Written {
        cluster: standing.cluster.name(),
        what: &format!("pods {tense} {}", position.share),
    });
}

/// Certainty of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Taken {
    Surely,
    /// No answer came: it may have been made, or be made yet.
    Perhaps,
}

/// Takes `position` back from a cluster that may have taken it.
async fn put_back(
    standing: &Standing<'_>,
    taken: Taken,
    migration: &Migration,
    position: &Position,
    output: Output,
) -> Result<()> {
    let (name, share) = (standing.cluster.name(), position.share);
    let mut tried = 0;
    loop {
        tried += 1;
        match try_put_back(standing, migration, position).await {
            Ok(was_there) if was_there || taken == Taken::Surely => {
                if was_there {
                    output.tell(&Event::PutBack { cluster: name });
                }
                return Ok(());
            }
            Ok(_) if tried == TRIES => {
                return Err(anyhow!(
                    "cluster {name} gave no answer, and may take {share} yet: look at `status` in a minute; `return` mends it"
                ));
            }
            Err(error) if tried == TRIES => {
                return Err(error.context(format!(
                    "cluster {name} may stay at {share} while the others don't: `status` tells, `return` mends it"
                )));
            }
            Ok(_) | Err(_) => tokio::time::sleep(BETWEEN).await,
        }
    }
}

/// True when the cluster had taken it.
async fn try_put_back(standing: &Standing<'_>, migration: &Migration, position: &Position) -> Result<bool> {
    let now = read_one(standing.cluster, migration).await?;
    let (Some(route), Some(at)) = (now.route, now.position) else {
        return Ok(false);
    };
    // Another operator's is not ours to take back.
    if at != *position {
        return Ok(false);
    }
    match &standing.position {
        Some(before) => {
            let mut wanted = objects::route(migration, before);
            wanted["metadata"]["resourceVersion"] = route["metadata"]["resourceVersion"].clone();
            standing
                .cluster
                .apply(objects::route_kind(migration), &wanted, Mode::Real)
                .await?;
        }
        None => {
            let kind = objects::route_kind(migration);
            standing.cluster.delete(kind, &route, Mode::Real).await?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::tests::position;

    #[test]
    fn clusters_agree_on_one_position_or_none() {
        let at = |share| Some(position(share));
        assert_eq!(agreement(&[None, None]), Agreement::Absent);
        assert_eq!(agreement(&[at(20), at(20)]), Agreement::At(position(20)));
    }

    #[test]
    fn half_a_step_is_seen() {
        assert_eq!(agreement(&[Some(position(20)), Some(position(0))]), Agreement::Torn);
        assert_eq!(agreement(&[None, Some(position(0))]), Agreement::Torn);
        let other = Position {
            by: "joe@desk (3)".to_owned(),
            ..position(20)
        };
        assert_eq!(agreement(&[Some(position(20)), Some(other)]), Agreement::Torn);
    }
}
