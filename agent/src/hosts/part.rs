//! The block in /etc/hosts as a part.

use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::facts::Membership;
use crate::hosts::{self, Writer};
use crate::part::{
    Change, Changes, Channels, CheckContext, Code, Context, Effect, Finding, Part, Plan, Problems, Question, SHORT,
    Site, Subject, Task, changes_of,
};

/// Keeps the block.
#[derive(Debug)]
pub struct HostsPart;

impl Part for HostsPart {
    fn name(&self) -> &'static str {
        "hosts"
    }

    /// Nothing else of the start asks for a name in it.
    fn task(&self, context: &Context) -> Option<Task> {
        let (host, writer) = (context.site.host.clone(), writer(&context.site));
        let membership = context.channels.membership.subscribe();
        let problem = context.channels.hosts_problem.clone();
        let task = Task::new(SHORT, |scope| hosts::run(scope, host, writer, membership, problem));
        Some(task.beside_next(true))
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.hosts_problem)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        Problems::default().amiss(Code::HostsFile, context.channels.hosts_problem.borrow().clone())
    }

    fn plan<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Result<Plan>> {
        Box::pin(async {
            let change = Change::of(&*hosts::change(&membership.hosts, &writer(site)), &site.host)?;
            let plan = match (change, membership.hosts.len()) {
                (None, _) => Plan::default(),
                (Some(change), 0) => Plan::of(change).effect(Effect::Removes, format!("the block in {}", hosts::PATH)),
                (Some(change), lines) => {
                    let s = if lines == 1 { "" } else { "s" };
                    Plan::of(change).effect(Effect::Writes, format!("{lines} line{s} into {}", hosts::PATH))
                }
            };
            Ok(plan.leaving(format!("{}: all lines but the agent's own block", hosts::PATH)))
        })
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        let finding = |site: &Site, membership: &Membership| [finding(site, membership)];
        vec![Question::look_of_member(HOSTS, context, finding)]
    }

    fn revert<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            hosts::owned_block(&writer(site)).revert(&site.host)?;
            Ok(site.host.remove(&site.config.paths.hosts())?)
        })
    }

    fn traces<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async {
            let block = hosts::owned_block(&writer(site)).plan(&site.host)?;
            let block = block.map(|_| format!("the agent's block in {}", hosts::PATH));
            let list = site.config.paths.hosts();
            let list = site.host.exists(&list).then(|| list.display().to_string());
            Ok(block.into_iter().chain(list).collect())
        })
    }
}

const HOSTS: Subject = Subject::new("IVA704", "hosts");
/// Remedy for a file system that can't be written to.
const REMOUNT: &str = "mount -o remount,rw \"$(findmnt -no TARGET -T /etc/hosts)\"";

fn finding(site: &Site, membership: &Membership) -> Finding {
    let path = Path::new(hosts::PATH);
    let (error, fix) = match hosts::change(&membership.hosts, &writer(site)).plan(&site.host) {
        Ok(None) => return HOSTS.ok(format!("{} has istiod's names", path.display())),
        Ok(Some(_)) => match site.host.expect_writable(path) {
            Ok(()) => return HOSTS.ok(format!("{} can be written", path.display())),
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => (error.into(), REMOUNT),
            Err(error) => (error.into(), "chattr -i /etc/hosts"),
        },
        Err(error) => (error, "make /etc/hosts a file of lines that root can read"),
    };
    HOSTS.warning(
        format!("istiod's names can't be put into /etc/hosts, and this agent finds istiod without: {error:#}"),
        fix,
    )
}

/// A unit writes /etc/hosts where this process may not.
fn writer(site: &Site) -> Writer {
    Writer::new(site.units.hosts.as_deref(), &site.config.paths)
}
