//! The watch over the host as a part.

use std::sync::Arc;

use super::{clock, network, notices, resources};
use crate::google::Metadata;
use crate::host::Host;
use crate::part::{Context, Part, SHORT, Task};

/// Watches the host.
#[derive(Debug)]
pub struct HostEventsPart;

impl Part for HostEventsPart {
    fn name(&self) -> &'static str {
        "host_events"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (host, paths) = (context.site.host.clone(), context.site.config.paths.clone());
        let (state, eviction) = (context.channels.host.clone(), context.channels.eviction.clone());
        Some(Task::new(SHORT, |scope| async move {
            let network = host.kernel_changes(crate::host::Watched::Network);
            network::look(&host, &state);
            scope.spawn_loop(network::follow(host.clone(), network, state.clone()));
            scope.spawn_loop(clock::follow(host.clock_changes(), state));
            scope.spawn_loop(resources::follow(host.clone(), paths));
            if let Some(metadata) = metadata(&host) {
                let metadata = Arc::new(metadata);
                scope.spawn_loop(notices::follow_preemption(Arc::clone(&metadata), eviction));
                scope.spawn_loop(notices::follow_maintenance(metadata));
            }
            scope.ready();
            scope.draining().await;
            Ok(())
        }))
    }
}

/// The metadata server, where the VM has one.
fn metadata(host: &Host) -> Option<Metadata> {
    let server = Metadata::if_there(host)?;
    server
        .inspect_err(|error| tracing::warn!("the cloud's notices are not heard: {error:#}"))
        .ok()
}
