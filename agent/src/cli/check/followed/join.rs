//! The configuration, what the VM joins by, and its identity.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::super::remedies::followed;
use super::vm::{CLUSTER_ENV, CONFIG, fix};
use super::{Row, Vm};
use crate::cli::unconfigured::EXAMPLE;
use crate::control_plane::fixtures::Ca;
use crate::part::Finding;

const ROOTS: &str = "/etc/istio-vm-agent/bundle/root-cert.pem";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) const ROWS: &[Row] = &[
    Row {
        code: "IVA201",
        trouble: |vm| vm.configure("[intercept]\nbakcend = \"auto\"\n"),
        says: "mend what it names",
        follow: |vm, found| mend(vm, CONFIG, found),
    },
    Row {
        code: "IVA201",
        trouble: |vm| vm.configure("[identity]\nttl = \"soon\"\n"),
        says: "mend what it names",
        follow: |vm, found| mend(vm, CONFIG, found),
    },
    Row {
        code: "IVA201",
        trouble: |vm| std::fs::remove_file(vm.at(CONFIG)).unwrap(),
        says: EXAMPLE,
        // What the package has there.
        follow: |vm, _| vm.write(CONFIG, include_str!("../../../../../config.example.toml")),
    },
    Row {
        code: "IVA202",
        trouble: |vm| vm.edit(CLUSTER_ENV, "CIDR='*'", "CIDR='10.0.0.0/33'"),
        says: "mend what it names",
        follow: |vm, found| mend(vm, CLUSTER_ENV, found),
    },
    Row {
        code: "IVA204",
        trouble: |vm| vm.write(CLUSTER_ENV, &(vm.text(CLUSTER_ENV) + "SECRET_TTL='12h'\n")),
        says: "remove it",
        follow: |vm, found| vm.take_out(CLUSTER_ENV, found.detail.split(": ").nth(1).unwrap()),
    },
    Row {
        code: "IVA302",
        trouble: |vm| vm.write(CLUSTER_ENV, &(vm.text(CLUSTER_ENV) + "CA_ADDR='127.0.0.1:1'\n")),
        says: "take CA_ADDR out of cluster.env where istiod is the CA",
        follow: |vm, _| vm.take_out(CLUSTER_ENV, "CA_ADDR"),
    },
    Row {
        code: "IVA403",
        trouble: |vm| vm.configure("[identity]\nttl = \"2400h\"\n"),
        says: "such as identity.ttl = \"24h\"",
        follow: |vm, found| vm.set(fix(found).split_once("such as ").unwrap().1),
    },
    Row {
        code: "IVA404",
        trouble: |vm| vm.write(ROOTS, &ending_root()),
        says: "put it into root-cert.pem of the bundle beside the old one",
        follow: |vm, _| vm.write(ROOTS, &(vm.text(ROOTS) + &Ca::new("next").root_pem())),
    },
];

/// Writes what the finding's detail, `FILE:LINE:COLUMN: PROBLEM`, says to write.
fn mend(vm: &Vm, file: &str, found: &Finding) {
    let (place, problem) = found.detail.split_once(": ").unwrap();
    assert!(place.contains(file), "{place}");
    let line = place.rsplit(':').nth(1).unwrap().parse().unwrap();
    let mended = followed(line, problem, &vm.text(file));
    vm.write(
        file,
        &mended.unwrap_or_else(|| panic!("says nothing to write: {found:?}")),
    );
}

/// A root that ends in ten days.
fn ending_root() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = (SystemTime::now() + 10 * DAY).into();
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}
