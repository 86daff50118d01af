//! The package on a booted VM: installed by apt, run by systemd, purged.

mod boot;
mod cloud_init;
mod commands;
mod dns;
mod docker;
mod fetch;
mod legacy;
mod life;
mod planned;
mod repository;
mod sandbox;
mod service;
pub(crate) mod steps;
mod up;
mod upgrade;

use anyhow::Result;
use e2e::booted::Booted;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::vm::{Application, Settings};
use libtest_mimic::Trial;

use crate::{both, stand_in_only};

/// Command whose output a failed case shows of the VM: all but the calls.
const JOURNAL: &str =
    "journalctl --no-pager --output=short-precise | grep -v -e GetProduct -e filter_chain_not_found | tail --lines=200";
/// A VM of another distribution takes long to make; this variable names those to try: `trixie noble`.
const SUITES: &str = "ISTIO_VM_AGENT_TEST_SUITES";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = always().into_iter().flatten().collect();
    trials.push(stand_in_only(
        "the package on bookworm: what status says to do about a systemd service leads out",
        || run(Kind::StandIn, "bookworm", service::leads_out),
    ));
    if planned::rounds().is_some() {
        trials.extend(on_a_vm("planned stops and upgrades", planned::none_fails));
    }
    for suite in std::env::var(SUITES).unwrap_or_default().split_whitespace() {
        trials.extend(on(
            "a stop leaves the mesh, a reboot joins it again",
            suite,
            life::stop_and_reboot,
        ));
    }
    trials
}

/// The cases that CI has.
fn always() -> Vec<[Trial; 2]> {
    vec![
        on_a_vm(
            "first contact, and a purge that leaves nothing",
            life::first_contact_and_purge,
        ),
        on_a_vm("no call fails while the agent is restarted and killed", life::restarts),
        on_a_vm("no call fails while the agent hangs", life::hangs),
        on_a_vm("a stop leaves the mesh, a reboot joins it again", life::stop_and_reboot),
        on_a_vm("no call fails while it is upgraded and downgraded", upgrade::under_load),
        on_a_vm(
            "an upgrade that does not serve is rolled back, and no call fails",
            upgrade::rolled_back,
        ),
        on_a_vm(
            "names are answered while the agent hangs, and while it is gone",
            dns::outlives_the_agent,
        ),
        on_a_vm("no call fails while dockerd is restarted", docker::restart),
        on_a_vm(
            "five boots beside dockerd, and no call passes the mesh by",
            docker::boots,
        ),
        on_a_vm(
            "a boot closes the application before there is a network, and holds the mesh's ports",
            boot::is_closed,
        ),
        on_a_vm("the chains of iptables-legacy", legacy::chains),
        on_a_vm("commands that probe the application", commands::probe),
        on_a_vm("a systemd service is the workload", service::follows_the_mesh),
        on_a_vm(
            "a systemd service and a container are one workload",
            service::beside_a_container,
        ),
        on_a_vm("the agent can't write /etc, and keeps its names there", sandbox::holds),
        on_a_vm(
            "Envoy out of a URL, and an older one while that fails",
            fetch::from_a_url,
        ),
        on_a_vm("from nothing to a call by `up`, and back by `down`", up::up_and_down),
        on_a_vm("cloud-init installs it and joins", cloud_init::join),
        on_a_vm(
            "apt takes it from our signed repository, and from no other",
            repository::install_from,
        ),
    ]
}

type Case = fn(&mut Mesh, &mut Booted) -> Result<()>;

fn on_a_vm(name: &str, case: Case) -> [Trial; 2] {
    on(name, "bookworm", case)
}

fn on(name: &str, suite: &str, case: Case) -> [Trial; 2] {
    let suite = suite.to_owned();
    both(&format!("the package on {suite}: {name}"), move |kind| {
        run(kind, &suite, case)
    })
}

fn run(kind: Kind, suite: &str, case: Case) -> Result<()> {
    let settings = Settings {
        application: Application::None,
        ..Settings::default()
    };
    with_mesh(kind, settings, |mesh| {
        let mut vm = Booted::start(&mesh.network, suite)?;
        let ended = case(mesh, &mut vm);
        ended.map_err(|error| match vm.run(&["sh", "-c", JOURNAL]) {
            Ok(journal) => error.context(journal),
            Err(_) => error,
        })
    })
}
