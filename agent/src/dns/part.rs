//! DNS as a part.

use std::sync::PoisonError;

use crate::dns;
use crate::dns::check;
use crate::part::{CheckContext, Context, Part, Question, SHORT, Site, Task};

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
        let Site { host, config, units } = &context.site;
        let mut options = dns::Options::new(host.clone(), channels.refusals.clone());
        options.lender = Some(dns::Lender {
            socket: config.paths.dns_socket(),
            unit: units.dns.clone(),
        });
        let kept = std::mem::take(&mut *context.sockets.lock().unwrap_or_else(PoisonError::into_inner));
        let (membership, names) = (channels.membership.subscribe(), channels.names.subscribe());
        Some(Task::new(SHORT, |scope| {
            dns::run(scope, options, kept, membership, names)
        }))
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        check::questions(context)
    }
}
