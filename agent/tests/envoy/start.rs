//! Envoy's start, and its start after it died.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use istio_vm_agent::envoy;
use istio_vm_agent::facts::EnvoyState;
use istio_vm_agent::host::Invocation;
use rustix::process::Signal;
use serde_json::json;

use crate::processes::{kill, proc};
use crate::vm::{self, Vm, membership};

#[tokio::test]
async fn envoy_accepts_every_shape_of_the_bootstrap() {
    let vm = Vm::new();
    let file = vm.options.paths.run.join("candidate.json");
    let endpoints = vm.options.paths.container_endpoints("container");
    let folder = endpoints.parent().unwrap();
    vm.options.host.make_directory(folder, 0o755, None).unwrap();
    let none = r#"{"resources": []}"#;
    vm.options.host.write(&endpoints, none, 0o644, None).unwrap();
    let mut knobs = membership();
    let fields = json!({
        "extraStatTags": ["destination_port"],
        "proxyStatsMatcher": { "inclusionRegexps": ["http.*"] },
        "runtimeValues": { "x": "true" },
        "statsCompression": false,
    });
    knobs.proxy_config.0.extend(fields.as_object().unwrap().clone());
    let mut v6 = membership();
    v6.instance_ips = vec!["fd00:200::3".parse().unwrap()];
    let mut dual = v6.clone();
    dual.instance_ips.push("10.200.0.3".parse().unwrap());
    dual.env.insert("ISTIO_DUAL_STACK".to_owned(), "true".to_owned());
    for membership in [membership(), knobs, v6, dual] {
        for admin_port in [None, Some(15000)] {
            let options = envoy::BootstrapOptions {
                xds_socket: vm.options.paths.xds_socket(),
                sds_socket: vm.options.paths.sds_socket(),
                admin_socket: vm.options.paths.admin_socket(),
                admin_port,
                published: vec![envoy::PublishedPort {
                    mapping: "3550:8080".parse().unwrap(),
                    endpoints: vm.options.paths.container_endpoints("container"),
                }],
            };
            let text = envoy::bootstrap(&membership, &options).to_string();
            vm.options.host.write(&file, &text, 0o644, None).unwrap();
            let mut line = envoy::command_line(&vm.options, &vm::binary(), &membership);
            line[2] = file.to_string_lossy().into_owned();
            line.extend(["--mode".to_owned(), "validate".to_owned()]);
            vm.options.host.run(&Invocation::new(line)).unwrap();
        }
    }
    let version = envoy::version(&vm.options.host, &vm::binary()).unwrap();
    assert!(version.starts_with("1."), "{version}");
}

#[tokio::test]
async fn envoy_runs_without_privileges_and_leaves_nothing() {
    let vm = Vm::new();
    let mut agent = vm.agent();
    let (pid, adopted, restarts) = agent.ready().await;
    assert_eq!((adopted, restarts), (false, 0));
    let status = proc(pid, "status");
    for line in [
        "Uid:\t1337\t1337\t1337\t1337",
        "Gid:\t1337\t1337\t1337\t1337",
        "Groups:\t \n",
    ] {
        assert!(status.contains(line), "{line:?} is not in {status}");
    }
    assert_eq!(proc(pid, "environ"), "");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let files = proc(pid, "limits")
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap()
        .to_owned();
    let limits: Vec<&str> = files.split_ascii_whitespace().skip(3).take(2).collect();
    assert_eq!(limits[0], limits[1]);
    let mode = |path: &Path| {
        fs::metadata(path)
            .map(|meta| (meta.mode() & 0o7777, meta.uid()))
            .unwrap()
    };
    assert_eq!(mode(&vm.options.paths.envoy()), (0o700, 1337));
    // Envoy opens it by its group, of which only Envoy gets into that directory.
    assert_eq!(mode(&vm.options.paths.envoy_output()), (0o660, 0));
    assert_eq!(mode(&vm.options.paths.admin_socket()), (0o600, 1337));
    assert_eq!(mode(&vm.options.paths.bootstrap()), (0o640, 0));

    agent.drain().await;
    assert_eq!(vm.running(), None);
    assert_eq!(vm.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn start_fails_when_the_program_is_missing() {
    let mut vm = Vm::new();
    vm.options.config.binary = Some("/no/such/envoy".into());
    let error = format!("{:#}", vm.agent().failure().await);
    assert!(error.contains("/no/such/envoy: check envoy.binary"), "{error}");
}

#[tokio::test]
async fn envoys_reason_to_die_is_told() {
    let mut vm = Vm::new();
    vm.options.config.log_level = "no-such-level".to_owned();
    let mut agent = vm.agent();
    let down = agent.wait_for(|state| matches!(state, EnvoyState::Down { .. })).await;
    let EnvoyState::Down { reason } = down else {
        unreachable!()
    };
    assert!(
        reason.contains("exit status: 1") && reason.contains("no-such-level"),
        "{reason}"
    );
    agent.drain().await;
    assert_eq!(vm.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn envoy_that_is_killed_is_started_again() {
    let vm = Vm::new();
    let mut agent = vm.agent();
    let (first, ..) = agent.ready().await;
    kill(first, Signal::KILL);
    let (second, adopted, restarts) = agent.ready_after(first).await;
    let log = vm.log.text();
    assert!(log.contains("signal: 9 (SIGKILL)"), "{log}");
    assert_eq!((adopted, restarts), (false, 1));

    // One that was adopted is watched like a child.
    agent.die();
    let mut agent = vm.agent();
    agent.ready().await;
    kill(second, Signal::KILL);
    let (_, adopted, restarts) = agent.ready_after(second).await;
    assert_eq!((adopted, restarts), (false, 1));
    agent.drain().await;
}
