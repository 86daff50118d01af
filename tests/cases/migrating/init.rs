//! `init`: a file that `plan` takes as it is, and pods that a real API server takes.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::world::{KUBECONFIG, World, documents};

/// The VM's configuration, beside the migration's file.
pub(super) const VM: &str = "productcatalog.toml";

const CONFIGURATION: &str = "
join.kubernetes = { kubeconfig = '/k', namespace = 'onlineboutique', workload_group = 'productcatalog' }
[workload.container]
name = 'productcatalogservice'
image = 'registry.example/productcatalogservice@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'
registry_config = '/etc/registry.json'
ports = ['3550:3550']
env = { DISABLE_PROFILER = '1', RATE = '$(NONE)' }
env_files = ['/etc/productcatalog.env']
secrets = ['/etc/productcatalog/db-password']
mounts = ['/srv/data:/data:ro']
tmpfs = ['/tmp']
command = ['/src/server', '--port=3550']
user = '1000:1000'
read_only = true
cap_add = ['NET_BIND_SERVICE']
memory = '512m'
cpus = 1.5
stop_timeout = '40s'
[health.probe]
grpc = { port = 3550 }
period = '5s'
";

/// Makes an operator's files: a kubeconfig with a context for each cluster, and the VM's configuration.
pub(super) fn prepare(world: &World) -> Result<()> {
    let mut merged = Value::Null;
    for (cluster, name) in world.clusters.iter().zip(["gke-one", "gke-two"]) {
        let mut one: Value = serde_json::from_slice(&fs::read(cluster.kubeconfig("admin")?)?)?;
        for list in ["clusters", "users", "contexts"] {
            one[list][0]["name"] = name.into();
        }
        one["contexts"][0]["context"] = serde_json::json!({ "cluster": name, "user": name });
        one["current-context"] = name.into();
        match &mut merged {
            Value::Null => merged = one,
            merged => {
                for list in ["clusters", "users", "contexts"] {
                    let more = one[list][0].take();
                    merged[list].as_array_mut().context("no list")?.push(more);
                }
            }
        }
    }
    world.clusters[1].apply(
        r#"{apiVersion: v1, kind: ConfigMap, metadata: {name: istio-sidecar-injector, namespace: istio-system},
            data: {values: '{"global": {"multiCluster": {"clusterName": "two"}, "network": "network2"}}'}}"#,
    )?;
    fs::write(world.network.folder().join(VM), CONFIGURATION)?;
    fs::write(world.network.folder().join(KUBECONFIG), merged.to_string())?;
    Ok(())
}

pub(super) fn written_and_printed() -> Result<()> {
    let world = World::start()?;
    prepare(&world)?;
    let init = ["init", "--vm", VM, "--context", "gke-one", "--context", "gke-two"];
    world.refused(&init, "one that is there stays as it is")?;
    fs::remove_file(world.file())?;
    let own = [&init[..], &["--pods-service", "productcatalogservice-gke"]].concat();
    world.done(&own)?;
    let text = fs::read_to_string(world.file())?;
    for words in [
        "name = \"Kubernetes\"\ncontext = \"gke-one\"",
        "istiod = \"10.200.0.2:15012\"",
        "# registered: productcatalog-10.200.0.3",
        "name = \"two\"",
        "# Network network2",
    ] {
        ensure!(text.contains(words), "{words:?} is not in\n{text}");
    }
    world.done(&["plan"])?;

    let printed = world.done(&[&own[..], &["--pod"]].concat())?;
    let is_note = |line: &&str| line.starts_with("istio-vm-ctl: ");
    let (notes, yaml): (Vec<&str>, Vec<&str>) = printed.lines().partition(is_note);
    ensure!(notes.len() == 4, "{notes:?}");
    let yaml = yaml.join("\n");
    world.clusters[1].check(&yaml)?;
    world.clusters[1].apply(&yaml)?;
    let deployment =
        world.clusters[1].get("/apis/apps/v1/namespaces/onlineboutique/deployments/productcatalogservice-gke")?;
    let last = documents(&yaml)?.pop().context("nothing was printed")?;
    let of = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    ensure!(of(&deployment) == of(&last), "{deployment}");
    Ok(())
}
