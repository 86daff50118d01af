use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::stat::{SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use super::*;
use crate::host::System;

impl Host {
    /// A file that a test made.
    pub(crate) fn text(&self, path: &Path) -> String {
        let text = self.read(path, Read::max(1 << 20).following_links()).unwrap();
        text.unwrap_or_else(|| panic!("{} is missing", path.display()))
    }
}

const STRANGER: Owner = Owner {
    uid: 54_321,
    gid: 54_321,
};
const SHORT: Read = Read::max(4);

struct Vm {
    root: tempfile::TempDir,
    host: Host,
}

impl Vm {
    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn text(&self, name: &str, how: Read) -> Option<String> {
        self.host.read(&Path::new("/").join(name), how).unwrap()
    }

    fn refusal(&self, name: &str, how: Read) -> String {
        self.host.read(&Path::new("/").join(name), how).unwrap_err().to_string()
    }
}

/// With /file, of mode 0644, in a directory of mode 0755.
fn vm() -> Vm {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path().canonicalize().unwrap(), System);
    host.write(Path::new("/file"), "text", 0o644, None).unwrap();
    let vm = Vm { root, host };
    vm.chmod("", 0o755);
    vm
}

#[test]
fn file_is_read_when_it_is_short_enough_and_a_missing_one_is_none() {
    let vm = vm();
    assert_eq!(vm.text("file", SHORT).as_deref(), Some("text"));
    assert_eq!(vm.text("none", SHORT), None);
    assert_eq!(vm.text("none/none", SHORT.without_links()), None);
    assert_eq!(vm.refusal("file", Read::max(3)), "/file: is longer than 3 bytes");
}

/// Each on a thread of its own: what waits must not take the test with it.
#[test]
fn read_opens_nothing_but_a_regular_file_and_waits_for_none() {
    let vm = vm();
    mkfifo(&vm.at("fifo"), Mode::S_IRUSR).unwrap();
    symlink("/dev/zero", vm.at("zero")).unwrap();
    symlink("fifo", vm.at("to-fifo")).unwrap();
    let mut names = vec!["fifo", "zero", "to-fifo", ""];
    // Opening a terminal may make it the process's own; this one needs root to be made.
    if mknod(&vm.at("device"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 5)).is_ok() {
        names.push("device");
    }
    for name in names {
        for how in [SHORT, SHORT.following_links(), SHORT.without_links()] {
            let (host, (tell, told)) = (vm.host.clone(), mpsc::channel());
            std::thread::spawn(move || tell.send(host.read(&Path::new("/").join(name), how).unwrap_err().to_string()));
            let error = told.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(
                error.contains("is a link") || error.ends_with("is not a regular file"),
                "{name}: {error}"
            );
        }
    }
}

#[test]
fn links_are_followed_only_when_asked_for() {
    let vm = vm();
    fs::create_dir(vm.at("real")).unwrap();
    fs::rename(vm.at("file"), vm.at("real/file")).unwrap();
    symlink("real", vm.at("directory")).unwrap();
    symlink("real/file", vm.at("link")).unwrap();
    assert_eq!(vm.text("link", SHORT.following_links()).as_deref(), Some("text"));
    assert_eq!(vm.refusal("link", SHORT), "/link: is a link");
    assert_eq!(vm.text("directory/file", SHORT).as_deref(), Some("text"));
    assert_eq!(vm.text("real/file", SHORT.without_links()).as_deref(), Some("text"));
    for name in ["link", "directory/file", "real/../real/file"] {
        vm.refusal(name, SHORT.without_links());
    }
}

#[test]
fn second_name_is_told_where_links_are_none() {
    let vm = vm();
    fs::hard_link(vm.at("file"), vm.at("twin")).unwrap();
    assert_eq!(
        vm.refusal("twin", SHORT.without_links()),
        "/twin: has another name elsewhere"
    );
    assert_eq!(vm.text("twin", SHORT).as_deref(), Some("text"));
}

#[test]
fn secret_is_read_only_when_it_is_one() {
    let vm = vm();
    let exposed = "others may open it (mode 0644): chmod 0600";
    assert_eq!(vm.refusal("file", SHORT.private()), format!("/file: {exposed}"));
    let exposure = || vm.host.open(Path::new("/file"), SHORT).unwrap().unwrap().exposure();
    assert_eq!(exposure().as_deref(), Some(exposed));
    vm.chmod("file", 0o600);
    assert_eq!(vm.text("file", SHORT.private()).as_deref(), Some("text"));
    assert_eq!(exposure(), None);
    assert_eq!(vm.text("none", SHORT.private()), None);
}

#[test]
fn file_of_another_user_is_refused() {
    let vm = vm();
    let uid = fs::metadata(vm.at("file")).unwrap().uid();
    assert_eq!(vm.text("file", SHORT.owned_by(uid)).as_deref(), Some("text"));
    let error = vm.refusal("file", SHORT.owned_by(STRANGER.uid));
    assert_eq!(error, format!("/file: is user {uid}'s and not user 54321's"));
}

#[test]
fn file_is_read_for_a_user_only_when_the_user_could() {
    let vm = vm();
    let how = SHORT.readable_by(STRANGER).following_links();
    assert_eq!(vm.text("file", how).as_deref(), Some("text"));
    vm.chmod("", 0o700);
    assert_eq!(vm.refusal("file", how), "/file: user 54321 may not read it");
    vm.chmod("", 0o755);
    vm.chmod("file", 0o640);
    vm.refusal("file", how);
    let meta = fs::metadata(vm.root.path()).unwrap();
    let mine = Owner {
        uid: meta.uid(),
        gid: meta.gid(),
    };
    assert_eq!(vm.text("file", SHORT.readable_by(mine)).as_deref(), Some("text"));
}

#[test]
fn file_without_a_name_is_read_for_nobody() {
    let (vm, how) = (vm(), SHORT.readable_by(STRANGER).following_links());
    let file = File::open(vm.at("file")).unwrap();
    fs::remove_file(vm.at("file")).unwrap();
    let this = Host::system();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let error = this.read(Path::new(&path), how).unwrap_err().to_string();
    assert!(error.ends_with("user 54321 may not read it"), "{error}");
}
