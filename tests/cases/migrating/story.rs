//! From the first object to none, while nothing goes wrong.

use std::fs;
use std::net::TcpListener;

use anyhow::{Result, ensure};
use e2e::network::Host;
use e2e::{PATIENCE, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::world::{ACCOUNT, ROUTE, World, documents, end, pod, slice};

const GROUP: &str = "{apiVersion: networking.istio.io/v1, kind: WorkloadGroup,
    metadata: {name: productcatalog, namespace: onlineboutique},
    spec: {metadata: {labels: {app: productcatalogservice}}, template: {serviceAccount: productcatalog}}}";

pub(super) fn with_the_printed_roles() -> Result<()> {
    let world = World::start()?;
    let before = world.objects()?;
    let text = fs::read_to_string(world.file())?.replace("kubeconfig-admin", "kubeconfig-jane");
    for cluster in &world.clusters {
        cluster.kubeconfig("jane")?;
    }
    fs::write(world.file(), text)?;
    world.refused(
        &["plan"],
        "no right to patch virtualservices.networking.istio.io in onlineboutique",
    )?;

    let roles = world.done(&["role", "--user", "jane"])?;
    for cluster in &world.clusters {
        cluster.apply(&roles)?;
    }
    let plan = world.done(&["plan"])?;
    ensure!(plan.contains("+kind: VirtualService"), "{plan}");
    world.refused(&["shift", "20"], "there is no migration yet")?;

    world.done(&["apply"])?;
    world.expect([100, 0])?;
    world.done(&["shift", "20"])?;
    world.expect([80, 20])?;
    let version = |at: usize| {
        world.clusters[at]
            .get(ROUTE)
            .map(|route| route["metadata"]["resourceVersion"].clone())
    };
    let (one, two) = (version(0)?, version(1)?);
    world.done(&["shift", "20"])?;
    ensure!((one, two) == (version(0)?, version(1)?), "the same step again wrote");
    world.done(&["complete"])?;
    world.expect([0, 100])?;
    let status = world.done(&["status"])?;
    ensure!(status.matches("pods get 100 %, change 3").count() == 2, "{status}");
    world.done(&["return"])?;
    world.expect([100, 0])?;

    world.done(&["undo"])?;
    ensure!(world.objects()? == before, "an object is not as before");
    world.done(&["undo"])?;
    for steps in [[].as_slice(), &["20"], &["50", "100"], &["100", "0"]] {
        world.done(&["apply"])?;
        for share in steps {
            world.done(&["shift", share])?;
        }
        world.done(&["undo"])?;
        ensure!(world.objects()? == before, "{steps:?}: an object is not as before");
    }
    Ok(())
}

pub(super) fn by_subsets() -> Result<()> {
    let world = World::start()?;
    let before = world.objects()?;
    let text = fs::read_to_string(world.file())?
        .replace("'productcatalog' }", "'productcatalog', labels = { side = 'vm' } }")
        .replace(
            "{ service = 'productcatalogservice-gke' }",
            "{ labels = { side = 'pod' } }",
        );
    fs::write(world.file(), text)?;
    for cluster in &world.clusters {
        cluster.apply(&slice("productcatalogservice"))?;
    }
    let before_apply = world.objects()?;
    ensure!(before != before_apply, "the slice is not there");
    world.done(&["apply"])?;
    nothing_changes(&world)?;
    world.done(&["shift", "30"])?;
    world.expect([70, 30])?;
    for cluster in &world.clusters {
        let rule = cluster.get(&ROUTE.replace("virtualservices", "destinationrules"))?;
        let made = serde_json::to_string(&rule["spec"]["subsets"])?;
        let expected = r#"[{"labels":{"side":"vm"},"name":"vm"},{"labels":{"side":"pod"},"name":"pods"}]"#;
        ensure!(made == expected, "{made}");
    }
    nothing_changes(&world)?;
    world.done(&["undo"])?;
    ensure!(world.objects()? == before_apply, "an object is not as before");
    Ok(())
}

pub(super) fn arrival() -> Result<()> {
    let world = World::start()?;
    world.write_file("", "istiod = '10.200.0.2:15012'")?;
    world.clusters[0].apply(ACCOUNT)?;
    world.clusters[0].apply(&pod("cart"))?;
    world.set_route("cart.onlineboutique", "istio-vm-ctl-1");
    let told = world.done(&["apply"])?;
    ensure!(told.contains("one: all 1 proxies that call have it"), "{told}");
    ensure!(told.contains("two: given"), "{told}");

    let mut shift = world.spawn(&["shift", "20"])?;
    eventually("weights in both clusters", PATIENCE, || world.expect([80, 20]))?;
    until_asked_again(&world)?;
    ensure!(shift.try_wait()?.is_none(), "the shift ended before the proxy had it");
    world.set_route("cart.onlineboutique", "istio-vm-ctl-2");
    let ended = end(shift)?;
    ensure!(ended.is_success && ended.text.contains("pods get 20 %"), "{ended:?}");

    // One that comes late is asked too, and one that goes away is waited for no longer.
    world.clusters[0].apply(&pod("leaving"))?;
    world.set_route("cart.onlineboutique", "istio-vm-ctl-3");
    world.set_route("leaving.onlineboutique", "istio-vm-ctl-2");
    let mut shift = world.spawn(&["shift", "30"])?;
    eventually("weights in both clusters", PATIENCE, || world.expect([70, 30]))?;
    until_asked_again(&world)?;
    ensure!(shift.try_wait()?.is_none(), "the shift ended before the proxy had it");
    world.clusters[0].delete(&pod("leaving"))?;
    let ended = end(shift)?;
    ensure!(ended.is_success && ended.text.contains("all 1 proxies"), "{ended:?}");

    let shift = world.spawn(&["shift", "40"])?;
    eventually("weights in both clusters", PATIENCE, || world.expect([60, 40]))?;
    kill(Pid::from_raw(i32::try_from(shift.id())?), Signal::SIGINT)?;
    let ended = end(shift)?;
    ensure!(!ended.is_success && ended.text.contains("interrupted"), "{ended:?}");
    world.expect([60, 40])?;

    // One that gives a proxy what it has kept of before gives it the same split once that is another change.
    world.write_file("patience = '3s'", "istiod = '10.200.0.2:15012'")?;
    world.set_route("cart.onlineboutique", "istio-vm-ctl-6");
    world.done(&["shift", "45"])?;
    world.expect([55, 45])?;
    let status = world.done(&["status"])?;
    ensure!(status.matches("pods get 45 %, change 6").count() == 2, "{status}");

    // One that hangs accepts connections all the same.
    let _hangs = world
        .network
        .within(Host::ControlPlane, || Ok(TcpListener::bind("10.200.0.2:15013")?))?;
    world.write_file("patience = '1s'", "istiod = '10.200.0.2:15013'")?;
    world.refused(
        &["shift", "60"],
        "cart.onlineboutique: istiod accepts, and doesn't answer",
    )?;
    world.expect([40, 60])?;

    // One that is dead is named too, and the weights stay.
    world.write_file("patience = '1s'", "")?;
    let text = fs::read_to_string(world.file())?.replace("name = 'two'", "name = 'two'\nistiod = '10.200.0.5:15012'");
    fs::write(world.file(), text)?;
    world.clusters[1].apply(ACCOUNT)?;
    world.clusters[1].apply(&pod("desk"))?;
    world.refused(
        &["shift", "80"],
        "cluster two: after 1s these proxies don't have it:\n  desk.onlineboutique: failed to connect to istiod",
    )?;
    world.expect([20, 80])
}

pub(super) fn until_asked_again(world: &World) -> Result<()> {
    let streams = world.istiod.state().streams_opened();
    eventually("another question", PATIENCE, || {
        ensure!(
            world.istiod.state().streams_opened() > streams + 1,
            "istiod was not asked again"
        );
        Ok(())
    })
}

fn nothing_changes(world: &World) -> Result<()> {
    let before = world.objects()?;
    for arguments in [
        ["shift", "40", "--dry-run"].as_slice(),
        &["shift", "40", "--print"],
        &["apply", "--print"],
        &["complete", "--dry-run"],
        &["return", "--print"],
        &["undo", "--dry-run"],
        &["plan"],
    ] {
        world.done(arguments)?;
        ensure!(world.objects()? == before, "{arguments:?} changed something");
    }
    let printed = documents(&world.done(&["shift", "40", "--print"])?)?;
    let weight = |at: usize| printed[at]["spec"]["http"][0]["route"][1]["weight"].as_u64();
    ensure!(
        printed.len() == 2 && [weight(0), weight(1)] == [Some(40); 2],
        "{printed:?}"
    );
    Ok(())
}

/// A VM that connects anew, as istiod registers it, with these metadata beside its name.
fn entry(address: &str, metadata: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, spec: {{address: {address}}},
          metadata: {{name: productcatalog-{address}, namespace: onlineboutique, {metadata},
                      annotations: {{istio.io/autoRegistrationGroup: productcatalog}}}}}}"
    )
}

pub(super) fn retirement() -> Result<()> {
    let world = World::start()?;
    let pods = "{apiVersion: v1, kind: Service, metadata: {name: productcatalogservice-gke, namespace: onlineboutique},
        spec: {ports: [{name: grpc, port: 3550, targetPort: 8080}], selector: {app: productcatalogservice-gke}}}";
    for cluster in &world.clusters {
        cluster.apply(pods)?;
    }
    retirement_is_refused(&world)?;
    // A VM that connects anew meanwhile: its first registration is kept from going until there is a second.
    world.clusters[0].apply(&entry("10.200.0.3", "finalizers: [e2e.test/stays]"))?;
    let mut retire = world.spawn(&["retire"])?;
    first_registration_goes(&world)?;
    // What is broken off here has no way back any more, and goes on.
    retire.kill()?;
    retire.wait()?;
    world.refused(&["return"], "no cluster has a healthy WorkloadEntry")?;
    world.refused(&["undo"], "the VM is retired, or about to be")?;
    world.expect([0, 100])?;
    let mut retire = world.spawn(&["retire"])?;
    world.clusters[0].apply(&entry("10.200.0.9", "finalizers: []"))?;
    world.clusters[0].apply(&entry("10.200.0.3", "finalizers: []"))?;
    selector_goes_last(&world)?;
    retire.kill()?;
    retire.wait()?;
    world.expect([0, 100])?;
    let retire = world.spawn(&["retire"])?;
    // What Kubernetes' controller does.
    for cluster in &world.clusters {
        cluster.apply(&slice("productcatalogservice"))?;
    }
    let ended = end(retire)?;
    ensure!(ended.is_success, "{ended:?}");
    ensure!(
        world.clusters.iter().all(|cluster| cluster.get(ROUTE).is_err()),
        "the split is still there"
    );
    world.refused(&["undo"], "the VM is retired")?;
    let again = world.done(&["retire"])?;
    ensure!(again.contains("the VM is out of the mesh"), "{again}");
    Ok(())
}

/// Ends with all calls at the pods and nothing in the way.
fn retirement_is_refused(world: &World) -> Result<()> {
    world.refused(&["retire"], "there is no migration yet")?;
    for cluster in &world.clusters {
        cluster.delete(GROUP)?;
    }
    world.refused(
        &["retire"],
        "nothing to retire: no cluster has the split, WorkloadGroup",
    )?;
    // What has never begun leaves nothing behind.
    world.done(&["undo"])?;
    for cluster in &world.clusters {
        cluster.apply(GROUP)?;
    }
    world.done(&["apply"])?;
    world.done(&["shift", "50"])?;
    world.refused(&["retire"], "not all calls go to the pods")?;
    world.done(&["complete"])?;
    let ingress = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: shop, namespace: onlineboutique},
        spec: {hosts: [shop.example], gateways: [shop], http: [{route: [{destination: {host: productcatalogservice}}]}]}}";
    world.clusters[0].apply(ingress)?;
    world.refused(&["retire", "--check"], "VirtualService onlineboutique/shop")?;
    world.clusters[0].delete(ingress)?;
    let before = world.objects()?;
    world.done(&["retire", "--check"])?;
    ensure!(world.objects()? == before, "a check changed something");
    Ok(())
}

fn first_registration_goes(world: &World) -> Result<()> {
    let entries = "/apis/networking.istio.io/v1/namespaces/onlineboutique/workloadentries";
    eventually("the first registration is to go", PATIENCE, || {
        let first = world.clusters[0].get(&format!("{entries}/productcatalog-10.200.0.3"))?;
        ensure!(
            !first["metadata"]["deletionTimestamp"].is_null(),
            "nobody has deleted it"
        );
        let of_two = world.clusters[1].get(entries)?;
        ensure!(of_two["items"] == serde_json::json!([]), "the other cluster has one");
        Ok(())
    })
}

fn selector_goes_last(world: &World) -> Result<()> {
    for cluster in &world.clusters {
        eventually("a Service that selects the pods", PATIENCE, || {
            let service = cluster.get("/api/v1/namespaces/onlineboutique/services/productcatalogservice")?;
            let selected = &service["spec"]["selector"]["app"];
            ensure!(selected == "productcatalogservice-gke", "it selects {selected}");
            let target = &service["spec"]["ports"][0]["targetPort"];
            ensure!(*target == 8080, "its calls go to port {target}");
            let groups = "/apis/networking.istio.io/v1/namespaces/onlineboutique";
            for kind in ["workloadentries", "workloadgroups"] {
                let left = cluster.get(&format!("{groups}/{kind}"))?;
                ensure!(
                    left["items"] == serde_json::json!([]),
                    "the selector went before {kind}"
                );
            }
            cluster.get(ROUTE).map(drop)
        })?;
    }
    Ok(())
}
