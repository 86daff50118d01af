//! The tables are istioctl's own of the same documents: `istioctl proxy-config … --file` (1.30), less blanks at the ends
//! of lines. The documents are of a VM in a mesh of a real istiod, less tracing and access logs.

use std::time::{Duration, UNIX_EPOCH};

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::cli::bugreport;

const DUMP: &str = include_str!("../../../tests/golden/proxy/config_dump.json");
const CLUSTERS: &str = include_str!("../../../tests/golden/proxy/clusters.json");

fn dump() -> Dump {
    Dump::parse(DUMP).unwrap()
}

fn statuses() -> Vec<Value> {
    let document: Value = serde_json::from_str(CLUSTERS).unwrap();
    document["cluster_statuses"].as_array().unwrap().clone()
}

#[derive(Parser)]
struct Of<T: Args> {
    #[command(flatten)]
    filter: T,
}

fn filter<T: Args>(arguments: &[&str]) -> T {
    let arguments = ["x"].iter().chain(arguments);
    Of::parse_from(arguments).filter
}

#[test]
fn tables_are_those_of_istioctl() {
    let dump = dump();
    let now = UNIX_EPOCH + Duration::from_secs(1_795_720_000);
    for (table, of_istioctl) in [
        (
            clusters::Filter::default().table(&dump),
            include_str!("../../../tests/golden/proxy/clusters.txt"),
        ),
        (
            listeners::Filter::default().table(&dump),
            include_str!("../../../tests/golden/proxy/listeners.txt"),
        ),
        (
            routes::Filter::default().table(&dump),
            include_str!("../../../tests/golden/proxy/routes.txt"),
        ),
        (
            endpoints::Filter::default().table(&statuses()),
            include_str!("../../../tests/golden/proxy/endpoints.txt"),
        ),
        (
            secrets::table_at(&dump, now),
            include_str!("../../../tests/golden/proxy/secrets.txt"),
        ),
    ] {
        expect_same(&table, of_istioctl);
    }
}

/// Whoever gets a bug report sees Envoy's side as on the VM.
#[test]
fn tables_of_a_report_s_dump_are_those_of_istioctl_too() {
    let dump = Dump::parse(&bugreport::dump(DUMP).unwrap()).unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(1_795_720_000);
    for (table, of_istioctl) in [
        (
            clusters::Filter::default().table(&dump),
            include_str!("../../../tests/golden/proxy/clusters.txt"),
        ),
        (
            listeners::Filter::default().table(&dump),
            include_str!("../../../tests/golden/proxy/listeners.txt"),
        ),
        (
            routes::Filter::default().table(&dump),
            include_str!("../../../tests/golden/proxy/routes.txt"),
        ),
        (
            secrets::table_at(&dump, now),
            include_str!("../../../tests/golden/proxy/secrets.txt"),
        ),
    ] {
        expect_same(&table, of_istioctl);
    }
}

fn expect_same(table: &str, of_istioctl: &str) {
    let difference = crate::host::change::diff(of_istioctl, table, "table");
    assert!(table == of_istioctl, "{difference}");
}

#[test]
fn filters_choose_as_those_of_istioctl() {
    let dump = dump();
    let rows = |table: String| table.lines().count() - 1;
    let clusters = |arguments: &[&str]| rows(filter::<clusters::Filter>(arguments).table(&dump));
    assert_eq!(clusters(&["--fqdn", "cartservice"]), 1);
    assert_eq!(clusters(&["--direction", "outbound"]), 4);
    assert_eq!(clusters(&["--port", "3550", "--direction", "inbound"]), 1);
    let listeners = |arguments: &[&str]| rows(filter::<listeners::Filter>(arguments).table(&dump));
    assert_eq!(listeners(&["--port", "7070"]), 2);
    assert_eq!(listeners(&["--address", "::", "--type", "http+tcp"]), 4);
    let routes = |arguments: &[&str]| rows(filter::<routes::Filter>(arguments).table(&dump));
    assert_eq!(routes(&["--name", "7070"]), 1);
    let endpoints = |arguments: &[&str]| rows(filter::<endpoints::Filter>(arguments).table(&statuses()));
    assert_eq!(endpoints(&["--port", "7070"]), 1);
    assert_eq!(endpoints(&["--address", "10.200.0.3", "--status", "healthy"]), 2);
    assert_eq!(endpoints(&["--status", "unhealthy"]), 0);
}

#[test]
fn json_is_envoy_s_own_and_of_what_is_chosen() {
    let text = filter::<clusters::Filter>(&["--fqdn", "cartservice"])
        .shown(&dump(), Output::Json)
        .unwrap();
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["eds_cluster_config"]["service_name"], all[0]["name"]);
}

#[test]
fn yaml_is_the_json_s_document() {
    let json = filter::<clusters::Filter>(&["--fqdn", "cartservice"])
        .shown(&dump(), Output::Json)
        .unwrap();
    let written = yaml(&json).unwrap();
    let read: Value = serde_saphyr::from_str(&written).unwrap();
    assert_eq!(read, serde_json::from_str::<Value>(&json).unwrap());
    assert_eq!(yaml("admin: info\n  http: [x").unwrap(), "admin: info\n  http: [x");
}

#[test]
fn query_is_escaped() {
    assert_eq!(escaped("^server\\.state$ &x"), "%5Eserver%5C.state%24%20%26x");
}
