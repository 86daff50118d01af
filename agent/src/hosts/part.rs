//! The block in /etc/hosts as a part.

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::facts::Membership;
use crate::hosts::{self, Writer};
use crate::part::{Change, Context, Part, SHORT, Site, Task};

/// Keeps the block.
#[derive(Debug)]
pub struct HostsPart;

impl Part for HostsPart {
    fn name(&self) -> &'static str {
        "hosts"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (host, writer) = (context.site.host.clone(), writer(&context.site));
        let membership = context.channels.membership.subscribe();
        Some(Task::new(SHORT, |scope| hosts::run(scope, host, writer, membership)))
    }

    fn plan<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async { Change::of(&*hosts::change(&membership.hosts, &writer(site)), &site.host) })
    }

    fn revert<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { hosts::owned_block(&writer(site)).revert(&site.host) })
    }
}

/// A unit writes /etc/hosts where this process may not.
fn writer(site: &Site) -> Writer {
    Writer::new(site.units.hosts.as_deref(), &site.config.paths)
}
