//! The other applications of this VM, whose containers are not one's own to remove.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::names::names_of;
use crate::config::Workloads;

/// The other applications' containers.
#[derive(Clone, Debug, Default)]
pub struct Others {
    /// Names of the containers, the configured ones.
    names: Vec<String>,
    /// Held by whoever removes containers that no application has any more: two would stumble over each other.
    removing: Arc<Mutex<()>>,
}

impl Others {
    /// The others of each container of the configuration, in its order.
    pub(super) fn of_each(workloads: &Workloads) -> impl Iterator<Item = Self> {
        let removing = Arc::<Mutex<()>>::default();
        workloads.containers().map(move |own| {
            let others = workloads.containers().filter(|other| other.name != own.name);
            Self {
                names: others.map(|other| other.name.clone()).collect(),
                removing: Arc::clone(&removing),
            }
        })
    }

    /// True for a container of another application, by whatever name it has at the moment.
    pub(super) fn have(&self, name: &str) -> bool {
        self.names
            .iter()
            .any(|other| names_of(other).contains(&name.to_owned()))
    }

    /// Waits until nobody else removes containers.
    pub(super) async fn wait(&self) -> MutexGuard<'_, ()> {
        self.removing.lock().await
    }
}
