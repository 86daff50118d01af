//! DNS as a part.

use std::path::Path;
use std::sync::PoisonError;

use futures_util::future::BoxFuture;

use crate::dns;
use crate::facts::Membership;
use crate::host::ResolvConf;
use crate::part::{Context, Finding, Part, SHORT, Site, Task};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Name servers that the VM's programs ask past the agent.
fn finding(conf: &ResolvConf) -> Option<Finding> {
    let passed: Vec<String> = conf
        .servers
        .iter()
        .filter(|server| !server.is_redirectable())
        .map(|server| server.address.to_string())
        .collect();
    let detail = format!(
        "queries to {} are not captured, for it is a link-local address: what is asked there is answered without the \
         mesh's names; name another address of that server in {RESOLV_CONF}",
        passed.join(", ")
    );
    (!passed.is_empty()).then(|| Finding::warning("name servers", detail))
}

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

    fn check<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Vec<Finding>> {
        Box::pin(async {
            let conf = site.host.resolv_conf(Path::new(RESOLV_CONF)).ok().flatten();
            match conf.filter(|_| membership.dns_capture) {
                Some(conf) => finding(&conf).into_iter().collect(),
                None => Vec::new(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_name_server_is_named() {
        assert_eq!(finding(&ResolvConf::parse("nameserver 10.0.0.1\n")), None);
        let found = finding(&ResolvConf::parse("nameserver fe80::1%eth0\nnameserver 10.0.0.1\n")).unwrap();
        assert!(
            found.detail.starts_with("queries to fe80::1 are not captured"),
            "{found:?}"
        );
    }
}
