//! The join source as a part.

use std::net::IpAddr;
use std::time::SystemTime;

use futures_util::future::BoxFuture;

use super::addresses::Machine;
use super::{Join, refresh};
use crate::config::mesh_address;
use crate::facts::Membership;
use crate::part::{Changes, Channels, Context, Finding, Part, Problems, SHORT, Site, Task, changes_of};

/// Follows the join source; without one it runs nothing.
#[derive(Debug)]
pub struct JoinPart(pub Option<Join>);

impl Part for JoinPart {
    fn name(&self) -> &'static str {
        "join"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let join = self.0.clone()?;
        let publish = context.channels.membership.clone();
        let problem = context.channels.join_problem.clone();
        Some(Task::new(SHORT, |scope| refresh::run(scope, join, publish, problem)))
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.join_problem)]
    }

    fn check<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Vec<Finding>> {
        let key = match site.config.network.address {
            Some(_) => "network.address",
            None => "ISTIO_SVC_IP of the bundle",
        };
        let address = membership.instance_ips.first();
        let finding = address.and_then(|address| foreign(key, *address, &Machine::observe()));
        Box::pin(async { finding.into_iter().collect() })
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let problem = context.channels.join_problem.borrow().clone();
        Problems::default().amiss(
            problem.map(|problem| format!("the join source is followed no more, what it gave last serves: {problem}")),
        )
    }
}

/// The finding about an address that peers are to call and no interface has; a public one may be mapped by the cloud.
fn foreign(key: &str, address: IpAddr, machine: &Machine) -> Option<Finding> {
    const NAME: &str = "address";
    if machine.interfaces.iter().any(|(_, ip)| *ip == address) {
        return None;
    }
    let problem = format!("{key} is {address}, which is on no interface of this VM that is up");
    Some(match mesh_address::is_public(address) {
        true => Finding::warning(
            NAME,
            format!("{problem}: peers reach it only where the cloud maps it to an address that is"),
        ),
        false => Finding::failed(
            NAME,
            format!("{problem}, so peers would call another machine: write one that `ip address` lists, or remove it"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::part::Level;

    #[test]
    fn an_address_that_no_interface_has_is_told() {
        let machine = Machine {
            name: "vm".to_owned(),
            interfaces: vec![("eth0".to_owned(), IpAddr::from([10, 0, 0, 3]))],
            source_towards: |_| Err(std::io::ErrorKind::NetworkUnreachable.into()),
            now: SystemTime::UNIX_EPOCH,
        };
        let level = |ip: &str| foreign("network.address", ip.parse().unwrap(), &machine).map(|finding| finding.level);
        assert_eq!(level("10.0.0.3"), None);
        assert_eq!(level("10.0.0.4"), Some(Level::Failed));
        assert_eq!(level("34.1.2.3"), Some(Level::Warning));
    }
}
