//! The migration's file as text, with what was found and what is to be said beside each key.

use std::fmt::Write as _;

use anyhow::Result;

use super::Subject;
use super::found::Found;
use super::vm::Vm;
use crate::migration::Protocol;
use crate::objects::GRPC_ROUTES;

/// The keys of `run` that have defaults, for people to change.
const REST: &str = "
# Steps of `run`, in percent of the calls that pods get, and the time for which the gate must hold in each.
[run]
steps = [1, 5, 20, 50, 100]
hold = \"5m\"

# What the pods must show in each step, beside what the VM shows at the same time.
[gate]
metrics = \"istio\"         # or \"envoy\", where the proxies are not Istio's
success = 0.999           # least part of the pods' calls that succeed, by gRPC's status
worse_than_vm = 0.001     # the most that the pods may succeed less than the VM
# p99 = \"300ms\"           # the longest 99th percentile of the pods
p99_ratio = 1.5           # the most that it may be of the VM's,
p99_slack = \"50ms\"        # once it is longer by this
min_requests = 200        # fewer in a window are no verdict
window = \"1m\"
on_failure = \"return\"     # all calls to the VM again; or \"stay\"
";

pub(super) fn file(subject: &Subject, clusters: &[Found], vm: &Vm) -> Result<String> {
    let Subject {
        namespace,
        workload_group,
        service,
        protocol,
        pods_service,
    } = subject;
    let registered: Vec<&str> = clusters
        .iter()
        .flat_map(|it| it.registered.iter().map(String::as_str))
        .collect();
    let registered = match registered.as_slice() {
        [] => "no VM has registered yet".to_owned(),
        names => format!("registered: {}", names.join(", ")),
    };
    let mut text = String::new();
    writeln!(
        text,
        "# The calls of {namespace}/{service} move from the VM to pods; docs/migrate.md has each key."
    )?;
    writeln!(text, "namespace = {}", quoted(namespace.as_str()))?;
    writeln!(text, "service = {}", quoted(service.as_str()))?;
    text.push_str(match protocol {
        Protocol::Http => "# Calls of HTTP and gRPC; \"tcp\" where each port of the Service is that.\nprotocol = \"http\"\n",
        Protocol::Tcp => "# Connections: each port of the Service says tcp. `run` can't judge them: `shift` moves them.\nprotocol = \"tcp\"\n",
    });
    if let Some(domain) = vm.cluster_domain() {
        writeln!(text, "cluster_domain = {}", quoted(domain.as_str()))?;
    }
    writeln!(text, "# {}", one_line(&registered))?;
    writeln!(text, "vm = {{ workload_group = {} }}", quoted(workload_group.as_str()))?;
    writeln!(
        text,
        "# A Service of the pods' own; `istio-vm-ctl init --pod` prints it with their Deployment."
    )?;
    writeln!(text, "pods = {{ service = {} }}", quoted(pods_service.as_str()))?;
    let is_judged = *protocol == Protocol::Http;
    if is_judged {
        gateway_route(&mut text, subject, clusters)?;
    }
    for found in clusters {
        cluster(&mut text, found)?;
        if is_judged {
            text.push_str("# `run` is judged by it.\n# prometheus = \"http://127.0.0.1:9090\"\n");
        }
    }
    if is_judged {
        text.push_str(REST);
    }
    Ok(text)
}

/// A route of the Gateway API beats any VirtualService, and whoever has some has the split as one.
fn gateway_route(text: &mut String, subject: &Subject, clusters: &[Found]) -> Result<()> {
    let Some(kind) = clusters.iter().find_map(|found| found.gateway_routes) else {
        return Ok(());
    };
    let kind = if kind == GRPC_ROUTES { "GRPCRoute" } else { "HTTPRoute" };
    let services = clusters.iter().map(|found| found.ports(&subject.service));
    let ports = services.max_by_key(Vec::len).unwrap_or_default();
    writeln!(
        text,
        "# The namespace has routes of the Gateway API for Services, and so the split is one; the port is that of both Services."
    )?;
    match ports.as_slice() {
        [port] => writeln!(text, "gateway_route = {{ kind = \"{kind}\", port = {port} }}")?,
        several => {
            writeln!(
                text,
                "# Such a route sends all calls to one port, and {} has {}.",
                subject.service,
                several.len()
            )?;
            writeln!(text, "# gateway_route = {{ kind = \"{kind}\", port = 80 }}")?;
        }
    }
    Ok(())
}

fn cluster(text: &mut String, found: &Found) -> Result<()> {
    let entry = &found.entry;
    text.push_str("\n[[clusters]]\n");
    for unread in &found.unread {
        writeln!(text, "# Not read: {}", one_line(unread))?;
    }
    match &found.id {
        Some(id) => writeln!(text, "name = {}", quoted(id))?,
        None => {
            writeln!(
                text,
                "# The cluster's id in the mesh (global.multiCluster.clusterName) was not found: correct it."
            )?;
            writeln!(text, "name = {}", quoted(entry.name.as_str()))?;
        }
    }
    if let Some(context) = &entry.context {
        writeln!(text, "context = {}", quoted(context.as_str()))?;
    }
    if let Some(kubeconfig) = &entry.kubeconfig {
        writeln!(text, "kubeconfig = {}", quoted(&kubeconfig.display().to_string()))?;
    }
    match (&found.network, &found.gateway) {
        (Some(network), Some((address, _))) => {
            writeln!(
                text,
                "# Network {}, whose gateway is {}.",
                one_line(network),
                one_line(address)
            )?;
        }
        (Some(network), None) => writeln!(
            text,
            "# Network {}, with no gateway that has an address: from other networks nothing gets here.",
            one_line(network)
        )?,
        (None, _) => {}
    }
    match found.istiod() {
        Some(istiod) => writeln!(text, "istiod = {}", quoted(&istiod))?,
        None => {
            writeln!(
                text,
                "# Where istiod is reached from here, so that proxies can be asked after; else `settle` is waited."
            )?;
            writeln!(text, "# istiod = \"10.0.1.10:15012\"")?;
        }
    }
    writeln!(text, "# Further namespaces with callers.")?;
    writeln!(text, "# callers = [\"checkout\"]")?;
    Ok(())
}

/// A string as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// `text` as it can stand in a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::init::name;
    use crate::migration::GatewayRouteKind;
    use crate::migration::tests::{HOSTS, migration};

    fn written(protocol: Protocol) -> String {
        let subject = Subject {
            namespace: name("boutique").unwrap(),
            workload_group: name("catalog").unwrap(),
            service: name("catalog").unwrap(),
            protocol,
            pods_service: name("catalog-pods").unwrap(),
        };
        let found = |id: &str, gateway| Found {
            entry: migration(HOSTS).clusters[0].clone(),
            id: Some(id.to_owned()),
            network: Some("network1\"\n".to_owned()),
            gateway,
            group: None,
            services: vec![json!({ "metadata": { "name": "catalog" }, "spec": { "ports": [{ "port": 3550 }] } })],
            gateway_routes: Some(GRPC_ROUTES),
            registered: vec!["catalog-10.0.0.1".to_owned()],
            unread: vec!["failed\nto list".to_owned()],
        };
        let clusters = [found("one", Some(("10.0.0.2".to_owned(), true))), found("two", None)];
        file(&subject, &clusters, &Vm::default()).unwrap()
    }

    #[test]
    fn file_is_read_with_the_defaults_that_it_shows() {
        let read = migration(&written(Protocol::Http));
        let default = migration(HOSTS);
        assert_eq!(read.protocol, default.protocol);
        let route = read.gateway_route.as_ref().unwrap();
        assert_eq!((route.kind, route.port.get()), (GatewayRouteKind::Grpc, 3550));
        assert_eq!(read.clusters[0].istiod.as_ref().unwrap().as_str(), "10.0.0.2:15012");
        assert_eq!(read.clusters[1].name.as_str(), "two");
        assert_eq!(read.pods_host(), default.pods_host());
        assert_eq!(
            format!("{:?} {:?}", read.run, read.gate),
            format!("{:?} {:?}", default.run, default.gate)
        );
    }

    #[test]
    fn file_of_connections_has_nothing_of_run() {
        let text = written(Protocol::Tcp);
        assert_eq!(migration(&text).protocol, Protocol::Tcp);
        assert!(!text.contains("[run]") && !text.contains("prometheus"), "{text}");
    }
}
