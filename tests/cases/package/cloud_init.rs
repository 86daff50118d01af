//! packaging/cloud-init, run by cloud-init itself at a first boot, from the NoCloud data source.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;
use e2e::network::Host;
use e2e::programs;

use super::steps::*;

const EXAMPLES: [&str; 2] = ["bucket.yaml", "apt-repository.yaml"];

pub(super) fn join(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    for example in EXAMPLES {
        fs::write(vm.path("/root/user-data"), self::example(example)?)?;
        vm.run(&["cloud-init", "schema", "--config-file", "/root/user-data"])
            .with_context(|| format!("cloud-init refuses {example}"))?;
    }

    let bucket = vm.path("/srv/bucket");
    fs::create_dir_all(&bucket)?;
    fs::copy(programs::package()?, bucket.join("istio-vm-agent.deb"))?;
    fs::rename(vm.path("/usr/local/bin/envoy"), bucket.join("envoy"))?;
    start_application(vm)?;
    let bundle = mesh.vm.bundle();
    fs::create_dir_all(vm.path("/root/bundle"))?;
    for file in fs::read_dir(&bundle)? {
        let file = file?;
        fs::copy(file.path(), vm.path("/root/bundle").join(file.file_name()))?;
    }
    vm.run(&[
        "tar",
        "--create",
        "--file=/srv/bucket/bundle.tar",
        "--directory=/root/bundle",
        ".",
    ])?;
    vm.run(&[
        "sh",
        "-c",
        "cd /srv/bucket && sha256sum istio-vm-agent.deb envoy bundle.tar >SHA256SUMS",
    ])?;
    // In place of the cloud's own program: `gcloud storage cp gs://BUCKET/FILE... .`
    let gcloud = "#!/bin/sh\nshift 2\nfor file; do [ \"$file\" = . ] || cp \"/srv/bucket/${file##*/}\" .; done\n";
    fs::write(vm.path("/usr/local/bin/gcloud"), gcloud)?;
    vm.run(&["chmod", "755", "/usr/local/bin/gcloud"])?;

    let log = first_boot(vm, &user_data()?)?;
    expect_calls(mesh).context(log)
}

/// Boots the VM as for the first time, with this user data; the end of cloud-init's log.
pub(super) fn first_boot(vm: &mut Booted, user_data: &str) -> Result<String> {
    let seed = vm.path("/var/lib/cloud/seed/nocloud");
    fs::create_dir_all(&seed)?;
    fs::write(seed.join("meta-data"), "instance-id: i-1\nlocal-hostname: vm\n")?;
    fs::write(seed.join("user-data"), user_data)?;
    vm.run(&["cloud-init", "clean"])?;
    vm.shut_down()?;
    vm.boot()?;
    let status = vm.command(&["cloud-init", "status", "--wait", "--long"])?.output()?;
    let log = vm.run(&["tail", "--lines=60", "/var/log/cloud-init-output.log"])?;
    ensure!(
        status.status.success(),
        "{}\n{log}",
        String::from_utf8_lossy(&status.stdout)
    );
    Ok(log)
}

/// The example as it is, but for what this VM has not: a package mirror, a registry, an address that is told to it.
fn user_data() -> Result<String> {
    let text = example("bucket.yaml")?;
    let (before, container) = text
        .split_once("      [workload.container]\n")
        .context("no container in it")?;
    let (_, after) = container.split_once("      [health.probe]").context("no probe in it")?;
    let network = format!(
        "      [network]\n      address = \"{}\"\n\n      [health.probe]",
        Host::Vm.ipv4()
    );
    let packages = "package_update: true\npackages:\n  - docker.io\n  - nftables\n";
    ensure!(before.contains(packages), "bucket.yaml installs other packages now");
    Ok(before.replace(packages, "") + &network + after)
}

pub(super) fn example(name: &str) -> Result<String> {
    let file = programs::repository("packaging/cloud-init").join(name);
    fs::read_to_string(file).with_context(|| format!("no {name}"))
}
