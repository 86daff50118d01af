//! The admin interface: its unix socket, and its port, which every local user may open.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::processes::is_running;
use crate::vm::Vm;

const PORT: u16 = 15000;

/// Sets the level of Envoy's own log, by the unix socket.
pub(crate) async fn set_log_level(vm: &Vm, level: &str) {
    let stream = UnixStream::connect(vm.options.paths.admin_socket()).await.unwrap();
    assert_eq!(exchange(stream, "POST", &format!("/logging?level={level}")).await, 200);
}

async fn ask_port(method: &str, path: &str) -> u16 {
    let stream = TcpStream::connect(("127.0.0.1", PORT)).await.unwrap();
    exchange(stream, method, path).await
}

/// The status of the answer.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, method: &str, path: &str) -> u16 {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn admin_port_shows_and_changes_nothing() {
    let mut vm = Vm::new();
    vm.options.config.admin_port = Some(PORT);
    let mut agent = vm.agent();
    let (pid, ..) = agent.ready().await;
    for path in [
        "/ready",
        "/stats?filter=server.state",
        "/stats/prometheus",
        "/clusters",
        "/server_info",
        "/config_dump",
    ] {
        assert_eq!(ask_port("GET", path).await, 200, "{path}");
    }
    for (method, path) in [
        ("POST", "/quitquitquit"),
        ("GET", "/quitquitquit"),
        ("POST", "/drain_listeners"),
        ("POST", "/logging?level=trace"),
        ("GET", "/logging"),
        ("POST", "/runtime_modify?x=y"),
        ("GET", "/runtime_modify?x=y"),
        ("POST", "/stats/recentlookups/enable"),
        ("POST", "/ready"),
        ("GET", "/"),
    ] {
        assert_eq!(ask_port(method, path).await, 403, "{method} {path}");
    }
    assert!(is_running(pid));
    agent.drain().await;
}
