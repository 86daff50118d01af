//! Processes, as /proc has them (proc(5)).
//!
//! Whose a process is, only root and the kernel decide: its control group, its users, a program that root has put there.
//! A command line and a name are its owner's to choose, and so is an effective user, by a set-user-ID program.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Host, OTHERS_WRITE, Read};

/// Longest file of a process that is read: status and cgroup have about a kilobyte, a command line what its user gives.
const MAX_BYTES: usize = 64 << 10;

/// Clock ticks of a second, as programs are told them (USER_HZ, time(7)).
const TICKS: u32 = 100;

/// Two fields of /proc/PID/stat.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Stat {
    state: char,
    started: u64,
}

impl Stat {
    /// Reads fields 3 and 22 of /proc/PID/stat.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in brackets and may hold anything, brackets and blanks included.
        let (_, after_name) = text.rsplit_once(')')?;
        let mut fields = after_name.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let started = fields.nth(18)?.parse().ok()?;
        Some(Self { state, started })
    }
}

impl Host {
    /// When a process started, in clock ticks after boot.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn start_time(&self, pid: u32) -> io::Result<u64> {
        Ok(self.stat(pid)?.started)
    }

    /// When a process started, by this VM's clock as it is now; `None` where that can't be seen.
    pub fn started_at(&self, pid: u32) -> Option<SystemTime> {
        let uptime = self.read(Path::new("/proc/uptime"), Read::max(MAX_BYTES).following_links());
        let up: f64 = uptime.ok()??.split_ascii_whitespace().next()?.parse().ok()?;
        let booted = SystemTime::now().checked_sub(Duration::try_from_secs_f64(up).ok()?)?;
        booted.checked_add(Duration::from_secs(self.start_time(pid).ok()?) / TICKS)
    }

    /// Tells whether the process that has this pid and started then still runs; a zombie does not.
    pub fn is_running(&self, pid: u32, started: u64) -> bool {
        let stat = self.stat(pid);
        stat.is_ok_and(|stat| stat.started == started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// The effective user of a process.
    pub fn user_of(&self, pid: u32) -> Option<u32> {
        let [_, effective, _, _] = self.users_of(pid)?;
        Some(effective)
    }

    /// Tells whether a process is of one of `users` in all respects: real, effective, saved and file-system user.
    pub fn is_of(&self, pid: u32, users: &[u32]) -> bool {
        self.users_of(pid)
            .is_some_and(|ids| ids.iter().all(|id| users.contains(id)))
    }

    /// The command line of a process, each word ended by a NUL.
    pub fn command_line(&self, pid: u32) -> Option<String> {
        self.of_process(pid, "cmdline")
    }

    /// Tells whether the process is in this control group of systemd's (`/system.slice/…`), or in one below it.
    pub fn is_in_group(&self, pid: u32, group: &str) -> bool {
        let text = self.control_groups(pid).unwrap_or_default();
        // Version 2 has the hierarchy 0 without a name; systemd's own of version 1 is a named one.
        let mut paths = text.lines().filter_map(|line| {
            line.strip_prefix("0::")
                .or_else(|| line.split_once(":name=systemd:").map(|it| it.1))
        });
        paths.any(|path| {
            path.strip_prefix(group)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The program that a process runs, when it is a file that only root can have written. `None` also where that
    /// can't be seen: of another user's process only with CAP_SYS_PTRACE.
    pub fn program_of_root(&self, pid: u32) -> Option<PathBuf> {
        let link = self.at(Path::new(&format!("/proc/{pid}/exe")));
        let meta = fs::metadata(&link).ok()?;
        let is_roots = meta.uid() == 0 && meta.mode() & OTHERS_WRITE == 0;
        is_roots.then(|| fs::read_link(&link).ok()).flatten()
    }

    /// Tells whether a process is in the network namespace of this one; `None` where that can't be seen: of another user's
    /// process only with CAP_SYS_PTRACE.
    pub fn shares_network(&self, pid: u32) -> Option<bool> {
        let namespace = |process: &str| fs::read_link(self.at(Path::new(&format!("/proc/{process}/ns/net")))).ok();
        Some(namespace(&pid.to_string())? == namespace("self")?)
    }

    /// True for a process that may be in a group of this unit's; only systemd knows whether it is.
    pub fn may_be_in_unit(&self, pid: u32, unit: &str) -> bool {
        self.control_groups(pid).is_some_and(|groups| groups.contains(unit))
    }

    /// The control groups of a process (cgroups(7)): a line a hierarchy, each with a path.
    pub(super) fn control_groups(&self, pid: u32) -> Option<String> {
        self.of_process(pid, "cgroup")
    }

    /// Real, effective, saved and file-system user.
    fn users_of(&self, pid: u32) -> Option<[u32; 4]> {
        let status = self.of_process(pid, "status")?;
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let ids: Option<Vec<u32>> = ids.split_whitespace().map(|id| id.parse().ok()).collect();
        ids?.try_into().ok()
    }

    fn stat(&self, pid: u32) -> io::Result<Stat> {
        let path = format!("/proc/{pid}/stat");
        let text = self
            .read(Path::new(&path), Read::max(MAX_BYTES).following_links())
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{path}: there is no such process")))?;
        Stat::parse(&text).ok_or_else(|| io::Error::other(format!("{path}: has no start time")))
    }

    fn of_process(&self, pid: u32, file: &str) -> Option<String> {
        let path = format!("/proc/{pid}/{file}");
        self.read(Path::new(&path), Read::max(MAX_BYTES).following_links())
            .ok()
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use proptest::prelude::*;

    use super::*;
    use crate::host::System;

    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/7")).unwrap();
        let host = Host::new(root.path(), System);
        (root, host)
    }

    #[test]
    fn process_is_of_a_user_in_all_respects_or_not_at_all() {
        let (_root, host) = host();
        let path = Path::new("/proc/7/status");
        for (ids, expected) in [
            ("0\t0\t0\t0", true),
            ("1337\t1337\t1337\t1337", true),
            // su, asking for a password.
            ("1000\t0\t0\t0", false),
            ("1000\t1000\t1000\t1000", false),
            ("0\t0\t0", false),
            ("", false),
        ] {
            let text = format!("Name:\tpilot-agent\\nUid:\t0\t0\t0\t0\nUid:\t{ids}\nGid:\t0\t0\t0\t0\n");
            host.write(path, &text, 0o644, None).unwrap();
            assert_eq!(host.is_of(7, &[0, 1337]), expected, "{ids}");
        }
        assert!(!host.is_of(8, &[0]));
    }

    #[test]
    fn control_group_is_known_by_its_whole_path() {
        let (_root, host) = host();
        let path = Path::new("/proc/7/cgroup");
        for (text, expected) in [
            ("0::/system.slice/istio.service\n", true),
            ("0::/system.slice/istio.service/sub\n", true),
            ("12:pids:/x\n1:name=systemd:/system.slice/istio.service\n", true),
            ("0::/system.slice/istio.service-not\n", false),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/system.slice/istio.service\n",
                false,
            ),
            ("12:pids:/system.slice/istio.service\n", false),
        ] {
            host.write(path, text, 0o644, None).unwrap();
            assert_eq!(host.is_in_group(7, "/system.slice/istio.service"), expected, "{text}");
        }
    }

    #[test]
    fn program_of_a_process_counts_only_when_root_wrote_it() {
        let (root, host) = host();
        let program = root.path().join("pilot-agent");
        host.write(Path::new("/pilot-agent"), "", 0o755, None).unwrap();
        symlink(&program, root.path().join("proc/7/exe")).unwrap();
        assert_eq!(host.program_of_root(7), Some(program.clone()));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o775)).unwrap();
        assert_eq!(host.program_of_root(7), None);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&program, Some(65_534), None).unwrap();
        assert_eq!(host.program_of_root(7), None);
        assert_eq!(host.program_of_root(8), None);
    }

    #[test]
    fn stat_is_read_whatever_brackets_and_blanks_the_name_has() {
        let numbers: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let text = format!("7 (a ) S 1 (b)) R {}\n", numbers.join(" "));
        let stat = Stat {
            state: 'R',
            started: 22,
        };
        assert_eq!(Stat::parse(&text), Some(stat));
    }

    #[test]
    fn process_is_as_old_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/7")).unwrap();
        let host = Host::new(root.path(), System);
        assert_eq!(host.started_at(7), None);
        fs::write(root.path().join("proc/uptime"), "1000.50 7.00\n").unwrap();
        let before_start = "0 ".repeat(18);
        fs::write(
            root.path().join("proc/7/stat"),
            format!("7 (a) S {before_start}90000 0\n"),
        )
        .unwrap();
        let age = SystemTime::now().duration_since(host.started_at(7).unwrap()).unwrap();
        assert_eq!(age.as_secs(), 100);
    }

    proptest! {
        #[test]
        fn stat_of_any_text_is_read_without_a_panic(text in ".*") {
            let _ = Stat::parse(&text);
        }
    }
}
