//! DNS as a part.

use std::sync::PoisonError;

use crate::dns;
use crate::part::{Context, Part, SHORT, Task};

/// Answers the VM's DNS queries.
#[derive(Debug)]
pub struct DnsPart;

impl Part for DnsPart {
    fn name(&self) -> &'static str {
        "dns"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let channels = &context.channels;
        if !channels.membership().dns_capture {
            return None;
        }
        let options = dns::Options::new(context.site.host.clone(), channels.refusals.clone());
        let kept = std::mem::take(&mut *context.sockets.lock().unwrap_or_else(PoisonError::into_inner));
        let (membership, names) = (channels.membership.subscribe(), channels.names.subscribe());
        Some(Task::new(SHORT, |scope| {
            dns::run(scope, options, kept, membership, names)
        }))
    }
}
