//! Who is served on a local socket. Needs root: the callers are other users.
#![expect(clippy::disallowed_methods, reason = "a test has threads and files of its own")]

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use istio_vm_agent::bounds::Refusals;
use istio_vm_agent::host::ports::listen;
use istio_vm_agent::host::{Audience, Host, System, connections_of};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::Uid;
use tokio_stream::StreamExt;
use tonic::transport::server::Connected;

const ENVOY: u32 = 1337;
const NOBODY: u32 = 65534;

/// A connection of user `uid`'s.
fn connect(path: &Path, uid: u32) -> UnixStream {
    let path = path.to_owned();
    let caller = std::thread::spawn(move || {
        let user = Uid::from_raw(uid);
        // Of this thread alone.
        rustix::thread::set_thread_res_uid(user, user, user).expect("run this as root");
        UnixStream::connect(path).expect("connect to the socket")
    });
    caller.join().expect("join the caller")
}

#[tokio::test]
async fn only_root_and_the_named_user_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let open_to_all = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    open_to_all(directory.path(), 0o755);
    let listener = Host::new(directory.path(), System)
        .listen(Path::new("/xds.sock"), Some(ENVOY))
        .unwrap();
    let path = directory.path().join("xds.sock");
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.gid()), (0o660, ENVOY));
    // The socket's mode keeps others out as well; here the peer check has to do it alone.
    open_to_all(&path, 0o666);

    let mut refused = connect(&path, NOBODY);
    let (_root, _envoy) = (connect(&path, 0), connect(&path, ENVOY));
    let audience = Audience {
        users: vec![ENVOY],
        most: 2,
        refusals: Refusals::default(),
    };
    let refusals = audience.refusals.clone();
    let mut served = std::pin::pin!(connections_of(audience, listener));
    let mut connections = Vec::new();
    for uid in [0, ENVOY] {
        let connection = served.next().await.unwrap().unwrap();
        assert_eq!(connection.connect_info().peer_cred.unwrap().uid(), uid);
        connections.push(connection);
    }
    // One too many, until one of the others has gone.
    let mut third = connect(&path, ENVOY);
    third.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let closed = tokio::task::spawn_blocking(move || third.read(&mut [0]).unwrap());
    tokio::select! {
        _ = served.next() => panic!("a third one was served"),
        read = closed => assert_eq!(read.unwrap(), 0),
    }
    assert_eq!(refusals.all().len(), 1);
    connections.pop();
    let _fourth = connect(&path, ENVOY);
    assert!(served.next().await.unwrap().is_ok());
    refused.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(refused.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn listener_of_all_addresses_is_both_families_whatever_the_sysctl_says() {
    kit::namespace::leave().unwrap();
    std::fs::write("/proc/sys/net/ipv6/bindv6only", "1").unwrap();
    let listener = listen((std::net::Ipv6Addr::UNSPECIFIED, 15020).into()).unwrap();
    assert!(!getsockopt(&listener, sockopt::Ipv6V6Only).unwrap());
}
