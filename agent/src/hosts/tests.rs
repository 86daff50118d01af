use std::fs;
use std::path::PathBuf;

use tokio::sync::watch;

use super::*;
use crate::host::{Read, System};

const ORIGINAL: &str = "127.0.0.1 localhost\r\n# no newline at the end";

struct Rig {
    root: tempfile::TempDir,
    host: Host,
}

impl Rig {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let host = Host::new(root.path(), System);
        host.write(Path::new(PATH), ORIGINAL, 0o604, None).unwrap();
        Self { root, host }
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("etc/hosts")
    }

    fn text(&self) -> String {
        self.host.text(Path::new(PATH))
    }

    /// Waits, in real time, until the file is as it is to be.
    async fn until(&self, good: impl Fn(&str) -> bool) {
        let patience = tokio::time::timeout(Duration::from_secs(20), async {
            while !self
                .host
                .read(Path::new(PATH), Read::max(1 << 20))
                .unwrap()
                .is_some_and(|text| good(&text))
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(
            patience.await.is_ok(),
            "still {:?}",
            self.host.read(Path::new(PATH), Read::max(1 << 20))
        );
    }
}

fn entries(ip: &str) -> Vec<HostEntry> {
    vec![HostEntry {
        ip: ip.parse().unwrap(),
        names: vec!["istiod.istio-system.svc".to_owned()],
    }]
}

fn membership(ip: &str) -> Arc<Membership> {
    Arc::new(Membership {
        hosts: entries(ip),
        ..Membership::default()
    })
}

#[test]
fn change_is_planned_applied_once_and_reverted_without_memory() {
    use std::os::unix::fs::MetadataExt;

    let rig = Rig::new();
    let change = change(&entries("10.0.0.1"), &Writer::Process);
    let diff = change.plan(&rig.host).unwrap().unwrap();
    assert!(diff.contains("+10.0.0.1 istiod.istio-system.svc"), "{diff}");
    assert_eq!(rig.text(), ORIGINAL);
    change.apply(&rig.host).unwrap();
    let (inode, text) = (fs::metadata(rig.file()).unwrap().ino(), rig.text());
    assert!(text.ends_with(ORIGINAL) && text.contains("\n10.0.0.1 istiod"), "{text}");
    assert_eq!(change.plan(&rig.host).unwrap(), None);
    change.apply(&rig.host).unwrap();
    assert_eq!(fs::metadata(rig.file()).unwrap().ino(), inode, "a second apply wrote");
    owned_block(&Writer::Process).revert(&rig.host).unwrap();
    assert_eq!(rig.text(), ORIGINAL);
    assert_eq!(fs::metadata(rig.file()).unwrap().mode() & 0o7777, 0o604);
}

#[test]
fn block_without_entries_is_none() {
    let rig = Rig::new();
    change(&[], &Writer::Process).apply(&rig.host).unwrap();
    assert_eq!(rig.text(), ORIGINAL);
}

#[test]
fn file_that_is_not_there_is_made_only_for_entries() {
    let rig = Rig::new();
    rig.host.remove(Path::new(PATH)).unwrap();
    owned_block(&Writer::Process).revert(&rig.host).unwrap();
    assert!(!rig.file().exists());
    change(&entries("10.0.0.1"), &Writer::Process).apply(&rig.host).unwrap();
    assert!(rig.text().contains("10.0.0.1"));
}

#[tokio::test]
async fn block_comes_back_whoever_rewrites_the_file() {
    let rig = Rig::new();
    let (scope, drain) = Scope::detached();
    let (publish, facts) = watch::channel(membership("10.0.0.1"));
    let running = run(scope, rig.host.clone(), Writer::Process, facts, Sender::default());
    let script = async {
        let whole = |text: &str| text.matches("10.0.0.1 istiod").count() == 1;
        rig.until(whole).await;
        for round in 0..2 {
            let other = rig.root.path().join("etc/hosts.new");
            fs::copy(rig.file(), &other).unwrap();
            fs::OpenOptions::new().write(true).truncate(true).open(&other).unwrap();
            fs::rename(&other, rig.file()).unwrap();
            rig.until(whole).await;
            fs::OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(rig.file())
                .unwrap();
            rig.until(whole).await;
            fs::remove_file(rig.file()).unwrap();
            fs::File::create(rig.file()).unwrap();
            rig.until(whole).await;
            let text = format!("# {round}\n{}", rig.text());
            rig.host.rewrite(Path::new(PATH), text.as_bytes()).unwrap();
            rig.until(whole).await;
        }
        publish.send_replace(membership("10.0.0.2"));
        rig.until(|text| text.contains("10.0.0.2 istiod") && !text.contains("10.0.0.1"))
            .await;
        rig.host.rewrite(Path::new(PATH), ORIGINAL.as_bytes()).unwrap();
        rig.until(|text| text.contains("10.0.0.2 istiod")).await;
        drain.cancel();
    };
    let (result, ()) = tokio::join!(running, script);
    result.unwrap();
    assert_eq!(rig.text(), ORIGINAL);
}

#[tokio::test]
async fn file_that_cannot_be_edited_is_a_problem_until_it_can() {
    let rig = Rig::new();
    fs::remove_file(rig.file()).unwrap();
    fs::create_dir(rig.file()).unwrap();
    let (scope, drain) = Scope::detached();
    let (_publish, facts) = watch::channel(membership("10.0.0.1"));
    let (problem, mut told) = watch::channel(None);
    let running = run(scope, rig.host.clone(), Writer::Process, facts, problem);
    let script = async {
        let problem = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(problem.contains("/etc/hosts: is not a regular file"), "{problem}");
        fs::remove_dir(rig.file()).unwrap();
        fs::write(rig.file(), ORIGINAL).unwrap();
        told.wait_for(Option::is_none).await.unwrap();
        assert!(rig.text().contains("10.0.0.1 istiod"));
        drain.cancel();
    };
    let (result, ()) = tokio::join!(running, script);
    result.unwrap();
    assert_eq!(rig.text(), ORIGINAL);
}
