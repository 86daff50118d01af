//! The mesh's names, expanded as Kubernetes resolves them. Pure: no sockets, no clock.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, RecordType};

use crate::facts::{NameInfo, NameTable};

/// Name of the metadata server. Google Cloud's resolv.conf searches google.internal; a Service named `metadata` must not
/// take this name.
const NEVER_BY_SEARCH: &str = "metadata.google.internal";

/// Zones of the names that stand for addresses (RFC 1035, 3.5; RFC 3596, 2.5).
const REVERSE: [&str; 2] = [".in-addr.arpa", ".ip6.arpa"];

/// Names without their last dot, lower case.
#[derive(Debug, Default)]
pub(super) struct Table {
    hosts: HashMap<Arc<str>, Arc<Addresses>>,
    /// Addresses that only the mesh can name, each with one name.
    names: HashMap<IpAddr, Arc<str>>,
    /// Wildcards, by what follows the star: `.example.com`.
    wildcards: HashMap<String, Arc<Addresses>>,
}

/// The addresses of a name that are of the family asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lookup<'a> {
    V4(&'a [Ipv4Addr]),
    V6(&'a [Ipv6Addr]),
    /// The name of the address that was asked for.
    Name(&'a str),
    /// The name has no record of the type.
    Nothing,
}

impl Lookup<'_> {
    /// The addresses.
    pub(super) fn to_vec(self) -> Vec<IpAddr> {
        match self {
            Self::V4(addresses) => addresses.iter().copied().map(IpAddr::V4).collect(),
            Self::V6(addresses) => addresses.iter().copied().map(IpAddr::V6).collect(),
            Self::Name(_) | Self::Nothing => Vec::new(),
        }
    }

    /// Data of the answer's records.
    pub(super) fn records(self) -> Vec<RData> {
        match self {
            // No record has a name that is none.
            Self::Name(name) => {
                Name::from_ascii(format!("{name}.")).map_or_else(|_| Vec::new(), |name| vec![RData::PTR(PTR(name))])
            }
            addresses => addresses.to_vec().into_iter().map(RData::from).collect(),
        }
    }
}

#[derive(Debug, Default)]
struct Addresses {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    /// True when no other server knows the name, so that a record which we don't have doesn't exist.
    kubernetes: bool,
}

impl Table {
    /// Expands istiod's table for a workload of `namespace`. A name that istiod gives beats one that is only
    /// short for another.
    pub(super) fn new(names: &NameTable, namespace: &str) -> Self {
        let mut table = Self::default();
        let mut short = Vec::new();
        for (name, info) in &names.names {
            let addresses = Arc::new(Addresses::new(info));
            for name in short_names(name, info, namespace) {
                short.push((name, Arc::clone(&addresses)));
            }
            let name = name.to_ascii_lowercase();
            match name.strip_prefix('*') {
                Some(suffix) if suffix.starts_with('.') => {
                    table.wildcards.insert(suffix.to_owned(), addresses);
                }
                _ => {
                    let name: Arc<str> = name.into();
                    table.name_addresses(&name, info);
                    table.hosts.insert(name, addresses);
                }
            }
        }
        for (name, addresses) in short {
            table.hosts.entry(name.into()).or_insert(addresses);
        }
        table
    }

    /// The least of its names is an address's, so that it is the same each time.
    fn name_addresses(&mut self, name: &Arc<str>, info: &NameInfo) {
        for ip in info.ips.iter().filter(|ip| is_kubernetes(info) || is_automatic(**ip)) {
            let named = self.names.entry(*ip).or_insert_with(|| Arc::clone(name));
            if name < named {
                *named = Arc::clone(name);
            }
        }
    }

    /// The addresses of `name` (lower case, no last dot) of the family that `query` asks for, maybe none; `None` when
    /// another server must be asked. `search`: resolv.conf's search domains, which programs append.
    pub(super) fn lookup(&self, name: &str, query: RecordType, search: &[String]) -> Option<Lookup<'_>> {
        if query == RecordType::PTR && REVERSE.iter().any(|zone| name.ends_with(zone)) {
            return self.names.get(&address(name)?).map(|name| Lookup::Name(name));
        }
        let found = self.find(name).or_else(|| self.find_by_search(name, search))?;
        match query {
            RecordType::A => Some(Lookup::V4(&found.v4)),
            RecordType::AAAA => Some(Lookup::V6(&found.v6)),
            // A record of another type of a name that only the mesh knows: there is none. To ask upstream would
            // give NXDOMAIN, which some resolvers take for the A record's answer too.
            _ if found.kubernetes => Some(Lookup::Nothing),
            _ => None,
        }
    }

    /// The name itself, else the wildcard with the most labels.
    fn find(&self, name: &str) -> Option<&Addresses> {
        let by_wildcard = || {
            let mut suffixes = name.match_indices('.').filter_map(|(dot, _)| name.get(dot..));
            suffixes.find_map(|suffix| self.wildcards.get(suffix))
        };
        self.hosts.get(name).or_else(by_wildcard).map(AsRef::as_ref)
    }

    fn find_by_search(&self, name: &str, search: &[String]) -> Option<&Addresses> {
        if name == NEVER_BY_SEARCH {
            return None;
        }
        let mut hosts = search
            .iter()
            .filter_map(|domain| name.strip_suffix(domain.as_str())?.strip_suffix('.'));
        hosts.find_map(|host| self.hosts.get(host)).map(AsRef::as_ref)
    }
}

impl Addresses {
    fn new(info: &NameInfo) -> Self {
        let mut addresses = Self {
            kubernetes: is_kubernetes(info),
            ..Self::default()
        };
        for ip in &info.ips {
            match ip {
                IpAddr::V4(ip) => addresses.v4.push(*ip),
                IpAddr::V6(ip) => addresses.v6.push(*ip),
            }
        }
        addresses
    }
}

fn is_kubernetes(info: &NameInfo) -> bool {
    info.registry == "Kubernetes"
}

/// True for an address that istiod made up for a host that has none: 240.240.0.0/16, 2001:2::/48
/// (istio/pilot/pkg/serviceregistry/serviceentry, autoAllocateIPs).
fn is_automatic(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.octets().starts_with(&[240, 240]),
        IpAddr::V6(ip) => ip.segments().starts_with(&[0x2001, 2, 0]),
    }
}

/// The address that a name below in-addr.arpa or ip6.arpa stands for.
fn address(name: &str) -> Option<IpAddr> {
    let net = Name::from_ascii(format!("{name}.")).ok()?.parse_arpa_name().ok()?;
    // One of fewer labels is a network.
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// Names by which a pod may call a Kubernetes Service `short.ns.svc.<cluster domain>`.
fn short_names(name: &str, info: &NameInfo, namespace: &str) -> Vec<String> {
    let NameInfo {
        registry,
        shortname,
        namespace: own,
        ..
    } = info;
    let is_service = registry == "Kubernetes" && !shortname.is_empty() && !own.is_empty();
    if !is_service || !name.starts_with(&format!("{shortname}.{own}.svc.")) {
        return Vec::new();
    }
    let mut names = vec![format!("{shortname}.{own}"), format!("{shortname}.{own}.svc")];
    if own == namespace {
        names.push(shortname.clone());
    }
    names.iter().map(|name| name.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(registry: &str, short: &str, namespace: &str, ips: &[&str]) -> NameInfo {
        NameInfo {
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            registry: registry.to_owned(),
            shortname: short.to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    fn table() -> Table {
        let names = [
            (
                "cart.shop.svc.cluster.local",
                info("Kubernetes", "cart", "shop", &["10.96.0.1"]),
            ),
            (
                "dual.other.svc.cluster.local",
                info("Kubernetes", "dual", "other", &["10.96.0.2", "fd00::2"]),
            ),
            (
                "metadata.shop.svc.cluster.local",
                info("Kubernetes", "metadata", "shop", &["10.96.0.3"]),
            ),
            ("cart.other", info("External", "", "", &["10.96.0.4"])),
            (
                "cart.other.svc.cluster.local",
                info("Kubernetes", "cart", "other", &["10.96.0.5"]),
            ),
            ("b.example.org", info("External", "", "", &["240.240.0.9"])),
            ("a.example.org", info("External", "", "", &["240.240.0.9"])),
            ("*.example.com", info("External", "", "", &["10.96.0.6"])),
            ("*.deep.example.com", info("External", "", "", &["10.96.0.7"])),
        ];
        let names = names.map(|(name, info)| (name.to_owned(), info)).into();
        Table::new(&NameTable { names }, "shop")
    }

    /// Addresses as text, `upstream` when the table doesn't know.
    fn ask(name: &str, query: RecordType) -> String {
        let search = ["c.proj.internal".to_owned(), "google.internal".to_owned()];
        match table().lookup(&name.to_ascii_lowercase(), query, &search) {
            None => "upstream".to_owned(),
            Some(found) => found
                .records()
                .iter()
                .map(RData::to_string)
                .collect::<Vec<_>>()
                .join(","),
        }
    }

    #[test]
    fn names_are_found_as_in_a_pod() {
        let cases = [
            ("cart.shop.svc.cluster.local", "10.96.0.1"),
            ("Cart.Shop.svc", "10.96.0.1"),
            ("cart.shop", "10.96.0.1"),
            ("cart", "10.96.0.1"),
            ("dual.other", "10.96.0.2"),
            ("dual", "upstream"),
            ("cart.other", "10.96.0.4"),
            ("cart.other.svc", "10.96.0.5"),
            ("a.example.com", "10.96.0.6"),
            ("a.b.example.com", "10.96.0.6"),
            ("a.deep.example.com", "10.96.0.7"),
            ("deep.example.com", "10.96.0.6"),
            ("example.com", "upstream"),
            ("", "upstream"),
        ];
        for (name, wanted) in cases {
            assert_eq!(ask(name, RecordType::A), wanted, "{name}");
        }
    }

    #[test]
    fn search_domains_are_taken_off_but_never_to_shadow_the_metadata_server() {
        let cases = [
            ("cart.c.proj.internal", "10.96.0.1"),
            ("cart.shop.google.internal", "10.96.0.1"),
            ("metadata.c.proj.internal", "10.96.0.3"),
            ("metadata.google.internal", "upstream"),
            ("a.example.com.c.proj.internal", "upstream"),
            ("c.proj.internal", "upstream"),
            ("cartc.proj.internal", "upstream"),
        ];
        for (name, wanted) in cases {
            assert_eq!(ask(name, RecordType::A), wanted, "{name}");
        }
    }

    #[test]
    fn known_name_without_the_asked_record_is_empty_where_only_the_mesh_knows_it() {
        assert_eq!(ask("dual.other", RecordType::AAAA), "fd00::2");
        assert_eq!(ask("cart", RecordType::AAAA), "");
        assert_eq!(ask("cart", RecordType::HTTPS), "");
        assert_eq!(ask("a.example.com", RecordType::AAAA), "");
        assert_eq!(ask("a.example.com", RecordType::MX), "upstream");
    }

    #[test]
    fn addresses_that_only_the_mesh_can_name_have_one_name() {
        for (name, wanted) in [
            ("1.0.96.10.in-addr.arpa", "cart.shop.svc.cluster.local."),
            (
                "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
                "dual.other.svc.cluster.local.",
            ),
            ("4.0.96.10.in-addr.arpa", "upstream"),
            ("9.0.240.240.in-addr.arpa", "a.example.org."),
            ("96.10.in-addr.arpa", "upstream"),
            ("x.0.96.10.in-addr.arpa", "upstream"),
            ("1.1.0.96.10.in-addr.arpa", "upstream"),
            (".in-addr.arpa", "upstream"),
        ] {
            assert_eq!(ask(name, RecordType::PTR), wanted, "{name}");
        }
        assert_eq!(ask("1.0.96.10.in-addr.arpa", RecordType::A), "upstream");
        assert_eq!(ask("cart.shop", RecordType::PTR), "");
    }
}
