//! Envoy's life, with a real Envoy. Needs root, and ISTIO_VM_AGENT_ENVOY.
#![expect(clippy::unwrap_used, reason = "what can't be done fails the case")]

mod vm;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use istio_vm_agent::envoy;
use istio_vm_agent::facts::{EnvoyState, Membership};
use istio_vm_agent::host::Invocation;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vm::{Vm, eventually, membership};

/// What the listener of these cases leads to: echoes until the caller is done.
async fn serve_echoes() {
    let listener = TcpListener::bind("127.0.0.1:15020").await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    }
}

/// A call through Envoy's inbound listener.
async fn call() -> TcpStream {
    let mut stream = TcpStream::connect("127.0.0.1:15006").await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
    stream
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

fn is_running(pid: u32) -> bool {
    // Nobody waits for the child of an agent that died.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn proc(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}

#[tokio::test]
async fn envoy_accepts_every_shape_of_the_bootstrap() {
    let vm = Vm::new();
    let file = vm.options.paths.run.join("candidate.json");
    let endpoints = vm.options.paths.container_endpoints();
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
                published: vec!["3550:8080".parse().unwrap()],
                container_endpoints: vm.options.paths.container_endpoints(),
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
    assert_eq!(vm.options.admin().version().await.unwrap().split('.').count(), 3);

    agent.drain().await;
    assert_eq!(vm.running(), None);
    assert_eq!(vm.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn envoy_outlives_the_agent_and_is_adopted() {
    let vm = Vm::new();
    let mut agent = vm.agent();
    let (pid, ..) = agent.ready().await;
    agent.die();
    assert_eq!(vm.running(), Some(pid));
    let mut agent = vm.agent();
    assert_eq!(agent.ready().await, (pid, true, 0));

    // As if the first agent had died before it had recorded: what that Envoy runs is not known.
    agent.die();
    fs::remove_file(vm.options.paths.envoy_record()).unwrap();
    let mut agent = vm.agent();
    let (next, adopted, _) = agent.ready().await;
    assert!(next != pid && !adopted);
    agent.die();

    let stopped = envoy::stop_recorded(&vm.options.host, &vm.options.paths).await.unwrap();
    assert_eq!((stopped, vm.running()), (Some(next), None));
    assert!(!is_running(pid));
    assert_eq!(vm.leftovers(), Vec::<String>::new());
    let again = envoy::stop_recorded(&vm.options.host, &vm.options.paths).await.unwrap();
    assert_eq!(again, None);
}

#[tokio::test]
async fn a_killed_envoy_is_started_again() {
    let vm = Vm::new();
    let mut agent = vm.agent();
    let (first, ..) = agent.ready().await;
    kill(first, Signal::KILL);
    let down = agent.wait_for(|state| matches!(state, EnvoyState::Down { .. })).await;
    let reason = format!("{down:?}");
    assert!(reason.contains("signal: 9 (SIGKILL)"), "{reason}");
    let (second, adopted, restarts) = agent.ready().await;
    assert_ne!(first, second);
    assert_eq!((adopted, restarts), (false, 1));

    // One that was adopted is watched like a child.
    agent.die();
    let mut agent = vm.agent();
    agent.ready().await;
    kill(second, Signal::KILL);
    agent.wait_for(|state| matches!(state, EnvoyState::Down { .. })).await;
    let (third, adopted, restarts) = agent.ready().await;
    assert_ne!(second, third);
    assert_eq!((adopted, restarts), (false, 1));
    agent.drain().await;
}

/// A membership that Envoy's bootstrap differs by.
fn moved() -> Arc<Membership> {
    let mut moved = membership();
    moved.instance_ips = vec!["10.200.0.9".parse().unwrap()];
    Arc::new(moved)
}

#[tokio::test]
async fn another_bootstrap_has_another_envoy_take_over() {
    let vm = Vm::new();
    let case = async {
        let mut agent = vm.agent();
        let (first, ..) = agent.ready().await;
        let mut open = call().await;

        vm.membership.send_replace(moved());
        let mut states = agent.state.clone();
        let taken_over = async {
            let ready = |state: &EnvoyState| match *state {
                EnvoyState::Ready { pid, .. } => pid != first,
                _ => panic!("no Envoy was ready meanwhile: {state:?}"),
            };
            states.wait_for(ready).await.unwrap();
        };
        let calls = async {
            loop {
                drop(call().await);
            }
        };
        tokio::select! {
            () = taken_over => {}
            () = calls => {}
        }
        let bootstrap = fs::read_to_string(vm.options.paths.bootstrap()).unwrap();
        assert!(bootstrap.contains("10.200.0.9"));

        // What was open goes on, and the old one ends when its callers have gone.
        open.write_all(b"pong").await.unwrap();
        let mut answer = [0; 4];
        open.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong");
        assert!(is_running(first));
        drop(open);
        eventually("the first Envoy's end", || !is_running(first)).await;
        eventually("one admin socket", || !vm.options.paths.admin_socket_aside().exists()).await;
        drop(call().await);
        agent.drain().await;
        assert_eq!(vm.leftovers(), Vec::<String>::new());
    };
    tokio::select! {
        () = case => {}
        () = serve_echoes() => {}
    }
}

#[tokio::test]
async fn an_agent_that_dies_while_one_takes_over_leaves_both_to_the_next() {
    let mut vm = Vm::new();
    vm.options.config.drain = Some(Duration::from_secs(1));
    let mut agent = vm.agent();
    let (first, ..) = agent.ready().await;
    // A fact that is none of Envoy's.
    vm.membership
        .send_modify(|membership| Arc::make_mut(membership).roots_pem = "other".to_owned());
    agent.die();
    assert_eq!(vm.running(), Some(first));

    vm.membership.send_replace(moved());
    let agent = vm.agent();
    eventually("a second Envoy", || vm.running().is_some_and(|pid| pid != first)).await;
    let second = vm.running().unwrap();
    agent.die();
    assert!(is_running(first) && is_running(second));

    let mut agent = vm.agent();
    assert_eq!(agent.ready().await, (second, true, 0));
    eventually("the first Envoy's end", || !is_running(first)).await;
    agent.drain().await;
    assert_eq!(vm.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn one_that_does_not_start_leaves_the_callers_to_the_one_before() {
    let mut vm = Vm::new();
    let mut agent = vm.agent();
    let (first, ..) = agent.ready().await;
    agent.die();
    vm.options.config.log_level = "no-such-level".to_owned();
    let agent = vm.agent();
    eventually("two failed starts", || {
        vm.log.text().matches("exit status: 1").count() >= 2
    })
    .await;
    assert!(is_running(first));
    agent.die();

    // What that one's bootstrap is nobody knows any more.
    vm.options.config.log_level = istio_vm_agent::config::EnvoyConfig::default().log_level;
    let mut agent = vm.agent();
    let (pid, ..) = agent.ready().await;
    assert!(pid != first);
    agent.drain().await;
    assert!(!is_running(first));
    assert_eq!(vm.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_stale_record_harms_nobody() {
    let vm = Vm::new();
    // Its pid is that of another process of Envoy's user now.
    let mut bystander = bystander();
    let record = json!({
        "pid": bystander.id(),
        "start_time": 1,
        "command_line": [],
        "binary": { "device": 1, "inode": 1, "modified": [1, 1] },
    });
    vm.options
        .host
        .write(&vm.options.paths.envoy_record(), &record.to_string(), 0o600, None)
        .unwrap();
    assert_eq!(vm.running(), None);
    let mut agent = vm.agent();
    let (pid, adopted, _) = agent.ready().await;
    assert!(!adopted && pid != bystander.id());
    agent.drain().await;
    assert_eq!(bystander.try_wait().unwrap(), None);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a process that is not ours")]
fn bystander() -> Child {
    Command::new("sleep").arg("600").uid(1337).gid(1337).spawn().unwrap()
}

#[tokio::test]
async fn a_missing_program_fails_the_start() {
    let mut vm = Vm::new();
    vm.options.config.binary = Some("/no/such/envoy".into());
    let error = format!("{:#}", vm.agent().failure().await);
    assert!(error.contains("/no/such/envoy: check envoy.binary"), "{error}");
}

#[tokio::test]
async fn a_reason_to_die_is_told() {
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
async fn the_access_log_is_read_by_this_agent_and_the_next() {
    let vm = Vm::new();
    let lines = || vm.log.text().matches("envoy::access").count();
    let case = async {
        let mut agent = vm.agent();
        agent.ready().await;
        drop(call().await);
        eventually("a line of the access log", || lines() == 1).await;

        agent.die();
        drop(call().await);
        assert_eq!(lines(), 1);
        let mut agent = vm.agent();
        agent.ready().await;
        eventually("the line that nobody read", || lines() == 2).await;
        drop(call().await);
        eventually("the next line", || lines() == 3).await;
        agent.drain().await;
    };
    tokio::select! {
        () = case => {}
        () = serve_echoes() => {}
    }
}

#[tokio::test]
async fn envoy_serves_on_while_nobody_reads_what_it_writes() {
    let vm = Vm::new();
    let case = async {
        let mut agent = vm.agent();
        let (pid, ..) = agent.ready().await;
        agent.die();
        for fifo in [vm.options.paths.envoy_output(), vm.options.paths.envoy_errors()] {
            fill(&fifo);
        }
        let admin = vm.options.admin();
        // Each call writes an access log line and, at this level, many of Envoy's own.
        admin.set_log_level("debug").await.unwrap();
        for _ in 0..100 {
            drop(call().await);
        }
        assert!(admin.readiness().await.unwrap().is_ready());
        admin.set_log_level("warning").await.unwrap();

        let mut agent = vm.agent();
        assert_eq!(agent.ready().await, (pid, true, 0));
        eventually("all lines", || vm.log.text().matches("envoy::access").count() >= 100).await;
        agent.drain().await;
    };
    tokio::select! {
        () = case => {}
        () = serve_echoes() => {}
    }
}

/// Writes until no more goes in.
fn fill(fifo: &Path) {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .custom_flags(nonblocking)
        .open(fifo)
        .unwrap();
    let line = format!("{}\n", "x".repeat(1023));
    while file.write_all(line.as_bytes()).is_ok() {}
}

#[tokio::test]
async fn a_drain_waits_for_the_callers() {
    let mut vm = Vm::new();
    // Longer than this case waits for anything: only the caller's leaving can end the drain.
    vm.options.config.drain = Some(vm::PATIENCE * 10);
    let case = async {
        let mut agent = vm.agent();
        agent.ready().await;
        let caller = call().await;
        let mut state = agent.state.clone();
        let drained = agent.drain();
        tokio::pin!(drained);
        tokio::select! {
            () = &mut drained => panic!("did not wait"),
            draining = state.wait_for(|state| matches!(state, EnvoyState::Draining { .. })) => drop(draining),
        }
        tokio::select! {
            () = &mut drained => panic!("did not wait"),
            () = eventually("a second look", || vm.log.text().matches("still draining").count() > 1) => {}
        }
        drop(caller);
        drained.await;
        assert!(vm.log.text().contains("no connection is left"), "{}", vm.log.text());
        assert_eq!(vm.running(), None);
    };
    tokio::select! {
        () = case => {}
        () = serve_echoes() => {}
    }
}
