//! Envoy as a unit of its own: systemd starts it in a sandbox tighter than the agent's, and in a cgroup that no end
//! of the agent's reaches.
//!
//! The unit's program is `istio-vm-agent envoy`, which becomes the Envoy that the agent has written down for it.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::launch_spec::LaunchSpec;
use crate::config::PathsConfig;
use crate::host::{Host, Invocation, Read};

/// The longest command line that is read, in bytes, as JSON.
const MAX_COMMAND_LINE_BYTES: usize = 128 << 10;

/// The two instances of the template `unit`: an Envoy takes over from the one of the other.
pub(super) fn instances(unit: &str) -> [String; 2] {
    ["@a.", "@b."].map(|instance| unit.replacen("@.", instance, 1))
}

/// The instance for an Envoy that takes over from the process `old`: the one of which systemd says that it is not that
/// process's. Blocks.
pub(super) fn free_instance(host: &Host, unit: &str, old: Option<u32>) -> String {
    let [first, second] = instances(unit);
    let is_first = old.is_some() && main_pid(host, &first).is_ok_and(|pid| pid == old);
    if is_first { second } else { first }
}

/// Has systemd start the instance `unit` as `spec` says, and returns its pid. Blocks.
pub(super) fn start(host: &Host, paths: &PathsConfig, unit: &str, spec: &LaunchSpec) -> Result<u32> {
    let text = serde_json::to_string(&spec.command_line)?;
    host.write_until_reboot(&paths.envoy_command(), &text, 0o644, None)
        .context("failed to write Envoy's command line")?;
    host.run(&Invocation::new(["systemctl", "start", unit]))?;
    main_pid(host, unit)?.with_context(|| format!("{unit} ended at once: see `journalctl -u {unit}`"))
}

/// The pid of a unit's main process, by systemd; `None` when it has none. Blocks.
pub(super) fn main_pid(host: &Host, unit: &str) -> Result<Option<u32>> {
    let pid: u32 = host.unit_property(unit, "MainPID")?.parse().unwrap_or(0);
    Ok((pid != 0).then_some(pid))
}

/// Becomes the Envoy of this run directory, and returns only with the reason why it could not. Run by Envoy's unit, as
/// Envoy's user.
pub fn become_envoy(run: &Path) -> anyhow::Error {
    let paths = PathsConfig {
        run: run.to_owned(),
        ..PathsConfig::default()
    };
    match prepare(&paths) {
        Ok(mut envoy) => anyhow::Error::from(envoy.exec()).context("failed to start Envoy: check envoy.binary"),
        Err(error) => error,
    }
}

#[expect(clippy::disallowed_methods, reason = "this process becomes it; nothing is started")]
fn prepare(paths: &PathsConfig) -> Result<Command> {
    let text = Host::system().read(&paths.envoy_command(), Read::max(MAX_COMMAND_LINE_BYTES))?;
    let text =
        text.context("there is no command line of Envoy, which the agent writes: start istio-vm-agent.service")?;
    let line: Vec<String> = serde_json::from_str(&text)
        .with_context(|| format!("{}: is no command line", paths.envoy_command().display()))?;
    let (program, arguments) = line.split_first().context("Envoy's command line is empty")?;
    let mut envoy = Command::new(program);
    envoy
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(fifo(&paths.envoy_output())?)
        .stderr(fifo(&paths.envoy_errors())?);
    Ok(envoy)
}

/// Opens one of the FIFOs that the agent reads; for reading too, so that no reader's death breaks it.
fn fifo(path: &Path) -> Result<Stdio> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = open(path, flags, Mode::empty())
        .map_err(io::Error::from)
        .with_context(|| format!("failed to open {}", path.display()))?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use nix::unistd::mkfifo;

    use super::*;
    use crate::host::{CommandError, Run};

    /// A systemd that starts every unit as this pid.
    #[derive(Debug)]
    struct Systemd {
        pid: &'static str,
        calls: Arc<Mutex<Vec<String>>>,
    }

    impl Run for Systemd {
        fn run(&self, call: &Invocation) -> Result<String, CommandError> {
            self.calls.lock().unwrap().push(call.to_string());
            Ok(if call.argv[1] == "show" {
                format!("{}\n", self.pid)
            } else {
                String::new()
            })
        }
    }

    fn start_as(pid: &'static str, old: Option<u32>) -> (Result<u32>, Vec<String>) {
        let (root, calls) = (tempfile::tempdir().unwrap(), Arc::default());
        let systemd = Systemd {
            pid,
            calls: Arc::clone(&calls),
        };
        let (host, paths) = (Host::new(root.path(), systemd), PathsConfig::default());
        host.make_directory(&paths.run, 0o755, None).unwrap();
        let spec = LaunchSpec {
            bootstrap: String::new(),
            command_line: vec!["/envoy".to_owned(), "-c".to_owned()],
        };
        let unit = free_instance(&host, "envoy@.service", old);
        let started = start(&host, &paths, &unit, &spec);
        assert_eq!(host.text(&paths.envoy_command()), r#"["/envoy","-c"]"#);
        let calls = calls.lock().unwrap().clone();
        (started, calls)
    }

    #[test]
    fn unit_is_started_by_systemd_which_tells_its_pid() {
        let (started, calls) = start_as("42", None);
        assert_eq!(started.unwrap(), 42);
        assert_eq!(
            calls,
            [
                "systemctl start envoy@a.service",
                "systemctl show --property=MainPID --value envoy@a.service"
            ]
        );
    }

    #[test]
    fn unit_of_an_envoy_that_takes_over_is_the_other_instance() {
        let started = |old| start_as("42", old).1;
        // The first instance is 42's.
        assert_eq!(started(Some(42))[1], "systemctl start envoy@b.service");
        assert_eq!(started(Some(8))[1], "systemctl start envoy@a.service");
    }

    #[test]
    fn unit_that_ends_at_once_is_an_error() {
        let error = start_as("0", None).0.unwrap_err().to_string();
        assert!(error.starts_with("envoy@a.service ended at once"), "{error}");
    }

    #[test]
    fn unit_becomes_the_recorded_command_line_and_writes_to_the_pipes() {
        let run = tempfile::tempdir().unwrap();
        let paths = PathsConfig {
            run: run.path().to_owned(),
            ..PathsConfig::default()
        };
        assert!(prepare(&paths).is_err(), "nothing is written down yet");
        std::fs::create_dir(paths.envoy()).unwrap();
        let open = |path: &Path| {
            mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
            open(path, OFlag::O_RDWR, Mode::empty()).unwrap()
        };
        let (output, _errors) = (open(&paths.envoy_output()), open(&paths.envoy_errors()));
        let line = r#"["sh", "-c", "echo $0 $HOME", "its arguments"]"#;
        Host::system().write(&paths.envoy_command(), line, 0o644, None).unwrap();
        assert!(prepare(&paths).unwrap().status().unwrap().success());
        let mut text = [0; 64];
        let length = nix::unistd::read(&output, &mut text).unwrap();
        assert_eq!(&text[..length], b"its arguments\n");
    }
}
