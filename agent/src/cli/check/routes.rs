//! Routes for packets: to the control plane, and to what programs call. A call without a route ends before any
//! rule is asked, and one to an address of this VM leaves by lo.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::control_plane::addresses;
use crate::config::ports;
use crate::control_plane::listed_addresses;
use crate::facts::{HostPort, Membership, NameTable};
use crate::host::blocking;
use crate::host::network::{ELSEWHERE, is_own, source_towards};
use crate::host::routes::Route;
use crate::part::{CheckContext, Finding, Level, Member, Question, Subject};

/// Less than a round, beside what the join source takes.
const RESOLVER_TIMEOUT: Duration = Duration::from_millis(2500);
/// Source of Envoy's calls to the application, by istiod's clusters, on a VM of IPv6 alone.
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);
const ROOT: u32 = 0;
const FIX: &str = "leave user 1337 out of the rule that sends users another way: `ip rule` and `ip -6 rule` list it, by its \
                   uidrange";
const ROUTES: Subject = Subject::new("IVA114", "routes");

pub(super) fn questions(context: &CheckContext) -> Vec<Question> {
    vec![Question::of_member(ROUTES, context, |member| async move {
        let targets = targets(&member).await;
        let is_routed = |target: SocketAddr| source_towards(target).is_ok();
        let to = |ip: IpAddr| is_routed((ip, 9).into());
        let services = member.membership.outbound.networks.as_ref();
        let found = match services.is_some_and(|networks| networks.iter().all(|network| to(network.addr()))) {
            // What else is called is none of the mesh's.
            true => judge(&targets, [true, true], to),
            false => judge(&targets, ELSEWHERE.map(|it| it.parse().is_ok_and(is_routed)), to),
        };
        let source = source6(&member.membership.instance_ips, is_own);
        let taken = blocking(move || {
            let names = member
                .site
                .host
                .name_table(&member.site.config.paths.names())?
                .unwrap_or_default();
            Ok(taken(&names, &member.membership, is_own))
        })
        .await;
        let envoys = of_envoy(&targets, Route::of);
        let amiss = [taken.ok().flatten(), loopback(is_own), source, envoys]
            .into_iter()
            .flatten();
        with(found, amiss.collect())
    })]
}

/// All findings; that all is well only where nothing else is found.
fn with(found: Finding, mut amiss: Vec<Finding>) -> Vec<Finding> {
    if amiss.is_empty() || found.level != Level::Ok {
        amiss.insert(0, found);
    }
    amiss
}

/// The finding about a lo that has less than its network: Envoy and probes call the application from another address of it.
fn loopback(is_own: impl Fn(IpAddr) -> bool) -> Option<Finding> {
    let wanted = ports::INBOUND_PASSTHROUGH;
    (!is_own(wanted.into())).then(|| {
        ROUTES.failed(
            format!("lo has no {wanted}, from which Envoy and the probe call the application"),
            "ip address add 127.0.0.1/8 dev lo, and so in the network's configuration",
        )
    })
}

/// The finding about a rule by which Envoy's packets go another way than root's, with whose eyes all else is looked at.
fn of_envoy(targets: &[IpAddr], route: impl Fn(u32, IpAddr) -> io::Result<Route>) -> Option<Finding> {
    let everywhere = ELSEWHERE.iter().filter_map(|it| it.parse::<SocketAddr>().ok());
    let mut all = targets.iter().copied().chain(everywhere.map(|it| it.ip()));
    all.find_map(|ip| {
        let root = route(ROOT, ip).ok()?;
        match route(ports::PROXY_UID, ip) {
            Err(error) => Some(ROUTES.failed(
                format!(
                    "packets of Envoy's user, {}, find no way to {ip} ({error}), and root's go {root}",
                    ports::PROXY_UID
                ),
                FIX,
            )),
            Ok(envoy) => (envoy != root).then(|| {
                ROUTES.warning(
                    format!(
                        "packets of Envoy's user, {}, to {ip} go {envoy}, and root's {root}",
                        ports::PROXY_UID
                    ),
                    format!("{FIX}, unless the mesh is meant to be reached that way"),
                )
            }),
        }
    })
}

/// The finding about a VM of IPv6 alone whose lo lacks the address that istiod's inbound clusters bind to there, as istio-iptables
/// gives it one.
fn source6(instance_ips: &[IpAddr], is_own: impl Fn(IpAddr) -> bool) -> Option<Finding> {
    let is_lacking = !instance_ips.is_empty() && instance_ips.iter().all(IpAddr::is_ipv6) && !is_own(SOURCE6.into());
    is_lacking.then(|| {
        ROUTES.failed(
            format!("lo has no {SOURCE6}, from which Envoy calls the application over IPv6: calls to this VM fail"),
            format!("ip -6 address add {SOURCE6}/128 dev lo, and so in the network's configuration"),
        )
    })
}

/// The name of the mesh whose address is one of this VM's, and not as the workload that it is.
fn taken(names: &NameTable, membership: &Membership, is_own: impl Fn(IpAddr) -> bool) -> Option<Finding> {
    let all = names
        .names
        .iter()
        .flat_map(|(name, info)| info.ips.iter().map(move |ip| (name, *ip)));
    let mut taken: Vec<_> = all
        .filter(|(_, ip)| !membership.instance_ips.contains(ip) && is_own(*ip))
        .collect();
    taken.sort_unstable();
    let (name, ip) = taken.first()?;
    let more = match taken.len() - 1 {
        0 => String::new(),
        more => format!(" (and so it is with {more} more)"),
    };
    Some(ROUTES.warning(
        format!("{ip} of {name} is an address of this VM{more}: calls to it leave by lo, and so past Envoy"),
        format!(
            "take it off (`ip -brief address | grep {ip}/` shows the interface); kube-proxy, which puts the addresses of \
             Services on kube-ipvs0, is not to run beside the agent"
        ),
    ))
}

/// The addresses of all control planes; what can't be resolved is told elsewhere.
async fn targets(Member { site, membership, .. }: &Member) -> Vec<IpAddr> {
    let mut targets = Vec::new();
    for address in addresses(&site.config, membership) {
        let listed = listed_addresses(membership, &address);
        match (listed.is_empty(), HostPort::parse(&address)) {
            (true, Ok(HostPort { host, port })) => {
                let found = timeout(RESOLVER_TIMEOUT, lookup_host((host, port))).await;
                targets.extend(found.into_iter().flatten().flatten().map(|it| it.ip()));
            }
            _ => targets.extend(listed),
        }
    }
    targets
}

/// `defaults`: whether there is a route to everywhere by IPv4, and by IPv6.
fn judge(targets: &[IpAddr], defaults: [bool; 2], is_routed: impl Fn(IpAddr) -> bool) -> Finding {
    const ADD: &str = "add a default route (`ip route add default via GATEWAY`), and to the network's configuration";
    let list = || targets.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let is_lost = !targets.is_empty() && !targets.iter().any(|ip| is_routed(*ip));
    let is_v4 = targets.iter().all(IpAddr::is_ipv4);
    match defaults {
        [false, true] if is_lost && is_v4 => ROUTES.failed(
            format!("this VM has routes of IPv6 alone, and istiod has the IPv4 address {}", list()),
            "give this VM an IPv4 address and a default route, or istiod's gateway an IPv6 address, which the bundle's hosts \
             file or control_plane.addresses names",
        ),
        _ if is_lost => ROUTES.failed(
            format!("no route leads to istiod at {} (`ip route get` says the same)", list()),
            ADD,
        ),
        [false, false] => ROUTES.warning(
            "there is no default route: programs that call a name of the mesh get \"Network is unreachable\" before the call \
             comes to Envoy, unless a route leads to the cluster's services",
            format!("{ADD}; or a route to the services' addresses alone, through the same gateway"),
        ),
        [false, true] => ROUTES.warning(
            "this VM has routes of IPv6 alone: names of the mesh that have IPv4 addresses can't be called from it, and Envoy \
             reaches no IPv4 address of a pod",
            "in a mesh of IPv6 alone that is enough; in any other give this VM an IPv4 address and a default route",
        ),
        [true, _] => ROUTES.ok("packets find a way to istiod and to what programs call"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::fixtures::membership;
    use crate::facts::NameInfo;

    #[test]
    fn all_is_well_only_where_nothing_else_is_found() {
        let well = || ROUTES.ok("well");
        assert_eq!(with(well(), Vec::new()), [well()]);
        assert_eq!(with(well(), vec![ROUTES.warning("a", "b")]), [ROUTES.warning("a", "b")]);
        assert_eq!(with(ROUTES.failed("c", "d"), vec![ROUTES.warning("a", "b")]).len(), 2);
    }

    #[test]
    fn lo_without_its_network_is_named() {
        assert_eq!(loopback(is_own), None);
        let found = loopback(|ip| ip.to_string() == "127.0.0.1").unwrap();
        assert!(
            found.level == Level::Failed && found.detail.contains("127.0.0.6"),
            "{found:?}"
        );
    }

    #[test]
    fn way_of_envoys_packets_that_is_not_roots_is_named() {
        let istiod = "10.0.0.2".parse().unwrap();
        let by_lo = || Route::of(ROOT, ports::INBOUND_PASSTHROUGH.into());
        let told = |envoys: fn() -> io::Result<Route>| {
            of_envoy(&[istiod], |uid, ip| match uid {
                ROOT => by_lo(),
                _ if ip == istiod => envoys(),
                _ => by_lo(),
            })
        };
        assert_eq!(told(|| Route::of(ROOT, ports::INBOUND_PASSTHROUGH.into())), None);
        let none = told(|| Err(io::ErrorKind::NetworkUnreachable.into())).unwrap();
        assert_eq!(none.level, Level::Failed);
        assert!(
            none.detail.contains("1337, find no way to 10.0.0.2") && none.detail.contains("root's go dev lo"),
            "{none:?}"
        );
        let other = told(|| Ok(Route::default())).unwrap();
        assert_eq!(other.level, Level::Warning);
        assert!(
            other.detail.contains("to 10.0.0.2 go dev nowhere, and root's dev lo"),
            "{other:?}"
        );
        assert_eq!(
            of_envoy(&[istiod], |_, _| Err(io::ErrorKind::NetworkUnreachable.into())),
            None
        );
    }

    #[test]
    fn vm_of_ipv6_alone_whose_lo_lacks_the_source_of_calls_to_the_application_is_named() {
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        let found = source6(&[v6], |ip| ip == v6).unwrap();
        assert!(
            found.level == Level::Failed && found.detail.contains("::6,"),
            "{found:?}"
        );
        let fix = found.fix.unwrap();
        assert!(fix.starts_with("ip -6 address add ::6/128 dev lo,"), "{fix}");
        assert_eq!(source6(&[v6], |ip| ip == SOURCE6), None);
        assert_eq!(source6(&[v4, v6], |_| false), None);
        assert_eq!(source6(&[], |_| false), None);
    }

    #[test]
    fn address_of_a_service_that_is_the_vms_is_named() {
        let name = |name: &str, ip: &str| {
            let ips = vec![ip.parse().unwrap()];
            (
                name.to_owned(),
                NameInfo {
                    ips,
                    ..NameInfo::default()
                },
            )
        };
        let membership = Membership {
            instance_ips: vec!["10.0.0.1".parse().unwrap()],
            ..membership()
        };
        let told = |own: &str| {
            let names = [name("cart", "10.96.0.1"), name("headless", "10.0.0.1")].into();
            taken(&NameTable { names }, &membership, |ip| ip.to_string() == own)
        };
        let found = told("10.96.0.1").unwrap();
        assert!(
            found.detail.starts_with("10.96.0.1 of cart is an address of this VM:"),
            "{found:?}"
        );
        assert_eq!((told("10.0.0.1"), told("10.96.0.2")), (None, None));
    }

    #[test]
    fn address_without_a_route_is_named_with_the_family_that_lacks_one() {
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        for (targets, defaults, routed, level, says) in [
            (vec![v4], [true, true], vec![v4], Level::Ok, "find a way"),
            (vec![v4, v6], [true, false], vec![v4], Level::Ok, "find a way"),
            (vec![], [true, false], vec![], Level::Ok, "find a way"),
            (
                vec![v4],
                [false, false],
                vec![],
                Level::Failed,
                "no route leads to istiod at 10.0.0.1",
            ),
            (
                vec![v4, v6],
                [false, true],
                vec![],
                Level::Failed,
                "at 10.0.0.1, fd00::1",
            ),
            (
                vec![v4],
                [false, true],
                vec![v6],
                Level::Failed,
                "IPv6 alone, and istiod has the IPv4 address 10.0.0.1",
            ),
            (
                vec![v6],
                [false, true],
                vec![v6],
                Level::Warning,
                "IPv6 alone: names of the mesh",
            ),
            (
                vec![v4],
                [false, false],
                vec![v4],
                Level::Warning,
                "there is no default route",
            ),
        ] {
            let found = judge(&targets, defaults, |ip| routed.contains(&ip));
            assert_eq!(found.level, level, "{found:?}");
            assert!(found.detail.contains(says), "{found:?}");
            assert_eq!(found.fix.is_some(), level != Level::Ok, "{found:?}");
        }
    }
}
