//! Prometheus, as it is packaged by Debian, sees the VM; and what we ship for it is what it takes.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::http::get;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::{EtcView, Host};
use e2e::process::{Process, output_of};
use e2e::vm::{Agent, Settings};
use e2e::{PATIENCE, eventually, programs};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{both, told};

/// Where Prometheus listens on the VM.
const PROMETHEUS: u16 = 19090;
/// The pod's service.
const CART: &str = "cartservice.onlineboutique.svc.cluster.local";

pub(crate) fn trials() -> Vec<Trial> {
    let name = "Prometheus scrapes the VM, promtool accepts the page, and a bug report has no secret";
    let mut trials = vec![Trial::test(
        "alerts fire in the cases they are made for, and Prometheus takes what we ship",
        || told(shipped()),
    )];
    trials.extend(both(name, |kind| {
        with_mesh(kind, Settings::default(), |mesh| watched(mesh, kind))
    }));
    trials
}

fn shipped() -> Result<()> {
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new("promtool");
        command
            .args(arguments)
            .current_dir(programs::repository("packaging/monitoring"));
        output_of(command).context("promtool: run tests/setup")
    };
    promtool(&["check", "rules", "alerts.yaml"])?;
    promtool(&["check", "config", "prometheus.yaml"])?;
    promtool(&["test", "rules", "alerts.test.yaml"])?;
    let read = |name: &str| fs::read_to_string(programs::repository("packaging/monitoring").join(name));
    let (alerts, tests) = (read("alerts.yaml")?, read("alerts.test.yaml")?);
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let untried = names
        .filter(|name| !tests.contains(&format!("alertname=\"{name}\"")))
        .collect::<Vec<_>>();
    ensure!(untried.is_empty(), "no case has these fire: {untried:?}");
    Ok(())
}

fn watched(mesh: &Mesh, kind: Kind) -> Result<()> {
    keep_stats_of_services(mesh)?;
    let agent = mesh.join()?;
    mesh.wait_until_called()?;
    accepted_by_promtool(mesh)?;
    let _prometheus = prometheus(mesh)?;
    had(
        mesh,
        &[
            ("istio_vm_agent_ready", "1"),
            ("istio_vm_agent_istiod_connected", "1"),
            ("istio_vm_agent_application_healthy", "1"),
            ("istio_agent_cert_expiry_seconds > bool 0", "1"),
            ("istio_vm_agent_endpoint_clusters > bool 0", "1"),
            ("istio_vm_agent_scrape_source_up{type=\"envoy\"}", "1"),
            ("envoy_server_live", "1"),
            ("count(istio_vm_agent_startup_phase_seconds) > bool 5", "1"),
            ("sum(istio_vm_agent_rule_packets_total) > bool 0", "1"),
        ],
    )?;
    shares(mesh)?;
    merged(mesh)?;
    let (code, _) = get(&mesh.network, Host::Vm, 15020, "/app-health/app/readyz")?;
    ensure!(code == 200, "/app-health/: {code}");
    let (code, names) = get(&mesh.network, Host::Vm, 15020, "/debug/ndsz")?;
    ensure!(
        code == 200 && names.contains("\"table\""),
        "/debug/ndsz: {code} {names}"
    );
    report(mesh, kind)?;
    followed(mesh, agent)
}

/// Has Envoy count the calls of each service, as Istio's own does in istio_requests_total.
fn keep_stats_of_services(mesh: &Mesh) -> Result<()> {
    let file = mesh.vm.bundle().join("mesh.yaml");
    let matcher = "defaultConfig:\n  proxyStatsMatcher:\n    inclusionPrefixes: [cluster.outbound]\n";
    let text = fs::read_to_string(&file)?.replacen("defaultConfig:\n", matcher, 1);
    ensure!(text.contains(matcher), "no defaultConfig: {text}");
    Ok(fs::write(file, text)?)
}

/// Questions that a migration begins with: whom the VM calls, and how much of its calls each has (docs/migrate.md).
fn shares(mesh: &Mesh) -> Result<()> {
    let calls = mesh.calls_to_the_pod().as_fast_as_answered(100, 4);
    calls.run(&mesh.network, Host::Vm)?.expect_all_answered()?;
    let document = fs::read_to_string(programs::repository("docs/migrate.md"))?;
    let query = document
        .split("```promql\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let query = query.context("docs/migrate.md has no query")?;
    let share = format!("({query}) and on (service) label_replace(vector(1), \"service\", \"{CART}\", \"\", \"\")");
    had(mesh, &[(share.as_str(), "1")])
}

fn had(mesh: &Mesh, queries: &[(&str, &str)]) -> Result<()> {
    eventually("Prometheus to have what the VM tells", PATIENCE, || {
        for (query, wanted) in queries {
            let answer = asked(mesh, query)?;
            ensure!(answer == *wanted, "{query}: {answer}");
        }
        Ok(())
    })
}

/// The application's metrics, which here are Prometheus' own, are on the same page, and nothing of any source is left out.
fn merged(mesh: &Mesh) -> Result<()> {
    let file = mesh.vm.bundle().join("cluster.env");
    let before = fs::read_to_string(&file)?;
    let annotations = format!("ISTIO_PROMETHEUS_ANNOTATIONS='{{\"port\":\"{PROMETHEUS}\"}}'\n");
    fs::write(&file, before + &annotations)?;
    had(
        mesh,
        &[
            ("istio_vm_agent_scrape_source_up{type=\"application\"}", "1"),
            ("count(prometheus_build_info)", "1"),
            ("sum(istio_vm_agent_scrape_samples_dropped_total)", "0"),
            ("up", "1"),
        ],
    )
}

/// Whoever probes the VM on 15021 hears nothing of one agent after another.
fn followed(mesh: &Mesh, mut agent: Agent) -> Result<()> {
    let probe = |when: &str| {
        let (code, said) = get(&mesh.network, Host::Vm, 15021, "/healthz/ready")?;
        ensure!(code == 200, "15021 {when}: {code} {said}");
        Ok(said)
    };
    agent.kill()?;
    let said = probe("without an agent")?;
    ensure!(said == "ready, without an agent", "{said}");
    let _next = mesh.vm.start_agent(&mesh.network)?;
    eventually("the next agent to be ready", PATIENCE, || {
        let said = probe("while the next agent starts")?;
        ensure!(said == "ready", "{said}");
        Ok(())
    })
}

/// Both formats, with Envoy's part: promtool reads text, Prometheus asks for OpenMetrics.
fn accepted_by_promtool(mesh: &Mesh) -> Result<()> {
    let (code, page) = get(&mesh.network, Host::Vm, 15020, "/stats/prometheus")?;
    ensure!(
        code == 200 && page.contains("istio_vm_agent_ready 1") && page.contains("envoy_"),
        "{code}: {page}"
    );
    // Only what is ours is to have help and good names: of Envoy's metrics none has.
    let own = page.split("# TYPE envoy_").next().unwrap_or_default();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool: run tests/setup")?;
    promtool.stdin.take().context("stdin")?.write_all(own.as_bytes())?;
    let output = promtool.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}\n{own}");
    Ok(())
}

fn prometheus(mesh: &Mesh) -> Result<Process> {
    let folder = mesh.network.folder().join("prometheus");
    fs::create_dir_all(&folder)?;
    let config = folder.join("prometheus.yaml");
    fs::write(
        &config,
        "scrape_configs:\n- job_name: istio-vm-agent\n  scrape_interval: 1s\n  static_configs:\n  - targets: ['127.0.0.1:15020']\n",
    )?;
    let mut command = mesh.network.command(Host::Vm, EtcView::Plain, "prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{PROMETHEUS}"));
    Process::spawn("prometheus", command, mesh.network.folder())
}

/// The value of a query's one result; empty where it has none.
fn asked(mesh: &Mesh, query: &str) -> Result<String> {
    let escaped: String = query
        .bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02x}"),
        })
        .collect();
    let (_, body) = get(
        &mesh.network,
        Host::Vm,
        PROMETHEUS,
        &format!("/api/v1/query?query={escaped}"),
    )?;
    let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
    Ok(answer["data"]["result"][0]["value"][1]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

/// Every secret of the VM is looked for in every file of the report.
fn report(mesh: &Mesh, kind: Kind) -> Result<()> {
    let file = mesh.network.folder().join("report.tar.gz");
    let output = mesh
        .vm
        .agent(&mesh.network, &["bugreport", &file.display().to_string()])?;
    ensure!(output.status.success(), "{output:?}");
    let mut list = Command::new("tar");
    list.arg("--list").arg("--file").arg(&file);
    let names = output_of(list)?;
    for name in [
        "status.json",
        "check.json",
        "config.txt",
        "envoy/config_dump.json",
        "envoy/stats.txt",
        "rules/nft.txt",
    ] {
        ensure!(names.contains(name), "no {name}: {names}");
    }
    let mut unpack = Command::new("tar");
    unpack.arg("--extract").arg("--to-stdout").arg("--file").arg(&file);
    let all = output_of(unpack)?;
    let identity: Value = serde_json::from_str(&fs::read_to_string(mesh.vm.state_folder().join("identity.json"))?)?;
    let mut secrets: Vec<String> = keys_of(&identity);
    secrets.push(
        fs::read_to_string(mesh.vm.bundle().join("istio-token"))?
            .trim()
            .to_owned(),
    );
    ensure!(secrets.len() > 1, "no key is in the identity: {kind:?}");
    for secret in secrets {
        ensure!(!secret.is_empty() && !all.contains(&secret), "the report has a secret");
    }
    ensure!(!all.contains("PRIVATE KEY"), "the report has a key");
    Ok(())
}

/// The lines of the private key, wherever it is in the document.
fn keys_of(document: &Value) -> Vec<String> {
    match document {
        Value::String(text) if text.contains("PRIVATE KEY") => text
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .map(str::to_owned)
            .collect(),
        Value::Object(members) => members.values().flat_map(keys_of).collect(),
        Value::Array(values) => values.iter().flat_map(keys_of).collect(),
        _ => Vec::new(),
    }
}
