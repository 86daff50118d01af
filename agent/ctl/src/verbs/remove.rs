//! Removal of the program's objects, the last step of `undo` and of `retire`.

use anyhow::{Result, bail};
use futures_util::future::try_join_all;

use super::Operation;
use crate::objects;
use crate::output::Event;

/// Removes this program's object of a kind in all clusters.
pub(super) async fn remove(operation: &Operation, kind: objects::Kind) -> Result<()> {
    let (namespace, name) = (
        operation.migration.namespace.as_str(),
        operation.migration.object_name(),
    );
    let removals = operation.clusters.iter().map(|cluster| {
        let name = &name;
        async move {
            let Some(object) = cluster.get(kind, namespace, name).await? else {
                return Ok(());
            };
            if object["metadata"]["labels"]["app.kubernetes.io/managed-by"] != objects::MANAGER {
                bail!(
                    "cluster {}: {} {namespace}/{name} is not this program's: it stays",
                    cluster.name(),
                    kind.plural
                );
            }
            cluster.delete(kind, &object, operation.change.mode()).await?;
            let what = &format!("{} {namespace}/{name} is removed", kind.plural);
            operation.output.tell(&Event::Written {
                cluster: cluster.name(),
                what,
            });
            Ok(())
        }
    });
    try_join_all(removals).await.map(drop)
}
