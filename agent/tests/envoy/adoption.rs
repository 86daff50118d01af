//! An Envoy that an earlier agent started.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use istio_vm_agent::envoy;
use serde_json::{Value, json};

use crate::processes::is_running;
use crate::vm::Vm;

#[tokio::test]
async fn envoy_outlives_the_agent_and_is_adopted() {
    let vm = Vm::new();
    let mut agent = vm.agent();
    let (pid, ..) = agent.ready().await;
    agent.die();
    assert_eq!(vm.running(), Some(pid));
    let mut agent = vm.agent();
    assert_eq!(agent.ready().await, (pid, true, 0));

    // As if the first agent had died when it had started Envoy, and before it knew its process.
    agent.die();
    let record = vm.options.paths.envoy_record();
    let mut ledger: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let mut intent = ledger["envoys"][0].take();
    for of_the_process in ["pid", "start_time"] {
        intent.as_object_mut().unwrap().remove(of_the_process);
    }
    intent["unit"] = Value::Null;
    let ledger = json!({ "envoys": [], "starting": intent }).to_string();
    vm.options.host.write(&record, &ledger, 0o600, None).unwrap();
    assert_eq!(vm.running(), None);
    let mut agent = vm.agent();
    assert_eq!(agent.ready().await, (pid, true, 0));
    agent.die();

    let stopped = envoy::stop_recorded(&vm.options.host, &vm.options.paths).await.unwrap();
    assert_eq!((stopped, vm.running()), (Some(pid), None));
    assert!(!is_running(pid));
    assert_eq!(vm.leftovers(), Vec::<String>::new());
    let again = envoy::stop_recorded(&vm.options.host, &vm.options.paths).await.unwrap();
    assert_eq!(again, None);
}

#[tokio::test]
async fn ledger_that_is_stale_harms_nobody() {
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

#[tokio::test]
async fn process_that_only_looks_like_envoy_is_left_alone_and_nobody_waits_for_it() {
    let vm = Vm::new();
    let mut decoys: Vec<Child> = (0..4).map(|_| decoy(&vm)).collect();
    let mut agent = vm.agent();
    let (pid, adopted, _) = agent.ready().await;
    assert!(!adopted);
    assert_eq!(vm.running(), Some(pid));
    agent.drain().await;
    for decoy in &mut decoys {
        assert_eq!(decoy.try_wait().unwrap(), None);
        decoy.kill().unwrap();
        decoy.wait().unwrap();
    }
    assert!(!is_running(pid));
}

/// A process of Envoy's user, with Envoy's command line, that ignores TERM.
fn decoy(vm: &Vm) -> Child {
    let deaf = "trap '' TERM; echo deaf; read line";
    let mut child = Command::new("sh")
        .args(["-c", deaf, "envoy", "-c"])
        .arg(vm.options.paths.bootstrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .uid(1337)
        .gid(1337)
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    child.stdout.take().unwrap().read_exact(&mut said).unwrap();
    child
}

fn bystander() -> Child {
    Command::new("sleep").arg("600").uid(1337).gid(1337).spawn().unwrap()
}
