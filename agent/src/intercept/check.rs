//! Questions of `check` about the redirection: the rules, and what stands before, behind or beside them.

use std::path::Path;

use super::firewall::ahead::{self, Ahead, Captured};
use super::firewall::behind;
use super::openings::{self, Asked, captures_calls};
use super::{OPEN_BRIDGE, Options, Usable, is_wanted, sshd};
use crate::config::{Network, ports};
use crate::facts::Membership;
use crate::google;
use crate::host::{CommandError, Read};
use crate::intercept;
use crate::part::{CheckContext, Finding, Question, Site, Subject};

const RULES: Subject = Subject::new("IVA601", "interception");
const FIREWALL: Subject = Subject::new("IVA602", "firewall");
const SSH: Subject = Subject::new("IVA603", "ssh");
const PROBES: Subject = Subject::new("IVA604", "cloud probes");
const FAST_OPEN: Subject = Subject::new("IVA605", "TCP Fast Open");
const NEIGHBORS: Subject = Subject::new("IVA606", "bridge");
const OTHER_NAT: Subject = Subject::new("IVA607", "other NAT");
const UNTRACKED: Subject = Subject::new("IVA608", "untracked");

/// Remedy for an open bridge for which the kernel has no rules (NF_TABLES_BRIDGE, which is no module).
pub(super) const MEET_IP: &str = "modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1 \
                       net.bridge.bridge-nf-call-ip6tables=1, and the same in /etc/modules-load.d and /etc/sysctl.d";

/// A look at one thing, of a VM that redirects.
type Look = fn(&Site, &Membership) -> Finding;

pub(super) fn questions(context: &CheckContext) -> Vec<Question> {
    let looks: [(Subject, Look); 8] = [
        (RULES, rules),
        (FIREWALL, firewall),
        (SSH, ssh),
        (PROBES, cloud_probes),
        (FAST_OPEN, fast_open),
        (NEIGHBORS, neighbors),
        (OTHER_NAT, other_nat),
        (UNTRACKED, untracked),
    ];
    looks
        .map(|(subject, look)| {
            Question::look_of_member(subject, context, move |site, membership| match is_wanted(site) {
                true => [look(site, membership)],
                false if subject == RULES => [subject.warning(
                    "intercept.backend is none: nothing sends traffic to Envoy",
                    "redirect it yourself, or set intercept.backend = \"auto\"",
                )],
                false => [subject.skipped("intercept.backend is none")],
            })
        })
        .into()
}

fn options(site: &Site) -> Options {
    Options::new(site.host.clone(), &site.config)
}

fn rules(site: &Site, membership: &Membership) -> Finding {
    match intercept::usable(membership, &options(site)) {
        Ok(usable) => RULES.ok(format!("{}: the kernel accepts the rules", usable.backend)),
        Err(error) => RULES.failed(
            format!("{error:#}"),
            "as root, install nftables or iptables, on a kernel that has them (`nft list ruleset`, `iptables -t nat -S`)",
        ),
    }
}

fn neighbors(site: &Site, membership: &Membership) -> Finding {
    let mut containers = site.config.workloads.containers();
    if containers.all(|container| container.network == Network::Host) {
        return NEIGHBORS.skipped("no container of the agent's is on a bridge");
    }
    match intercept::usable(membership, &options(site)) {
        Ok(Usable { open_bridge: None, .. }) => {
            NEIGHBORS.ok("other containers on the bridge are kept from the application")
        }
        Ok(Usable {
            open_bridge: Some(error),
            ..
        }) => NEIGHBORS.warning(
            format!("{OPEN_BRIDGE}: {error:#}"),
            match error
                .chain()
                .any(|cause| matches!(cause.downcast_ref(), Some(CommandError::NotFound { .. })))
            {
                true => "apt-get install nftables",
                false => MEET_IP,
            },
        ),
        Err(_) => NEIGHBORS.skipped("the kernel accepts no rules at all"),
    }
}

fn firewall(site: &Site, membership: &Membership) -> Finding {
    match openings::closed(site, membership, Asked::Every) {
        Ok(Some((problem, fix))) => FIREWALL.warning(problem, fix),
        Ok(None) => FIREWALL.ok("no firewall of this VM is seen to close a port that the mesh needs"),
        Err(error) => unseen(FIREWALL, &error),
    }
}

fn unseen(subject: Subject, error: &anyhow::Error) -> Finding {
    subject.skipped(format!("other programs' rules can't be looked at: {error:#}"))
}

fn captured<'a>(site: &Site, membership: &'a Membership) -> Captured<'a> {
    Captured {
        membership,
        backend: site.config.intercept.backend,
    }
}

/// The finding about other programs' NAT: packets that it sends elsewhere come to no rule of the mesh, and Envoy's
/// calls are taken by none.
fn other_nat(site: &Site, membership: &Membership) -> Finding {
    let captured = captured(site, membership);
    let looked = || {
        let (before, behind) = (
            ahead::rewriting(&site.host, captured)?,
            behind::rewriting(&site.host, captured)?,
        );
        anyhow::Ok([
            (
                "what is captured is sent elsewhere before the mesh's rules are asked, and so past Envoy",
                before,
            ),
            ("what Envoy itself calls is sent elsewhere", behind),
        ])
    };
    let found = match looked() {
        Ok(found) => found,
        Err(error) => return unseen(OTHER_NAT, &error),
    };
    let found = found.into_iter().filter_map(|(what, rules)| {
        let (rules, fix) = told(rules)?;
        Some((format!("{what}: {rules}"), fix))
    });
    let (texts, fixes): (Vec<_>, Vec<_>) = found.unzip();
    match texts.is_empty() {
        true => {
            OTHER_NAT.ok("no rule of another program is seen to send elsewhere what is captured, or what Envoy calls")
        }
        false => OTHER_NAT.warning(texts.join("; "), fixes.join(" && ")),
    }
}

/// NAT is conntrack's: what that doesn't know of is not redirected, and dropped.
fn untracked(site: &Site, membership: &Membership) -> Finding {
    match ahead::untracking(&site.host, captured(site, membership)).map(told) {
        Ok(Some((rules, fix))) => UNTRACKED.warning(
            format!(
                "packets that are kept from conntrack, or put into a zone of it that their answers are not in, can't be \
                 redirected, and calls with them fail: {rules}"
            ),
            fix,
        ),
        Ok(None) => UNTRACKED.ok("no rule is seen to keep from conntrack what is captured"),
        Err(error) => unseen(UNTRACKED, &error),
    }
}

fn told(found: Vec<Ahead>) -> Option<(String, String)> {
    let (rules, fixes): (Vec<_>, Vec<_>) = found.into_iter().map(|Ahead { rule, fix }| (rule, fix)).unzip();
    (!rules.is_empty()).then(|| (rules.join("; "), fixes.join(" && ")))
}

/// An operator who is locked out can't undo anything.
fn ssh(site: &Site, membership: &Membership) -> Finding {
    let mut passed = sshd::ports(&site.host);
    passed.push(ports::SSH);
    passed.sort_unstable();
    passed.dedup();
    let captured = membership.inbound_ports.iter().flatten();
    if let Some(port) = captured.into_iter().find(|port| passed.contains(port)) {
        let fix = match *port {
            ports::SSH => "take port 22 out of the WorkloadGroup: it is left alone wherever sshd listens".to_owned(),
            port => format!("take port {port} out of the WorkloadGroup, or have sshd listen elsewhere"),
        };
        return SSH.warning(
            format!("port {port} is sshd's, and the WorkloadGroup names it as the application's: it is not captured"),
            fix,
        );
    }
    let list: Vec<String> = passed.iter().map(u16::to_string).collect();
    SSH.ok(format!("port {} of sshd is left alone", list.join(", ")))
}

/// Google's health checks come from outside of the mesh: to a captured port they bring no certificate, and a connection
/// that Envoy accepts says nothing of the application. No address is let past Envoy for them, since whoever has it would
/// be let past the mesh's policy too.
fn cloud_probes(site: &Site, membership: &Membership) -> Finding {
    match (captures_calls(membership), google::is_google(&site.host)) {
        (false, _) => PROBES.ok("no call is captured, and so no probe"),
        (true, false) => PROBES.ok("to be sent to port 15021, path /healthz/ready, by load balancers outside of the mesh"),
        (true, true) => PROBES.ok(
            "load balancers of Google Cloud (35.191.0.0/16, 130.211.0.0/22) are to probe HTTP port 15021, path \
             /healthz/ready: at the application's own port an HTTP probe fails under STRICT mTLS, and one by TCP succeeds \
             even when the application is dead",
        ),
    }
}

/// A server that answers in the first packet answers before conntrack has seen a connection.
fn fast_open(site: &Site, _: &Membership) -> Finding {
    const PATH: &str = "/proc/sys/net/ipv4/tcp_fastopen";
    const FOR_SERVERS: u32 = 2;
    let text = site.host.read(Path::new(PATH), Read::max(64).following_links());
    let flags = text.ok().flatten().and_then(|text| text.trim().parse::<u32>().ok());
    match flags {
        None => FAST_OPEN.skipped(format!("{PATH} can't be read")),
        Some(flags) if flags & FOR_SERVERS == 0 => FAST_OPEN.ok("is off for servers"),
        Some(flags) => FAST_OPEN.warning(
            "is on for servers: a program at one of Envoy's ports could answer in Envoy's place",
            format!(
                "sysctl -w net.ipv4.tcp_fastopen={}, and the same in /etc/sysctl.d",
                flags & !FOR_SERVERS
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::control_plane::fixtures::membership;
    use crate::host::{Host, System};
    use crate::part::{Level, Units};

    fn site() -> (tempfile::TempDir, Site) {
        let root = tempfile::tempdir().unwrap();
        let site = Site {
            host: Host::new(root.path(), System),
            config: Config::default(),
            units: Units::default(),
        };
        (root, site)
    }

    #[test]
    fn fast_open_for_servers_is_named_with_the_value_that_turns_it_off() {
        let (root, site) = site();
        let folder = root.path().join("proc/sys/net/ipv4");
        assert_eq!(fast_open(&site, &membership()).level, Level::Skipped);
        std::fs::create_dir_all(&folder).unwrap();
        for (value, level) in [("1\n", Level::Ok), ("3\n", Level::Warning)] {
            std::fs::write(folder.join("tcp_fastopen"), value).unwrap();
            assert_eq!(fast_open(&site, &membership()).level, level, "{value}");
        }
        let fix = fast_open(&site, &membership()).fix;
        assert!(fix.unwrap().starts_with("sysctl -w net.ipv4.tcp_fastopen=1, "));
    }

    #[test]
    fn port_that_is_sshds_and_the_groups_is_named() {
        let (_root, site) = site();
        let mut membership = membership();
        membership.inbound_ports = None;
        assert_eq!(ssh(&site, &membership).level, Level::Ok);
        membership.inbound_ports = Some(vec![3550, 22]);
        assert_eq!(ssh(&site, &membership).level, Level::Warning);
    }

    #[test]
    fn probes_of_google_are_told_where_to_go_on_google_alone() {
        let (root, site) = site();
        assert!(!cloud_probes(&site, &membership()).detail.contains("35.191"));
        let folder = root.path().join("sys/class/dmi/id");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("product_name"), "Google Compute Engine\n").unwrap();
        assert!(cloud_probes(&site, &membership()).detail.contains("35.191.0.0/16"));
    }
}
