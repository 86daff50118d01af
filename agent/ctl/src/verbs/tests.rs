use http::Method;
use serde_json::json;

use super::*;
use crate::cluster::tests::{Objects, Server};
use crate::migration::tests::{HOSTS, migration};
use crate::objects::tests::position;
use crate::objects::{VIRTUAL_SERVICES, virtual_service};
use crate::output::Format;

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
        .with(VIRTUAL_SERVICES, virtual_service(&migration(HOSTS), &position(share)))
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
