use std::fs::File;

use http::Method;
use nix::sys::stat::Mode as FileMode;
use nix::unistd::mkfifo;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::*;
use crate::cluster::tests::{Objects, Server};
use crate::interrupt::Interrupted;
use crate::migration::tests::{HOSTS, migration};
use crate::objects::tests::position;
use crate::objects::{GRPC_ROUTES, VIRTUAL_SERVICES, route};
use crate::output::{Format, Record};

/// The name of the VirtualService.
const ROUTE: &str = "catalog-migration";

fn operation(servers: &[&Server]) -> Operation {
    let names = ["one", "two"];
    Operation {
        migration: migration(HOSTS),
        clusters: names.iter().zip(servers).map(|(name, it)| it.cluster(name)).collect(),
        output: Output {
            format: Format::Text,
            record: None,
        },
        change: Change::Made,
        interrupt: Interrupt::new().unwrap(),
    }
}

/// An API server with the split at `share`, and with a VM.
fn at(share: u8, hook: impl FnMut(&mut Objects, &Method, &str) -> Option<u16> + Send + 'static) -> Server {
    let entry = json!({ "metadata": { "name": "vm", "annotations": { "istio.io/autoRegistrationGroup": "catalog" } } });
    Server::new(hook)
        .with(VIRTUAL_SERVICES, route(&migration(HOSTS), &position(share)))
        .with(findings::WORKLOAD_ENTRIES, entry)
}

fn share(server: &Server) -> Share {
    let route = server.object(VIRTUAL_SERVICES, ROUTE).unwrap();
    Position::of(&route).unwrap().share
}

fn pods(share: u8) -> Share {
    Share::try_from(share).unwrap()
}

#[tokio::test(start_paused = true)]
async fn step_of_a_run_ends_where_somebody_has_taken_over() {
    let server = at(0, |_, _, _| None);
    let operation = operation(&[&server]);
    let told = shift(&operation, pods(50), Some(&position(20))).await.unwrap_err();
    assert_eq!(told.to_string(), "one: jane@desk (12) has taken over, pods get 0 %");
    assert_eq!(share(&server), Share::NONE);
}

/// An object whose fields this program has written, at another share.
fn moved(objects: &mut Objects, share: u8) {
    let route = route(&migration(HOSTS), &position(share));
    let is_route = |path: &&String| path.ends_with(ROUTE);
    let path = objects.keys().find(is_route).cloned().unwrap();
    objects.insert(path, route);
}

#[tokio::test(start_paused = true)]
async fn return_needs_no_other_reads_than_split_and_vm() {
    let server = at(50, |_, method, path| {
        let is_needed = path.contains("virtualservices/") || path.contains("workloadentries");
        (!is_needed || *method == Method::POST).then_some(403)
    });
    take_back(&operation(&[&server]), false).await.unwrap();
    assert_eq!(share(&server), Share::NONE);

    let blind = at(50, |_, _, path| path.contains("workloadentries").then_some(403));
    take_back(&operation(&[&blind]), false).await.unwrap();
    assert_eq!(share(&blind), Share::NONE);
}

#[tokio::test(start_paused = true)]
async fn cluster_that_was_brought_back_is_not_written_again() {
    let one = at(50, |_, _, _| None);
    let two = at(50, |_, _, path| path.contains("virtualservices").then_some(503));
    let operation = operation(&[&one, &two]);
    take_back(&operation, true).await.unwrap_err();
    let written = one.object(VIRTUAL_SERVICES, ROUTE);
    assert_eq!(share(&one), Share::NONE);
    take_back(&operation, true).await.unwrap_err();
    assert_eq!(one.object(VIRTUAL_SERVICES, ROUTE), written);
}

#[tokio::test(start_paused = true)]
async fn printing_fails_where_a_cluster_is_away() {
    let one = at(50, |_, _, _| None);
    let two = at(50, |_, _, _| Some(503));
    let operation = Operation {
        change: Change::Printed,
        ..operation(&[&one, &two])
    };
    let told = take_back(&operation, true).await.unwrap_err();
    assert_eq!(told.to_string(), "not all clusters are printed");
}

#[tokio::test(start_paused = true)]
async fn vm_stays_where_somebody_returns_during_a_retirement() {
    let group = json!({ "metadata": { "name": "catalog" } });
    let mut looks = 0;
    let server = at(100, move |objects, _, path| {
        looks += u32::from(path.ends_with(ROUTE));
        if looks == 2 {
            moved(objects, 0);
        }
        None
    });
    let server = server
        .with(findings::WORKLOAD_GROUPS, group)
        .with(findings::SERVICES, json!({ "metadata": { "name": "catalog" } }))
        .with(findings::SERVICES, json!({ "metadata": { "name": "catalog-pods" } }));
    let told = retire(&operation(&[&server]), false).await.unwrap_err().to_string();
    assert!(told.contains("has taken over, pods get 0 %"), "{told}");
    assert!(server.object(findings::WORKLOAD_GROUPS, "catalog").is_some());
    assert!(server.object(findings::WORKLOAD_ENTRIES, "vm").is_some());
}

#[tokio::test(start_paused = true)]
async fn apply_leaves_what_somebody_returned_meanwhile() {
    let mut looks = 0;
    let server = at(50, move |objects, _, path| {
        looks += u32::from(path.ends_with(ROUTE));
        if looks == 2 {
            moved(objects, 0);
        }
        None
    });
    let told = apply(&operation(&[&server])).await.unwrap_err().to_string();
    assert!(told.contains("somebody has changed the split meanwhile"), "{told}");
    assert_eq!(share(&server), Share::NONE);
}

/// The lines of what an operation tells.
fn recorded(operation: Operation) -> (Operation, &'static Record) {
    let record: &Record = Box::leak(Box::default());
    let output = Output {
        record: Some(record),
        ..operation.output
    };
    (Operation { output, ..operation }, record)
}

#[tokio::test(start_paused = true)]
async fn status_names_who_manages_a_split_that_is_as_it_should_be() {
    let mut managed = route(&migration(HOSTS), &position(20));
    managed["metadata"]["managedFields"] =
        json!([{ "manager": "argocd-controller", "fieldsV1": { "f:spec": { "f:http": {} } } }]);
    let server = at(20, |_, _, _| None).with(VIRTUAL_SERVICES, managed);
    let (operation, record) = recorded(operation(&[&server]));
    status(&operation).await.unwrap();
    let told = record.lock().unwrap().join("\n");
    assert!(told.contains("argocd-controller manages its routes"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn return_of_a_run_is_tried_until_each_cluster_has_it() {
    let mut refusals = 3;
    let one = at(50, |_, _, _| None);
    let two = at(50, move |_, method, _| {
        let is_refused = *method == Method::PATCH && refusals > 0;
        refusals -= u32::from(is_refused);
        is_refused.then_some(503)
    });
    run::go_back(&operation(&[&one, &two])).await.unwrap();
    assert_eq!([share(&one), share(&two)], [Share::NONE; 2]);
}

#[tokio::test(start_paused = true)]
async fn return_of_a_run_is_not_tried_again_where_nothing_is_split() {
    let (operation, record) = recorded(operation(&[&Server::new(|_, _, _| None)]));
    let told = run::go_back(&operation).await.unwrap_err().to_string();
    assert!(told.starts_with("there is no migration in any cluster"), "{told}");
    assert_eq!(*record.lock().unwrap(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn refusal_of_the_mesh_ends_a_shift_and_no_return() {
    let migration = migration(&format!(
        "gateway_route = {{ kind = 'GRPCRoute', port = 3550 }}\n{HOSTS}"
    ));
    let server = Server::new(|objects, _, path| {
        // Each version of it is refused, as they have no generation here.
        if let Some(route) = objects.get_mut(path).filter(|_| path.ends_with(ROUTE)) {
            route["status"] = json!({ "parents": [{ "conditions": [
                { "type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": "no Service" },
            ] }] });
        }
        None
    });
    let server = server.with(GRPC_ROUTES, route(&migration, &position(50)));
    let (operation, record) = recorded(Operation {
        migration,
        ..operation(&[&server])
    });
    let told = shift(&operation, pods(50), None).await.unwrap_err().to_string();
    assert!(told.contains("NoMatchingParent"), "{told}");
    run::go_back(&operation).await.unwrap();
    let at = Position::of(&server.object(GRPC_ROUTES, ROUTE).unwrap()).unwrap();
    assert_eq!(at.share, Share::NONE);
    let told = record.lock().unwrap().join("\n");
    assert!(
        told.contains("NoMatchingParent") && !told.contains("tried_again"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn return_of_a_run_ends_with_a_cluster_that_never_comes() {
    let one = at(50, |_, _, _| None);
    let two = at(50, |_, _, _| Some(503));
    let told = run::go_back(&operation(&[&one, &two])).await.unwrap_err();
    assert!(
        told.to_string().contains("not all clusters were brought back"),
        "{told:#}"
    );
    assert_eq!([share(&one), share(&two)], [Share::NONE, pods(50)]);
}

#[tokio::test(start_paused = true)]
async fn change_after_the_last_number_has_another() {
    let last = Position {
        epoch: u64::MAX,
        ..position(20)
    };
    let server = at(20, |_, _, _| None).with(VIRTUAL_SERVICES, route(&migration(HOSTS), &last));
    take_back(&operation(&[&server]), false).await.unwrap();
    let at = Position::of(&server.object(VIRTUAL_SERVICES, ROUTE).unwrap()).unwrap();
    assert_eq!(at.share, Share::NONE);
    assert_ne!(at.route_name(), last.route_name());
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test has no Host")]
async fn signal_ends_a_hook_and_moves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    mkfifo(&open, FileMode::S_IRWXU).unwrap();
    let servers = [at(20, |_, _, _| None), at(20, |_, _, _| None)].map(with_pods);
    let (signals, interrupt) = Interrupt::counted();
    let mut operation = Operation {
        interrupt,
        ..operation(&[&servers[0], &servers[1]])
    };
    for cluster in &mut operation.clusters {
        cluster.entry.prometheus = Some(crate::migration::Text::known("http://127.0.0.1:1"));
    }
    operation.migration.run.steps = vec![pods(60)];
    let hangs = format!("exec sleep 600 >{}", open.display());
    operation.migration.run.before = ["sh", "-c", &hangs].map(str::to_owned).to_vec();
    let signal = async {
        // It can be opened once the hook has.
        let running = spawn_blocking(move || File::open(&open)).await.unwrap();
        signals.send_replace(1);
        running.unwrap()
    };
    let (ended, running) = tokio::join!(run(&operation, Some("no need")), signal);
    assert!(ended.unwrap_err().is::<Interrupted>());
    let closed = spawn_blocking(|| std::io::read_to_string(running));
    let closed = tokio::time::timeout(Duration::from_secs(30), closed).await;
    closed.expect("the hook still runs").unwrap().unwrap();
    assert_eq!(servers.each_ref().map(share), [pods(20); 2]);
}

fn with_pods(server: Server) -> Server {
    let slice = json!({ "metadata": { "name": "catalog-pods-1", "labels": { "kubernetes.io/service-name": "catalog-pods" } },
        "endpoints": [{ "addresses": ["10.0.0.9"] }] });
    server
        .with(findings::SERVICES, json!({ "metadata": { "name": "catalog-pods" } }))
        .with(findings::ENDPOINT_SLICES, slice)
}
