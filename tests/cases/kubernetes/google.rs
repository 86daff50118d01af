//! An instance template alone: the configuration is in the instance's metadata, the cluster is known by its name, and
//! the VM is its Google service account.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::google::Google;
use e2e::kubernetes::GOOGLE_SERVICE_ACCOUNT;
use e2e::network::{Host, Network};

use super::world::World;

const CLUSTER: &str = "projects/boutique/locations/europe-west1/clusters/mesh";
const JOIN: &str = "[join.gke]\nproject = \"boutique\"\nlocation = \"europe-west1\"\ncluster = \"mesh\"\n\
                    namespace = \"onlineboutique\"\nworkload_group = \"productcatalog\"\n";
/// Beginning of the access token, which no log may have.
const SECRET: &str = "token-of-";

/// From an installation that was told nothing to a boot without Google; each thing that is wrong on the way is named.
pub(super) fn with_a_whole_configuration() -> Result<()> {
    let mut world = World::start()?;
    let google = start(&world)?;
    let text = world.vm.rely_on_the_instance(google.ca_file())?;
    let (_, rest) = text
        .split_once("[network]")
        .context("the configuration has another shape")?;

    let unit = ["run", "--envoy-unit", "istio-vm-agent-envoy@.service"];
    expect(&world, &unit, 69, "There is no configuration yet")?;
    expect(
        &world,
        &["check"],
        78,
        "has no istio-vm-agent-config or -cluster either",
    )?;
    google.set_attribute(
        "istio-vm-agent-config",
        &format!("{JOIN}endpiont = \"dns\"\n[network]{rest}"),
    );
    expect(&world, &unit, 78, "istio-vm-agent-config:7:1: join.gke.endpiont: ")?;
    google.set_attribute("istio-vm-agent-config", &format!("{JOIN}[network]{rest}"));
    world.expect_said(&[
        "failed to find",
        CLUSTER,
        "(403",
        "--role roles/container.clusterViewer",
    ])?;
    tell_of_the_cluster(&world, &google);

    let mut agent = world.join()?;
    world.expect_calls()?;
    ensure!(!agent.output().contains(SECRET), "the log has the access token");
    expect_no_secret_in(&world.vm.state_folder())?;
    let port = ["manifests", "--port", "grpc:3550"];
    expect(&world, &port, 0, "name: productcatalog\n  namespace: onlineboutique")?;
    agent.stop()?;

    // A boot without Google and without the cluster's API server: what was kept serves.
    drop(google);
    world.cluster.kill()?;
    expect(&world, &["status"], 1, "not running")?;
    let mut agent = world.join()?;
    world.expect_calls()?;
    agent.stop()
}

/// Three attributes, and all else as it is by default.
pub(super) fn with_single_attributes() -> Result<()> {
    let mut world = World::start()?;
    let google = start(&world)?;
    world.vm.rely_on_the_instance(google.ca_file())?;
    world.vm.keep_to_the_default_places()?;
    tell_of_the_cluster(&world, &google);

    google.set_attribute("istio-vm-agent-cluster", "mesh");
    google.set_attribute("istio-vm-agent-namespace", "onlineboutique");
    expect(
        &world,
        &["check"],
        78,
        "istio-vm-agent-workload-group: is missing, beside",
    )?;
    google.set_attribute("istio-vm-agent-workload-group", "productcatalog");
    let mut agent = world.join()?;
    world.expect_calls()?;
    ensure!(!agent.output().contains(SECRET), "the log has the access token");
    agent.stop()
}

fn start(world: &World) -> Result<Google> {
    Google::start(
        &world.network,
        world.vm.etc(),
        &world.cluster.token(GOOGLE_SERVICE_ACCOUNT)?,
    )
}

fn tell_of_the_cluster(world: &World, google: &Google) {
    let endpoint = Network::address(Host::ControlPlane, 6443);
    google.set_cluster(CLUSTER, &endpoint, &world.cluster.ca_pem());
}

/// Runs a verb to its end.
fn expect(world: &World, verb: &[&str], code: i32, words: &str) -> Result<()> {
    let output = world.vm.agent(&world.network, verb)?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let said = said.concat();
    let ended = output.status.code();
    ensure!(
        ended == Some(code) && said.contains(words),
        "{verb:?} ends with {ended:?} and says\n{said}"
    );
    Ok(())
}

fn expect_no_secret_in(folder: &Path) -> Result<()> {
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let text = fs::read(&path).unwrap_or_default();
        let has = String::from_utf8_lossy(&text).contains(SECRET);
        ensure!(!has, "{} has the access token", path.display());
    }
    Ok(())
}
