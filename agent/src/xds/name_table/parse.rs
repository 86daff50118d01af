//! istiod's name table out of a response, bounded before it is unfolded. Pure.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use istio_api::ads::{DeltaDiscoveryResponse, DiscoveryResponse};
use istio_api::frame::{Fields, Frame, XdsProtocol, count_parts};
use istio_api::nds::{self, NAME_TABLE};
use prost::Message;

use crate::facts::{NameInfo, NameTable};

/// Longest name table, in bytes: some 50,000 hosts.
pub(in crate::xds) const MAX_TABLE: usize = 16 << 20;
/// Most hosts and addresses of a name table: those of 50,000 hosts, some of them with an address for each pod.
const MAX_NAMES_AND_ADDRESSES: usize = 250_000;
/// Field number of the value in an entry of a map.
const MAP_VALUE: u32 = 2;
/// Field number of a host's addresses, the one of its particulars that is repeated.
const IPS: u32 = 1;

/// The name table in a response, when there is one.
pub(in crate::xds) fn parse(protocol: XdsProtocol, response: &Frame) -> Result<Option<NameTable>> {
    let bytes = response.0.clone();
    ensure!(bytes.len() <= MAX_TABLE, "it is longer than {MAX_TABLE} bytes");
    count_parts(&bytes)?;
    let resource = match protocol {
        XdsProtocol::Sotw => DiscoveryResponse::decode(bytes)?.resources.into_iter().next(),
        XdsProtocol::Delta => DeltaDiscoveryResponse::decode(bytes)?
            .resources
            .into_iter()
            .find_map(|resource| resource.resource),
    };
    let Some(any) = resource else { return Ok(None) };
    if any.type_url != NAME_TABLE {
        bail!("the resource is a {}, not a {NAME_TABLE}", any.type_url);
    }
    let table = bounded(&any.value).and_then(|()| Ok(nds::NameTable::decode(any.value)?));
    let table = table.context("the resource is no name table")?;
    Ok(Some(known(table)))
}

/// Fails when a table would take far more memory than its bytes: it is counted before it is unfolded. A host has an entry,
/// its entry has the host's particulars, and those have addresses.
fn bounded(table: &Bytes) -> Result<()> {
    let mut count = 0;
    for host in Fields(table.clone()) {
        count += 1;
        for particulars in Fields(host?.1) {
            // The other field of an entry is its name.
            if let (MAP_VALUE, particulars) = particulars? {
                count += addresses(particulars)?;
            }
        }
        ensure!(
            count <= MAX_NAMES_AND_ADDRESSES,
            "it has more than {MAX_NAMES_AND_ADDRESSES} names and addresses"
        );
    }
    Ok(())
}

fn addresses(particulars: Bytes) -> Result<usize> {
    let mut count = 0;
    for field in Fields(particulars) {
        count += usize::from(field?.0 == IPS);
    }
    Ok(count)
}

/// The hosts that have an address; a host without a good one is not known, and so asked of the VM's resolver.
fn known(table: nds::NameTable) -> NameTable {
    let mut names = HashMap::with_capacity(table.table.len());
    for (name, info) in table.table {
        let ips: Vec<_> = info.ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        if ips.is_empty() {
            tracing::debug!(name, ips = ?info.ips, "left a host without a good address out of the name table");
            continue;
        }
        let info = NameInfo {
            ips,
            registry: info.registry,
            shortname: info.shortname,
            namespace: info.namespace,
        };
        names.insert(name.trim_end_matches('.').to_lowercase(), info);
    }
    NameTable { names }
}

#[cfg(test)]
mod tests {
    use istio_api::ads::Resource;
    use istio_api::rpc;
    use proptest::prelude::*;

    use super::*;

    /// A response of a real istiod to a VM.
    const REAL: &[u8] = include_bytes!("../testdata/nds.pb");

    fn delta(type_url: &str, table: impl Message) -> Frame {
        Frame::of(&DeltaDiscoveryResponse {
            type_url: NAME_TABLE.to_owned(),
            resources: vec![Resource {
                resource: Some(rpc::Any {
                    type_url: type_url.to_owned(),
                    value: table.encode_to_vec().into(),
                }),
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    #[test]
    fn table_is_counted_before_it_is_unfolded() {
        let addresses = |count| nds::name_table::NameInfo {
            ips: vec![String::new(); count],
            ..Default::default()
        };
        let table = |hosts: usize, ips: usize| nds::NameTable {
            table: (0..hosts).map(|host| (host.to_string(), addresses(ips))).collect(),
        };
        let most = MAX_NAMES_AND_ADDRESSES;
        for crowd in [table(most + 1, 0), table(1, most), table(500, 500)] {
            let error = parse(XdsProtocol::Delta, &delta(NAME_TABLE, crowd)).unwrap_err();
            assert!(format!("{error:#}").contains("more than"), "{error:#}");
        }
        assert!(parse(XdsProtocol::Delta, &delta(NAME_TABLE, table(300, 100))).is_ok());
    }

    /// istiod tells four things of each.
    #[test]
    fn table_of_fifty_thousand_services_is_read() {
        let service = |index| {
            let info = nds::name_table::NameInfo {
                ips: vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()],
                registry: "Kubernetes".to_owned(),
                shortname: format!("service-{index}"),
                namespace: "shop".to_owned(),
            };
            (format!("service-{index}.shop.svc.cluster.local"), info)
        };
        let table = (0..50_000).map(service).collect();
        let table = parse(XdsProtocol::Delta, &delta(NAME_TABLE, nds::NameTable { table })).unwrap();
        assert_eq!(table.unwrap().names.len(), 50_000);
    }

    #[test]
    fn real_table_is_read() {
        let table = parse(XdsProtocol::Delta, &Frame(REAL.into())).unwrap().unwrap();
        assert!(table.names.len() > 3, "{table:?}");
        let (name, info) = table
            .names
            .iter()
            .find(|(_, info)| info.registry == "Kubernetes")
            .unwrap();
        assert!(
            name.starts_with(&format!("{}.{}.svc", info.shortname, info.namespace)),
            "{name}: {info:?}"
        );
    }

    #[test]
    fn names_are_folded_and_hosts_without_a_good_address_left_out() {
        let host = |ips: &[&str]| nds::name_table::NameInfo {
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            ..Default::default()
        };
        let table = HashMap::from([
            ("Shop.Example.".to_owned(), host(&["10.0.0.1", "nonsense", "fd00::1"])),
            ("empty".to_owned(), host(&[])),
            ("bad".to_owned(), host(&["10.0.0.256"])),
        ]);
        let table = parse(XdsProtocol::Delta, &delta(NAME_TABLE, nds::NameTable { table }))
            .unwrap()
            .unwrap();
        assert_eq!(table.names.keys().collect::<Vec<_>>(), ["shop.example"]);
        assert_eq!(table.names["shop.example"].ips.len(), 2);
    }

    #[test]
    fn table_of_another_type_or_of_nonsense_is_an_error_and_no_table_is_none() {
        let wrong = parse(XdsProtocol::Delta, &delta("x", nds::NameTable::default())).unwrap_err();
        assert_eq!(wrong.to_string(), format!("the resource is a x, not a {NAME_TABLE}"));
        let bad = delta(
            NAME_TABLE,
            rpc::Any {
                value: "\u{fffd}".into(),
                type_url: "\u{1}".to_owned(),
            },
        );
        assert!(parse(XdsProtocol::Delta, &bad).is_err());
        assert_eq!(parse(XdsProtocol::Delta, &Frame::default()).unwrap(), None);
        assert_eq!(parse(XdsProtocol::Sotw, &Frame::default()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn table_of_any_bytes_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let frame = Frame(bytes.into());
            let _ = parse(XdsProtocol::Delta, &frame);
            let _ = parse(XdsProtocol::Sotw, &frame);
        }
    }
}
