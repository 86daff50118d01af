//! A VM as istio-sidecar.deb and istioctl's five files make it, as a tree of files.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::*;
use crate::control_plane::fixtures::{self, Ca, issued_by};
use crate::host::fixtures::Answers;
use crate::host::{Invocation, Run};
use crate::join::Join;

pub(super) const CONFIG: &str = "/etc/istio-vm-agent/config.toml";
const TOKEN: &str = "aaa.bbb.ccc";

pub(super) struct Vm {
    pub(super) root: tempfile::TempDir,
    pub(super) host: Host,
}

impl Vm {
    fn new(sidecar_env: &str) -> Self {
        Self::with(sidecar_env, |_| Answers(|call: &Invocation| panic!("{call}")))
    }

    /// One whose commands are run by what is made of the root directory.
    pub(super) fn with<R: Run + 'static>(sidecar_env: &str, runner: impl FnOnce(&Path) -> R) -> Self {
        let root = tempfile::tempdir().unwrap();
        let runner = runner(root.path());
        let host = Host::new(root.path(), runner);
        let vm = Self { root, host };
        let now = SystemTime::now();
        let ca = Ca::new("mesh");
        let certificate = issued_by(&ca, now - Duration::from_secs(60), now + Duration::from_secs(3600));
        let id = &certificate.spiffe_id;
        let env = format!(
            "ISTIO_INBOUND_PORTS='3550'\nISTIO_META_DNS_CAPTURE='true'\nISTIO_NAMESPACE='{0}'\nISTIO_SVC_IP='10.0.0.7'\n\
             POD_NAMESPACE='{0}'\nSERVICE_ACCOUNT='{1}'\nTRUST_DOMAIN='{2}'\n",
            id.namespace, id.service_account, id.trust_domain
        );
        let mesh = "defaultConfig:\n  discoveryAddress: istiod-canary.istio-system.svc:15012\n  readinessProbe:\n    \
                    grpc:\n      port: 3550\n";
        for (path, text) in [
            ("/var/lib/istio/envoy/sidecar.env", sidecar_env),
            ("/var/lib/istio/envoy/cluster.env", &env),
            ("/etc/istio/config/mesh", mesh),
            ("/etc/certs/root-cert.pem", &ca.root_pem()),
            ("/etc/certs/key.pem", certificate.key.expose_pem()),
            ("/etc/certs/cert-chain.pem", &certificate.chain_pem),
            ("/var/run/secrets/tokens/istio-token", TOKEN),
            (
                "/etc/hosts",
                "127.0.0.1 localhost\n10.0.0.2 istiod-canary.istio-system.svc\n",
            ),
        ] {
            vm.write(path, text);
        }
        vm
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = Path::new(path);
        self.host.make_directory(path.parent().unwrap(), 0o755, None).unwrap();
        self.host.write(path, text, 0o644, None).unwrap();
    }

    pub(super) fn plan(&self) -> Result<Plan> {
        Plan::make(&self.host, Path::new(CONFIG), &settings(&self.host)?)
    }

    fn text(&self, path: &str) -> String {
        self.host.text(Path::new(path))
    }
}

fn note(plan: &Plan, key: &str) -> (bool, String) {
    let mut notes = plan.import.notes.iter();
    let note = notes.find(|note| note.setting.starts_with(key)).unwrap();
    (note.taken, note.detail.clone())
}

#[test]
fn import_makes_a_bundle_that_joins() {
    let vm = Vm::new("# all of it is commented out\n");
    let plan = vm.plan().unwrap();
    plan.write(&vm.host).unwrap();
    let config = Config::parse(Path::new(CONFIG), &vm.text(CONFIG)).unwrap();
    let membership = Join::open(&config, &vm.host).unwrap().at_hand().unwrap().unwrap();
    assert_eq!(membership.spiffe_id, fixtures::id());
    assert_eq!(membership.discovery_address, "istiod-canary.istio-system.svc:15012");
    assert_eq!(membership.instance_ips[0].to_string(), "10.0.0.7");
    assert_eq!(membership.inbound_ports, Some(vec![3550]));
    // Not set means another thing to istio-iptables than to us.
    assert_eq!(membership.env["ISTIO_SERVICE_CIDR"], "");
    assert!(membership.probe.is_some());
    assert_eq!(membership.hosts[0].names, ["istiod-canary.istio-system.svc"]);
    let stored = identity::stored(&vm.host, &config.paths.identity()).unwrap().unwrap();
    assert_eq!(stored.spiffe_id, fixtures::id());
    for file in [CONFIG, "/etc/istio-vm-agent/bundle/istio-token"] {
        let meta = vm.host.meta(Path::new(file)).unwrap().unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o600, "{file}");
    }
    let bundle = std::fs::metadata(vm.root.path().join("etc/istio-vm-agent/bundle")).unwrap();
    assert_eq!(bundle.mode() & 0o7777, 0o700);
}

#[test]
fn vm_without_istios_agent_has_nothing_to_import() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), Answers(|call: &Invocation| panic!("{call}")));
    let error = settings(&host).unwrap_err().to_string();
    let said = "/var/lib/istio/envoy/cluster.env: is missing, and so is /var/lib/istio/envoy/sidecar.env: Istio's own agent \
                is not on this VM. There is nothing to import, and nothing has been changed";
    assert!(error.starts_with(said), "{error}");
    assert!(error.ends_with(EXAMPLE), "{error}");
}

#[test]
fn settings_become_keys_or_are_named() {
    let vm = Vm::new(
        "ISTIO_SERVICE_CIDR=10.96.0.0/12\nISTIO_SERVICE_EXCLUDE_CIDR='10.97.0.0/16'\nISTIO_SVC_IP=10.0.0.99\n\
         ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE=25\nISTIO_INBOUND_INTERCEPTION_MODE=TPROXY\nISTIO_BIN_BASE=/opt/istio/\n\
         ISTIO_AGENT_FLAGS=\"--proxyLogLevel debug --concurrency=2 --domain x\"\nPOD_NAME=catalog-1\n\
         ISTIO_PILOT_PORT=32018\nISTIO_CUSTOM_IP_TABLES=true\nSECRET_TTL=12h0m0s\nISTIO_LOG_DIR=/var/log/istio\n\
         ISTIO_EXCLUDE_INTERFACES=eth9\nISTIO_CP_AUTH=MUTUAL_TLS\nSOMETHING='its value'\n\
         ISTIO_META_NETWORK=vms\n",
    );
    let plan = vm.plan().unwrap();
    let config = Config::parse(Path::new(CONFIG), &plan.import.config).unwrap();
    assert_eq!(config.envoy.binary.as_deref(), Some(Path::new("/opt/istio/envoy")));
    assert_eq!(config.envoy.log_level, "debug");
    assert_eq!(config.envoy.concurrency, Some(2));
    assert_eq!(config.network.name.as_deref(), Some("catalog-1"));
    assert_eq!(config.control_plane.addresses, ["istiod.istio-system.svc:32018"]);
    assert_eq!(config.intercept.backend, crate::config::Backend::None);
    assert_eq!(config.identity.ttl, Duration::from_secs(12 * 3600));
    let env = plan.import.bundle.files().find(|(name, _)| *name == "cluster.env");
    let env = join::variables(Path::new("cluster.env"), env.unwrap().1).unwrap();
    assert_eq!(env["ISTIO_SERVICE_CIDR"], "10.96.0.0/12");
    assert_eq!(env["ISTIO_SERVICE_EXCLUDE_CIDR"], "10.97.0.0/16");
    assert_eq!(env["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"], "25");
    assert_eq!(env["ISTIO_SVC_IP"], "10.0.0.7", "cluster.env wins");
    assert_eq!(env["ISTIO_META_NETWORK"], "vms");
    assert_eq!(
        note(&plan, "ISTIO_SERVICE_CIDR"),
        (true, "is in the bundle's cluster.env".to_owned())
    );
    for key in [
        "ISTIO_INBOUND_INTERCEPTION_MODE=TPROXY",
        "ISTIO_LOG_DIR",
        "ISTIO_AGENT_FLAGS: --domain x",
        "SOMETHING=its value",
    ] {
        assert!(!note(&plan, key).0, "{key}");
    }
    assert!(note(&plan, "ISTIO_CP_AUTH").0);
    assert_eq!(env["ISTIO_EXCLUDE_INTERFACES"], "eth9");
}

#[test]
fn flags_that_istio_s_own_templates_use_are_taken() {
    for (flags, level, domain) in [
        (
            "--concurrency 2 --proxyLogLevel warning,misc:error,rbac:debug,jwt:debug",
            "warning",
            "cluster.local",
        ),
        (
            "--proxyLogLevel misc:error --domain onlineboutique.svc.corp.local",
            "warning",
            "corp.local",
        ),
        ("--proxyLogLevel=warn", "warning", "cluster.local"),
    ] {
        let vm = Vm::new(&format!("ISTIO_AGENT_FLAGS=\"{flags}\"\n"));
        let plan = vm.plan().unwrap();
        let config = Config::parse(Path::new(CONFIG), &plan.import.config).unwrap();
        assert_eq!(config.envoy.log_level, level, "{flags}");
        assert_eq!(config.network.cluster_domain(), domain, "{flags}");
    }
}

#[test]
fn istiod_is_known_by_the_roots_that_it_was_known_by() {
    const FALLBACK: &str = "/var/run/secrets/istio/root-cert.pem";
    let vm = Vm::new("");
    let roots = |vm: &Vm| {
        let plan = vm.plan().unwrap();
        let found = plan.import.bundle.files().find(|(name, _)| *name == "root-cert.pem");
        found.unwrap().1.to_owned()
    };
    let first = vm.text("/etc/certs/root-cert.pem");
    vm.write(FALLBACK, &Ca::new("other").root_pem());
    assert_eq!(roots(&vm), first);
    vm.host.remove(Path::new("/etc/certs/root-cert.pem")).unwrap();
    assert_eq!(roots(&vm), vm.text(FALLBACK));
}

#[test]
fn bundle_that_cannot_be_written_leaves_no_configuration() {
    let vm = Vm::new("");
    vm.write("/etc/istio-vm-agent/bundle/mesh.yaml/in-the-way", "");
    vm.plan().unwrap().write(&vm.host).unwrap_err();
    assert!(vm.host.meta(Path::new(CONFIG)).unwrap().is_none());
}

#[test]
fn dry_run_shows_all_but_secrets() {
    let vm = Vm::new("");
    vm.write(CONFIG, "[join]\ndirectory = { path = \"/elsewhere\" }\n");
    let plan = vm.plan().unwrap();
    let report = plan.report(&vm.host).unwrap();
    let [text, json] = [Output::Text, Output::Json].map(|output| report.print(output).unwrap());
    assert!(text.contains("-directory = { path = \"/elsewhere\" }"), "{text}");
    assert!(text.contains("+ISTIO_INBOUND_PORTS='3550'"), "{text}");
    assert!(text.contains("certificate: valid until "), "{text}");
    let key = vm.text("/etc/certs/key.pem");
    let secret = key.lines().nth(1).unwrap();
    for shown in [text, json, format!("{:?}", plan.import)] {
        assert!(!shown.contains(TOKEN) && !shown.contains(secret), "{shown}");
    }
    assert!(vm.host.meta(Path::new("/etc/istio-vm-agent/bundle")).unwrap().is_none());
}

#[test]
fn certificate_of_no_use_is_named_and_left_behind() {
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let old = issued_by(&Ca::new("mesh"), now - 2 * hour, now - hour);
    for (chain, key, expected) in [
        (old.chain_pem.as_str(), old.key.expose_pem(), "is over"),
        (&old.chain_pem, "", "is of no use"),
    ] {
        let vm = Vm::new("");
        vm.write("/etc/certs/cert-chain.pem", chain);
        vm.write("/etc/certs/key.pem", key);
        let plan = vm.plan().unwrap();
        assert!(plan.certificate.contains(expected), "{}", plan.certificate);
        plan.write(&vm.host).unwrap();
        assert!(vm.host.meta(&plan.identity).unwrap().is_none());
        assert!(
            plan.certificate.ends_with("asked for with the token"),
            "{}",
            plan.certificate
        );
        vm.host
            .remove(Path::new("/var/run/secrets/tokens/istio-token"))
            .unwrap();
        let certificate = vm.plan().unwrap().certificate;
        assert!(
            certificate.contains("there is no token to ask for one"),
            "{certificate}"
        );
    }
}

#[test]
fn import_of_missing_or_broken_files_is_told_and_writes_nothing() {
    for (path, text, expected) in [
        (
            "/var/lib/istio/envoy/cluster.env",
            None,
            "/var/lib/istio/envoy/cluster.env: is missing",
        ),
        ("/etc/certs/root-cert.pem", None, "/etc/certs/root-cert.pem: is missing"),
        (
            "/var/lib/istio/envoy/sidecar.env",
            Some("\nISTIO_SVC_IP=$(hostname -i)\n"),
            "/var/lib/istio/envoy/sidecar.env:2:14: ISTIO_SVC_IP: a shell",
        ),
        (
            "/etc/istio/config/mesh",
            Some("defaultConfig: [\n"),
            "what Istio's own agent was told makes no bundle: /etc/istio-vm-agent/bundle/mesh.yaml",
        ),
    ] {
        let vm = Vm::new("");
        match text {
            Some(text) => vm.write(path, text),
            None => vm.host.remove(Path::new(path)).unwrap(),
        }
        let error = format!("{:#}", vm.plan().map(drop).unwrap_err());
        assert!(error.starts_with(expected), "{error}");
        assert!(vm.host.meta(Path::new("/etc/istio-vm-agent")).unwrap().is_none());
    }
}

#[test]
fn name_that_the_operator_s_own_hosts_file_has_stays_allowed() {
    let vm = Vm::new("PILOT_ADDRESS=pilot.example:15012\n");
    let own = "10.0.0.2 istiod-canary.istio-system.svc ca.example\n10.0.0.3 pilot.example # mine\n";
    vm.write("/etc/hosts", own);
    let env = vm.text("/var/lib/istio/envoy/cluster.env");
    vm.write(
        "/var/lib/istio/envoy/cluster.env",
        &(env + "CA_ADDR='ca.example:443'\n"),
    );
    let plan = vm.plan().unwrap();
    assert!(
        plan.import
            .config
            .contains("hosts_allow = [\"ca.example\", \"pilot.example\"]"),
        "{}",
        plan.import.config
    );
}
