//! The verbs that change nothing.

use anyhow::{Result, anyhow, bail};
use futures_util::future::join_all;
use similar::TextDiff;

use super::Operation;
use crate::findings::{self, Forbids};
use crate::migration::Share;
use crate::objects::{self, DESTINATION_RULES, Position};
use crate::output::Event;
use crate::step::{self, Agreement};

/// Prints what is in the way, and what `apply` would make.
///
/// # Errors
/// When a finding forbids the migration.
pub(crate) async fn plan(operation: &Operation) -> Result<()> {
    let Operation { migration, output, .. } = operation;
    let findings = findings::find(&operation.clusters, migration).await?;
    for finding in &findings {
        finding.tell(*output);
    }
    let standings = step::read(&operation.clusters, migration).await?;
    for standing in &standings {
        let start = Position {
            share: Share::NONE,
            epoch: 1,
            since: super::now(),
            by: super::operator()?,
        };
        let wanted = objects::route(migration, standing.position.as_ref().unwrap_or(&start));
        let mut diff = diff(standing.route.as_ref(), &wanted)?;
        if let Some(rule) = objects::destination_rule(migration) {
            let (namespace, name) = (migration.namespace.as_str(), migration.object_name());
            let there = standing.cluster.get(DESTINATION_RULES, namespace, &name).await?;
            diff.insert_str(0, &self::diff(there.as_ref(), &rule)?);
        }
        let cluster = standing.cluster.name();
        let diff = if diff.is_empty() { "nothing to change" } else { &diff };
        output.tell(&Event::Planned { cluster, diff });
    }
    let forbidding = findings.iter().filter(|it| it.forbids == Forbids::Everything).count();
    if forbidding > 0 {
        bail!("{forbidding} findings forbid the migration");
    }
    operation.done("nothing forbids the migration: `apply` makes these objects, with all calls to the VM");
    Ok(())
}

/// Prints where each cluster stands.
///
/// # Errors
/// When one can't be asked, when they differ, and when somebody else has changed an object.
pub(crate) async fn status(operation: &Operation) -> Result<()> {
    let (problems, agreement) = tell_standings(operation).await;
    match agreement {
        _ if problems > 0 => bail!("{problems} clusters are not as they should be"),
        Agreement::Torn => bail!("a step was cut in half: `shift` to either share, or `return`, brings all to one"),
        Agreement::Absent | Agreement::At(_) => Ok(()),
    }
}

/// The error of a verb that a signal has broken off between two writes: it says where the split is.
pub(crate) async fn interrupted(operation: &Operation) -> anyhow::Error {
    let Ok((problems, agreement)) = operation.interrupt.unless_again(tell_standings(operation)).await else {
        return anyhow!("interrupted twice: `status` tells where the split is");
    };
    match agreement {
        _ if problems > 0 => anyhow!("interrupted: {problems} clusters are not as they should be"),
        Agreement::Torn => anyhow!("interrupted: a step was cut in half: the same command goes on, `return` goes back"),
        Agreement::Absent => anyhow!("interrupted: there is no migration"),
        Agreement::At(at) => anyhow!(
            "interrupted: pods get {} in all clusters; the same command goes on",
            at.share
        ),
    }
}

/// Tells where each cluster stands; the number of those with a problem, and what they say together.
async fn tell_standings(operation: &Operation) -> (usize, Agreement) {
    let reads = operation
        .clusters
        .iter()
        .map(|cluster| step::read_one(cluster, &operation.migration));
    let mut problems = 0;
    let mut positions = Vec::new();
    for (cluster, read) in operation.clusters.iter().zip(join_all(reads).await) {
        let is_known = read.is_ok();
        let (position, problem, manager) = match read {
            Ok(standing) => {
                let problem = standing.drift.or(standing.refusal);
                (standing.position, problem, standing.manager)
            }
            Err(failure) => (None, Some(format!("{:#}", anyhow::Error::from(failure))), None),
        };
        problems += usize::from(problem.is_some());
        // One who has applied what was printed has the split as it should be.
        let problem = problem.or(manager);
        operation.output.tell(&Event::Standing {
            cluster: cluster.name(),
            position: position.as_ref(),
            problem: problem.as_deref(),
            is_known,
        });
        positions.push(position);
    }
    (problems, step::agreement(&positions))
}

fn diff(there: Option<&serde_json::Value>, wanted: &serde_json::Value) -> Result<String> {
    let before = match there {
        Some(there) => serde_saphyr::to_string(&objects::written(there))?,
        None => String::new(),
    };
    let after = serde_saphyr::to_string(&objects::written(wanted))?;
    Ok(TextDiff::from_lines(&before, &after)
        .unified_diff()
        .context_radius(2)
        .to_string())
}
