//! Who writes /etc/hosts: this process, or, where it may not, a unit that may do nothing else.
//!
//! The file is replaced by renaming, so whoever writes it must be able to write in /etc, where more lies that makes a
//! program root. The agent in its unit is not: it leaves the lines in its run directory, and has systemd start
//! `istio-vm-agent hosts`, which takes nothing from there but addresses and names. A mount of the one file would not do
//! in its place: it stays with the file that was there when it was made, and after the first program that puts another
//! one there by renaming, as many do, nobody reads what is written through it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::block::Block;
use crate::config::PathsConfig;
use crate::host::change::HostChange;
use crate::host::{Host, Invocation, Read};

/// Readable by all, as what it becomes.
const MODE: u32 = 0o644;
/// Longest list of lines.
const MAX_BYTES: usize = 1 << 20;
/// A start is told of the end of one that was under way, and may have read the lines before they were these.
const STARTS: usize = 3;

/// Who writes.
#[derive(Clone, Debug, Default)]
pub enum Writer {
    /// The process itself.
    #[default]
    Process,
    /// A unit, out of a list of lines.
    Unit {
        /// systemd's name of it.
        name: String,
        /// Where the lines are put for it.
        list: PathBuf,
    },
}

impl Writer {
    /// `unit`, where there is one.
    pub fn new(unit: Option<&str>, paths: &PathsConfig) -> Self {
        unit.map_or(Self::Process, |name| Self::Unit {
            name: name.to_owned(),
            list: paths.hosts(),
        })
    }

    pub(super) fn write(&self, host: &Host, block: &Block) -> Result<()> {
        match self {
            Self::Process => block.write(host),
            Self::Unit { name, list } => ask(host, block, name, list),
        }
    }
}

/// A block, and who writes it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) block: Block,
    pub(super) writer: Writer,
}

impl HostChange for Written {
    fn name(&self) -> &'static str {
        "the names in /etc/hosts"
    }

    fn plan(&self, host: &Host) -> Result<Option<String>> {
        self.block.plan(host)
    }

    fn apply(&self, host: &Host) -> Result<()> {
        self.writer.write(host, &self.block)
    }

    fn revert(&self, host: &Host) -> Result<()> {
        self.writer.write(host, &Block::new(&[]))
    }
}

/// Has the unit write, and looks whether it has.
fn ask(host: &Host, block: &Block, unit: &str, list: &Path) -> Result<()> {
    if block.lines().is_empty() {
        host.remove(list)?;
    } else {
        host.write(list, block.lines(), MODE, None)?;
    }
    for _ in 0..STARTS {
        if block.plan(host)?.is_none() {
            return Ok(());
        }
        host.run(&Invocation::new(["systemctl", "start", unit]))
            .with_context(|| format!("see `journalctl -u {unit}`"))?;
    }
    ensure!(
        block.plan(host)?.is_none(),
        "{unit} ran and did not write it, or somebody undoes that at once: see `journalctl -u {unit}`"
    );
    Ok(())
}

/// Puts in the lines that were left for the unit, or takes the block out when there are none.
///
/// # Errors
/// When they are no lines of /etc/hosts, or it can't be written.
pub fn write_list(host: &Host, run: &Path) -> Result<()> {
    let paths = PathsConfig {
        run: run.to_owned(),
        ..PathsConfig::default()
    };
    let list = paths.hosts();
    let text = host.read(&list, Read::max(MAX_BYTES))?;
    let block = Block::parse(&text.unwrap_or_default()).with_context(|| list.display().to_string())?;
    block.write(host)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::facts::HostEntry;
    use crate::host::{CommandError, Run, System};

    const HOSTS: &str = "/etc/hosts";
    const RUN: &str = "/run/agent";

    /// A systemd that runs the unit's program, after as many starts that come to nothing.
    #[derive(Debug)]
    struct Systemd {
        root: PathBuf,
        lost: Mutex<usize>,
        starts: Arc<Mutex<usize>>,
    }

    impl Run for Systemd {
        fn run(&self, call: &Invocation) -> Result<String, CommandError> {
            assert_eq!(call.to_string(), "systemctl start hosts.service");
            *self.starts.lock().unwrap() += 1;
            let mut lost = self.lost.lock().unwrap();
            if *lost > 0 {
                *lost -= 1;
            } else {
                write_list(&Host::new(&self.root, System), RUN.as_ref()).unwrap();
            }
            Ok(String::new())
        }
    }

    struct Rig {
        host: Host,
        writer: Writer,
        starts: Arc<Mutex<usize>>,
        _root: tempfile::TempDir,
    }

    fn rig(lost: usize) -> Rig {
        let (root, starts) = (tempfile::tempdir().unwrap(), Arc::default());
        let systemd = Systemd {
            root: root.path().to_owned(),
            lost: Mutex::new(lost),
            starts: Arc::clone(&starts),
        };
        let host = Host::new(root.path(), systemd);
        for directory in ["/etc", RUN] {
            host.make_directory(directory.as_ref(), 0o755, None).unwrap();
        }
        host.write(HOSTS.as_ref(), "127.0.0.1 localhost\n", 0o644, None)
            .unwrap();
        let paths = PathsConfig {
            run: RUN.into(),
            ..PathsConfig::default()
        };
        Rig {
            host,
            writer: Writer::new(Some("hosts.service"), &paths),
            starts,
            _root: root,
        }
    }

    fn block() -> Block {
        let entry = HostEntry {
            ip: "10.0.0.1".parse().unwrap(),
            names: vec!["istiod.istio-system.svc".to_owned()],
        };
        Block::new(&[entry])
    }

    fn text(host: &Host) -> String {
        std::fs::read_to_string(host.real_path(HOSTS.as_ref())).unwrap()
    }

    #[test]
    fn unit_writes_what_is_left_for_it_and_takes_it_out_again() {
        let rig = rig(0);
        let Rig {
            host, writer, starts, ..
        } = &rig;
        writer.write(host, &block()).unwrap();
        assert!(text(host).contains("\n10.0.0.1 istiod.istio-system.svc\n"));
        writer.write(host, &block()).unwrap();
        assert_eq!(*starts.lock().unwrap(), 1, "nothing was to be done");
        writer.write(host, &Block::new(&[])).unwrap();
        assert_eq!(text(host), "127.0.0.1 localhost\n");
        assert_eq!(host.names_in(RUN.as_ref()).unwrap(), [""; 0]);
    }

    #[test]
    fn start_that_came_to_nothing_is_tried_again_and_told_in_the_end() {
        let apply = |rig: &Rig| rig.writer.write(&rig.host, &block());
        apply(&rig(2)).unwrap();
        let error = apply(&rig(STARTS)).unwrap_err().to_string();
        assert!(error.contains("journalctl -u hosts.service"), "{error}");
    }

    #[test]
    fn hosts_file_gets_nothing_but_names() {
        let rig = rig(0);
        let host = &rig.host;
        for wrong in [
            "10.0.0.1\n",
            "istiod 10.0.0.1\n",
            "10.0.0.1 a\n# END istio-vm-agent\n",
            "10.0.0.1 a#b\n",
            "10.0.0.1 a\u{b}b\n",
            "\n",
        ] {
            host.write(Path::new(RUN).join("hosts").as_ref(), wrong, 0o644, None)
                .unwrap();
            assert!(write_list(host, RUN.as_ref()).is_err(), "{wrong:?}");
            assert_eq!(text(host), "127.0.0.1 localhost\n");
        }
    }
}
