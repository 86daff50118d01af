use serde_json::{Value, json};

use super::*;
use crate::init::name;
use crate::init::vm::tests::vm;
use crate::migration::Protocol;
use crate::migration::tests::{HOSTS, migration};

const IMAGE: &str = "registry.example/catalog@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn subject() -> Subject {
    Subject {
        namespace: name("boutique").unwrap(),
        workload_group: name("catalog").unwrap(),
        protocol: Protocol::Http,
        service: name("catalog").unwrap(),
        pods_service: name("catalog-pods").unwrap(),
    }
}

/// Objects of a cluster for a VM that listens on 8080 for port 80 of its Service.
fn found() -> Found {
    Found {
        gateway_routes: None,
        entry: migration(HOSTS).clusters[0].clone(),
        id: None,
        network: None,
        gateway: None,
        group: Some(json!({ "spec": {
            "metadata": { "labels": { "app": "catalog", "version": "v1" } },
            "template": { "serviceAccount": "catalog-account", "ports": { "grpc": 8080 } },
            "probe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 5 },
        } })),
        services: vec![json!({ "metadata": { "name": "catalog" }, "spec": {
            "selector": { "app": "catalog" },
            "ports": [{ "name": "grpc", "port": 80, "protocol": "TCP", "targetPort": 8080 }],
        } })],
        registered: vec!["catalog-10.0.0.1".to_owned(), "catalog-10.0.0.2".to_owned()],
        unread: Vec::new(),
    }
}

fn of(container: &str, more: &str) -> Pods {
    let text = format!("[workload.container]\nname = 'x'\nimage = '{IMAGE}'\n{container}\n{more}");
    pods(&subject(), &found(), &vm(&text), None).unwrap()
}

fn spec(pods: &Pods) -> &Value {
    &pods.objects[2]["spec"]["template"]["spec"]
}

#[test]
fn pod_is_what_the_vm_is() {
    let pods = of(
        "ports = ['8080:3550']\nenv = { GREETING = 'a $(B)' }\ncommand = ['--port', '3550']\nuser = '1000:2000'\n\
         memory = '512m'\ncpus = 1.5\nread_only = true\nstop_timeout = '45500ms'",
        "",
    );
    let own = &spec(&pods)["containers"][0];
    assert_eq!(own["image"], IMAGE);
    assert_eq!(own["args"], json!(["--port", "3550"]));
    assert_eq!(own["env"], json!([{ "name": "GREETING", "value": "a $$(B)" }]));
    assert_eq!(own["ports"], json!([{ "containerPort": 3550, "protocol": "TCP" }]));
    assert_eq!(own["resources"]["limits"], json!({ "cpu": "1.5", "memory": "512Mi" }));
    let security = &own["securityContext"];
    assert_eq!(
        [&security["runAsUser"], &security["runAsGroup"]],
        [&json!(1000), &json!(2000)]
    );
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"].as_array().unwrap().len(), 5);
    assert_eq!(spec(&pods)["serviceAccountName"], "catalog-account");
    assert_eq!(spec(&pods)["terminationGracePeriodSeconds"], 46);
    assert_eq!(pods.objects[2]["spec"]["replicas"], 2);
    assert_eq!(pods.notes, [""; 0]);
}

#[test]
fn pods_are_called_as_the_vm_is_and_not_by_its_service() {
    let pods = of("ports = ['8080:3550']", "");
    let service = &pods.objects[1]["spec"];
    let port = json!([{ "name": "grpc", "port": 80, "protocol": "TCP", "targetPort": 3550 }]);
    assert_eq!(service["ports"], port);
    let template = &pods.objects[2]["spec"]["template"];
    let labels = template["metadata"]["labels"].as_object().unwrap();
    assert_eq!([&labels["app"], &labels["version"]], ["catalog-pods", "v1"]);
    assert!(!selects(&found().services[0], labels));
    assert!(selects(&pods.objects[1], labels));
}

#[test]
fn probe_is_the_vms_on_the_containers_port() {
    let probe = |more: &str| spec(&of("ports = ['8080:3550']", more))["containers"][0]["readinessProbe"].clone();
    let of_group = probe("");
    assert_eq!(of_group["tcpSocket"], json!({ "port": 3550 }));
    assert_eq!([&of_group["periodSeconds"], &of_group["failureThreshold"]], [5, 1]);
    let grpc = probe("[health.probe]\ngrpc = { port = 8080, service = 'catalog' }\nperiod = '1500ms'");
    assert_eq!(grpc["grpc"], json!({ "port": 3550, "service": "catalog" }));
    assert_eq!(grpc["periodSeconds"], 2);
    let http =
        probe("[health.probe]\nhttp = { port = 8080, host = '127.0.0.1', path = '/healthz', headers = { A = 'b' } }");
    let expected =
        json!({ "port": 3550, "path": "/healthz", "scheme": "HTTP", "httpHeaders": [{ "name": "A", "value": "b" }] });
    assert_eq!(http["httpGet"], expected);
}

#[test]
fn secrets_are_named_and_data_is_claimed() {
    let pods = of(
        "ports = ['8080:3550']\nsecrets = ['/etc/catalog/db-password']\nenv_files = ['/etc/catalog.env']\n\
         registry_config = '/etc/registry.json'\nmounts = ['/srv/data:/data:ro']\ntmpfs = ['/tmp']",
        "",
    );
    let volumes = &spec(&pods)["volumes"];
    let secret =
        json!({ "secretName": "catalog-pods-secrets", "items": [{ "key": "db-password", "path": "db-password" }] });
    assert_eq!(volumes[0]["secret"], secret);
    assert_eq!(volumes[1]["emptyDir"]["medium"], "Memory");
    assert_eq!(volumes[2]["persistentVolumeClaim"]["claimName"], "catalog-pods-data-0");
    let own = &spec(&pods)["containers"][0];
    assert_eq!(own["volumeMounts"][0]["mountPath"], "/run/secrets");
    assert_eq!(
        own["envFrom"],
        json!([{ "secretRef": { "name": "catalog-pods-env-0" } }])
    );
    assert_eq!(
        spec(&pods)["imagePullSecrets"],
        json!([{ "name": "catalog-pods-registry" }])
    );
    assert_eq!(spec(&pods)["automountServiceAccountToken"], false);
    let told = pods.notes.join("\n");
    for words in [
        "kubectl create secret generic catalog-pods-secrets --namespace boutique --from-file=/etc/catalog/db-password",
        "--from-env-file=/etc/catalog.env",
        "--from-file=.dockerconfigjson=/etc/registry.json",
        "/data is /srv/data on the VM",
    ] {
        assert!(told.contains(words), "{words} is not in {told}");
    }
}

#[test]
fn setting_that_no_pod_can_have_is_a_note() {
    for (container, words) in [
        ("network = 'host'", "on the VM's loopback"),
        ("cloud_identity = true", "Workload Identity"),
        ("pids_limit = 100", "podPidsLimit"),
        ("ulimits = { nofile = '65536' }", "ulimits"),
        ("stop_signal = 'SIGINT'", "STOPSIGNAL"),
        ("user = 'app'", "runAsUser"),
        ("labels = { team = 'shop' }", "labels are Docker's"),
        ("ports = []", "doesn't publish"),
    ] {
        let told = of(container, "").notes.join("\n");
        assert!(told.contains(words), "{container}: {told}");
    }
}

#[test]
fn image_is_one_that_nobody_can_change() {
    let with = |image| {
        let vm = vm("[workload.container]\nimage = 'registry.example/catalog:1'\n");
        pods(&subject(), &found(), &vm, image)
    };
    let refused = with(None).err().unwrap().to_string();
    assert!(
        refused.contains("docker image inspect") && refused.contains("--image"),
        "{refused}"
    );
    assert_eq!(spec(&with(Some(IMAGE)).unwrap())["containers"][0]["image"], IMAGE);
}

#[test]
fn labels_by_which_another_service_selects_are_left_out() {
    let mut found = found();
    let other = json!({ "metadata": { "name": "all-v1" }, "spec": { "selector": { "version": "v1" } } });
    found.services.push(other);
    let text = format!("[workload.container]\nname = 'x'\nimage = '{IMAGE}'\n");
    let pods = pods(&subject(), &found, &vm(&text), None).unwrap();
    let labels = &pods.objects[2]["spec"]["template"]["metadata"]["labels"];
    assert!(
        labels["version"].is_null() && labels["app"] == "catalog-pods",
        "{labels}"
    );
    assert!(pods.notes.iter().any(|note| note.contains("all-v1 selects the VM too")));
}
