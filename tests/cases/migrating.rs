//! `istio-vm-ctl` against two real API servers: calls move in both clusters or in none.

mod admission;
mod alone;
mod broken_off;
mod callers;
mod connections;
mod desk;
mod faults;
mod gate;
mod gateway_routes;
mod init;
mod moving;
mod rights;
mod story;
mod two;
mod verify;
mod world;

use anyhow::Result;
use libtest_mimic::Trial;

use crate::told;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("a file and pods are made from what is there", init::written_and_printed),
        trial(
            "the printed Roles are enough from apply to undo",
            story::with_the_printed_roles,
        ),
        trial("each right that is taken away is named", rights::missed),
        trial(
            "the program alone in a root finds an API server by its name",
            alone::in_an_empty_root,
        ),
        trial(
            "subsets are made before their routes; what is dry or printed changes nothing",
            story::by_subsets,
        ),
        trial("every command of docs/migrate.md works, in its order", gate::documented),
        trial("the VM is retired before its Service forgets it", story::retirement),
        trial("a shift is done once each proxy has it", story::arrival),
        trial("connections are split by routes of TCP", connections::split),
        trial(
            "calls are split by a route of the Gateway API, and none is lost",
            gateway_routes::split,
        ),
        trial("half a step is put back, told and mended", faults::half_steps),
        trial("with a dead API server nothing moves but back", faults::dead_api_server),
        trial("what others have in the cluster is named", faults::foreign_objects),
        trial(
            "a signal ends no write, and is told where the split is",
            broken_off::interrupted,
        ),
        trial("what kill -9 cuts in half is told, and goes on", broken_off::killed),
        trial(
            "killed at fifty moments, a shift is told as it is, and taken back",
            broken_off::killed_at_any_moment,
        ),
        trial("a run goes on, waits or goes back as the gate says", gate::by_verdict),
        trial("a run stops for whoever takes over", gate::taken_over),
        trial(
            "no call is lost by moving, and bad pods lose theirs for seconds",
            moving::moved,
        ),
        trial("five versions that answer otherwise get no call", verify::answers),
        trial("what callers have of both sides is told", verify::reach),
        trial("pods of a wrong image get no call, and are named", verify::wrong_image),
    ];
    trials.extend(two::trials());
    trials
}

fn trial(name: &str, case: fn() -> Result<()>) -> Trial {
    Trial::test(format!("migration: {name}"), move || told(case()))
}
