//! A bundle below a URL, with no file copied to the VM but a CA's certificate and a header.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::{Host, Network};
use e2e::pki::Pki;
use e2e::vm::Settings;
use e2e::web::{SharedFolder, WebServer};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;

use crate::stand_in_only;

const PORT: u16 = 8443;
const SECRET: &str = "Bearer not-for-everybody";

pub(crate) fn trials() -> Vec<Trial> {
    vec![stand_in_only("a bundle below a URL joins, and is followed", || {
        with_mesh(Kind::StandIn, Settings::default(), joins)
    })]
}

fn joins(mesh: &mut Mesh) -> Result<()> {
    let (pki, other) = (Pki::default(), Pki::default());
    // Off the VM: what the VM is to have comes over HTTPS.
    let folder = mesh.network.folder().join("bundle-on-the-server");
    fs::rename(mesh.vm.bundle(), &folder)?;
    let shared = SharedFolder::new(&folder, ("authorization", SECRET));
    let server = serve(mesh, &pki, &shared)?;
    let ca = configure(mesh)?;

    fs::write(&ca, other.root_pem())?;
    expect_failure(mesh, "the roots of join.https.ca_file")?;
    fs::write(&ca, pki.root_pem())?;
    let header = mesh.network.folder().join("header");
    fs::set_permissions(&header, fs::Permissions::from_mode(0o644))?;
    expect_failure(mesh, "others may open it (mode 0644): chmod 0600")?;
    fs::set_permissions(&header, fs::Permissions::from_mode(0o600))?;

    let mut agent = mesh.join()?;
    mesh.wait_until_called()?;
    let joined = shared.counts();
    eventually("a look at an unchanged bundle", PATIENCE, || {
        let counts = shared.counts();
        ensure!(counts["not modified"] >= joined["not modified"] + 4, "{counts:?}");
        ensure!(counts["whole"] == joined["whole"], "sent again: {counts:?}");
        Ok(())
    })?;

    fs::write(folder.join("root-cert.pem"), "")?;
    expect_problem(mesh, "/bundle/root-cert.pem: is empty")?;
    drop(server);
    agent.stop()?;
    let mut agent = mesh.join()?;
    mesh.wait_until_called()?;
    ensure!(
        !agent.output().contains("not-for-everybody"),
        "the header is in the log"
    );
    agent.stop()
}

fn serve(mesh: &Mesh, pki: &Pki, shared: &Arc<SharedFolder>) -> Result<WebServer> {
    let host = Host::ControlPlane;
    let credentials = pki.issue_for_names(&[&host.ipv4().to_string()]);
    let address = Network::address(host, PORT).parse()?;
    WebServer::start(&mesh.network, host, address, Some(&credentials), shared.router())
}

/// Writes all but the CA's file, whose path it returns.
fn configure(mesh: &Mesh) -> Result<PathBuf> {
    let [ca, header] = ["ca.pem", "header"].map(|name| mesh.network.folder().join(name));
    fs::write(&header, format!("Authorization: {SECRET}\n"))?;
    fs::set_permissions(&header, fs::Permissions::from_mode(0o600))?;
    let url = format!("https://{}/bundle/", Network::address(Host::ControlPlane, PORT));
    let join = format!("[join.https]\nurl = {url:?}\nca_file = {ca:?}\nheader_file = {header:?}\npoll = \"5s\"\n");
    mesh.vm.set_join(&join)?;
    Ok(ca)
}

fn expect_failure(mesh: &Mesh, words: &str) -> Result<()> {
    let output = mesh.vm.agent(&mesh.network, &["check"])?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success() && told.contains(words), "check says {told}");
    Ok(())
}

fn expect_problem(mesh: &Mesh, words: &str) -> Result<()> {
    eventually("the problem in the status", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(
            status["health"]["problems"].to_string().contains(words),
            "{}",
            status["health"]
        );
        Ok(())
    })
}
