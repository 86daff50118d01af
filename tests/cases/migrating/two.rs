//! The same on two real control planes: callers in both clusters call while it happens.

mod dying;
mod other_cluster;
mod pods;
mod story;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::network::Host;
use e2e::real::{Networks, Pair};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;

use super::desk::Desk;
use super::world::ACCOUNT;
use crate::real_only;

/// Service that callers name, and the pods' own.
const SERVICE: &str = "productcatalogservice";
const PODS_SERVICE: &str = "productcatalogservice-gke";

pub(super) fn trials() -> Vec<Trial> {
    let story = |name: &str, form, networks| {
        let name = format!("real istiod: migration: no call is lost from apply to retire: {name}");
        real_only(&name, move || story::told(form, networks))
    };
    let other = |name: &str, way| {
        let name = format!("real istiod: pods of another cluster call the VM {name}");
        real_only(&name, move || other_cluster::calls(way))
    };
    vec![
        story("a Service of the pods, two networks", Form::Hosts, Networks::Two),
        story("a Service of the pods, one network", Form::Hosts, Networks::One),
        story("subsets, two networks", Form::Subsets, Networks::Two),
        story("subsets, one network", Form::Subsets, Networks::One),
        story("a GRPCRoute, two networks", Form::GrpcRoute, Networks::Two),
        story("an HTTPRoute, one network", Form::HttpRoute, Networks::One),
        story("connections, two networks", Form::Connections, Networks::Two),
        real_only(
            "real istiod: migration: no call is lost by what dies beside the pods",
            dying::lose_nothing,
        ),
        real_only(
            "real istiod: migration: bad pods lose their calls for seconds",
            pods::bad,
        ),
        other("as its istiod knows it", other_cluster::Way::RemoteSecret),
        other("by its address", other_cluster::Way::Address),
        other("through the gateway", other_cluster::Way::Gateway),
    ]
}

/// Way in which VM and pods are told apart, and kind of the object that splits their calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Hosts,
    Subsets,
    GrpcRoute,
    HttpRoute,
    /// Hosts, by routes of TCP.
    Connections,
}

/// Two clusters, and a workstation outside of the mesh.
struct Two {
    form: Form,
    pair: Pair,
}

impl Two {
    /// The VM serves all calls; the pod of the second cluster is behind no Service that is called.
    fn start(form: Form, networks: Networks) -> Result<Self> {
        let app = if form == Form::Subsets { SERVICE } else { PODS_SERVICE };
        let pair = Pair::start(networks, app, true)?;
        for cluster in &pair.clusters {
            cluster.cluster.apply(ACCOUNT)?;
        }
        let two = Self { form, pair };
        if form == Form::Connections {
            two.apply_service(0, SERVICE)?;
            two.apply_service(1, SERVICE)?;
        }
        if form != Form::Subsets {
            two.apply_service(1, PODS_SERVICE)?;
            two.pair.serve_pod_as(PODS_SERVICE)?;
        }
        two.write_file("", "")?;
        two.with_pods_service_everywhere()
    }

    /// With a route of the Gateway API each cluster needs the pods' Service, whatever the others have.
    fn with_pods_service_everywhere(self) -> Result<Self> {
        if matches!(self.form, Form::GrpcRoute | Form::HttpRoute) {
            let words = format!("Kubernetes: forbids the migration: there is no Service onlineboutique/{PODS_SERVICE}");
            self.desk().refused(&["apply"], &words)?;
            self.apply_service(0, PODS_SERVICE)?;
        }
        Ok(self)
    }

    /// Makes a Service of that name, which selects the pods of that label.
    fn apply_service(&self, at: usize, name: &str) -> Result<()> {
        let protocol = if self.form == Form::Connections { "tcp" } else { "grpc" };
        self.pair.clusters[at].cluster.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: onlineboutique}},
              spec: {{ports: [{{name: grpc, appProtocol: {protocol}, port: 3550}}], selector: {{app: {name}}}}}}}"
        ))
    }

    fn desk(&self) -> Desk<'_> {
        let [one, two] = &self.pair.clusters;
        Desk {
            network: &self.pair.network,
            host: Host::Outside,
            clusters: [&one.cluster, &two.cluster],
        }
    }

    /// Writes the migration's file; `of_each` is for each cluster's table, with its caller's address for `HOST`.
    fn write_file(&self, more: &str, of_each: &str) -> Result<()> {
        let label = |at: usize| {
            let id = self.pair.clusters[at].id();
            format!("labels = {{ 'topology.istio.io/cluster' = '{id}' }}")
        };
        let (vm, pods) = match self.form {
            Form::Subsets => (format!(", {}", label(0)), label(1)),
            _ => (String::new(), format!("service = '{PODS_SERVICE}'")),
        };
        let split = match self.form {
            Form::Hosts | Form::Subsets => "",
            Form::GrpcRoute => "gateway_route = { kind = 'GRPCRoute', port = 3550 }",
            Form::HttpRoute => "gateway_route = { kind = 'HTTPRoute', port = 3550 }",
            Form::Connections => "protocol = 'tcp'",
        };
        let mut text = format!(
            "namespace = 'onlineboutique'\nservice = '{SERVICE}'\n\
             vm = {{ workload_group = 'productcatalog'{vm} }}\npods = {{ {pods} }}\n{split}\n{more}\n"
        );
        for (cluster, caller) in self.pair.clusters.iter().zip([Host::Pod, Host::SecondPod]) {
            text += &format!(
                "[[clusters]]\nname = '{}'\nkubeconfig = '{}'\nistiod = '{}'\n{}\n",
                cluster.id(),
                cluster.cluster.kubeconfig("admin")?.display(),
                cluster.istiod(),
                of_each.replace("HOST", &caller.ipv4().to_string())
            );
        }
        fs::write(self.desk().file(), text).map_err(Into::into)
    }

    /// Of at least `count` calls from each cluster, those that go to the pods, in percent.
    fn shares(&self, count: u64) -> Result<[f64; 2]> {
        let before = [self.sent(0)?, self.sent(1)?];
        let share = |at: usize| {
            // At 100 a second, or more.
            let patience = PATIENCE + Duration::from_secs(count / 100);
            eventually(format!("{count} calls from cluster {at}"), patience, || {
                let after = self.sent(at)?;
                let made = [0, 1].map(|side| after[side].saturating_sub(before[at][side]));
                ensure!(made[0] + made[1] >= count, "so far {made:?}");
                Ok(made[1] as f64 * 100.0 / (made[0] + made[1]) as f64)
            })
        };
        Ok([share(0)?, share(1)?])
    }

    /// Waits until the pods' parts of some calls, in percent, are as they should be.
    fn expect(&self, what: &str, are_so: impl Fn([f64; 2]) -> bool) -> Result<()> {
        eventually(what, PATIENCE, || {
            let shares = self.shares(400)?;
            ensure!(are_so(shares), "the pods get {shares:?}");
            Ok(())
        })
    }

    /// The calls that a cluster's caller has sent to VM and pods.
    fn sent(&self, at: usize) -> Result<[u64; 2]> {
        let of = |subset: &str, service: &str| {
            let host = format!("{service}.onlineboutique.svc.cluster.local");
            self.pair.callers[at].sent(&self.pair.network, subset, &host)
        };
        match self.form {
            Form::Subsets => Ok([of("vm", SERVICE)?, of("pods", SERVICE)?]),
            _ => Ok([of("", SERVICE)?, of("", PODS_SERVICE)?]),
        }
    }

    /// Waits until callers of both clusters have both sides.
    fn wait_for_both_sides(&self) -> Result<()> {
        eventually("both sides in both clusters", PATIENCE, || {
            self.desk().done(&["verify"]).map(drop)
        })
        .context("a side is not reached")
    }
}
