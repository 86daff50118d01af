//! The block in /etc/hosts as a part.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::facts::Membership;
use crate::hosts::{self, Writer};
use crate::part::{
    Change, Changes, Channels, CheckContext, Context, Finding, Part, Problems, Question, SHORT, Site, Subject, Task,
    changes_of,
};

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
        let problem = context.channels.hosts_problem.clone();
        Some(Task::new(SHORT, |scope| {
            hosts::run(scope, host, writer, membership, problem)
        }))
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.hosts_problem)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        Problems::default().amiss(context.channels.hosts_problem.borrow().clone())
    }

    fn plan<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async { Change::of(&*hosts::change(&membership.hosts, &writer(site)), &site.host) })
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        let finding = |site: &Site, membership: &Membership| [finding(site, membership)];
        vec![Question::look_of_member(HOSTS, context, finding)]
    }

    fn revert<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { hosts::owned_block(&writer(site)).revert(&site.host) })
    }
}

const HOSTS: Subject = Subject::new("IVA704", "hosts");

fn finding(site: &Site, membership: &Membership) -> Finding {
    let path = Path::new(hosts::PATH);
    let writable = match hosts::change(&membership.hosts, &writer(site)).plan(&site.host) {
        Ok(None) => return HOSTS.ok(format!("{} has istiod's names", path.display())),
        Ok(Some(_)) => site.host.expect_writable(path).map_err(Into::into),
        Err(error) => Err(error),
    };
    match writable {
        Ok(()) => HOSTS.ok(format!("{} can be written", path.display())),
        Err(error) => HOSTS.warning(
            format!("istiod's names can't be put into /etc/hosts, and this agent finds istiod without: {error:#}"),
            "have the file writable: see `lsattr /etc/hosts` and `findmnt -T /etc/hosts`",
        ),
    }
}

/// A unit writes /etc/hosts where this process may not.
fn writer(site: &Site) -> Writer {
    Writer::new(site.units.hosts.as_deref(), &site.config.paths)
}
