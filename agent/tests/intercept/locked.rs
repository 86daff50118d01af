//! The lock that all programs of legacy iptables share: whoever holds it for a while is waited for.

use istio_vm_agent::config::Backend;
use istio_vm_agent::host::{CommandError, Host, Invocation, Run, System};
use istio_vm_agent::intercept::{self, Options};

use super::installed::{Installed, START};
use super::rig::*;

/// Runs commands with the VM's own files, of which the lock is one.
#[derive(Debug)]
struct WithFiles(u32);

impl Run for WithFiles {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        let holder = self.0.to_string();
        let prefix = ["nsenter", "--target", &holder, "--mount", "--net"].map(str::to_owned);
        let argv = prefix.into_iter().chain(call.argv.iter().cloned());
        System.run(&Invocation::new(argv).with_stdin(&call.stdin))
    }
}

#[test]
fn lock_of_legacy_iptables_is_waited_for() {
    let mut vm = Installed::new("locked", "/etc/ufw");
    // Ours go where Docker's are.
    vm.rig
        .feed("iptables-legacy-restore", "*nat\n:DOCKER - [0:0]\nCOMMIT\n");
    vm.shell("mkfifo /run/release").unwrap();
    vm.start("flock /run/xtables.lock sh -c 'read line </run/release'");
    eventually("the lock", START, || {
        vm.shell("flock --nonblock /run/xtables.lock true").is_err()
    });
    let rig = &vm.rig;
    let host = Host::new(rig.host.real_path("/".as_ref()), WithFiles(vm.holder()));
    let apply = || {
        let options = Options {
            host: host.clone(),
            ..rig.options(Backend::Iptables)
        };
        let change = intercept::change(&membership(), &options).unwrap();
        change.apply(&host).unwrap();
    };
    std::thread::scope(|scope| {
        // In the namespace itself: which legacy tables there are is read from /proc.
        let applied = scope.spawn(|| rig.at(&rig.vm, Who::Root, apply));
        eventually("a program that waits for the lock", START, || {
            vm.shell("pgrep -x iptables-legacy").is_ok()
        });
        vm.shell("echo >/run/release").unwrap();
        applied.join().unwrap();
    });
    let rules = rig.vm("iptables-legacy-save");
    assert!(rules.contains("15006"), "{rules}");
}
