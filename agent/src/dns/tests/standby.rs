//! The standby beside an agent that has its sockets and reads nothing from them.

use std::path::Path;

use super::*;
use crate::dns::standby::lend;
use crate::host::InheritedSockets;

/// An agent that hangs: it has lent its sockets, and nobody reads there.
struct Hung {
    address: SocketAddr,
    /// The agent's life.
    agent: tokio_util::sync::CancellationToken,
    _standby: tokio_util::sync::CancellationToken,
    _sockets: Sockets,
    _root: tempfile::TempDir,
}

impl Hung {
    async fn with_names(names: &str, upstream_port: u16) -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        host.write(Path::new("/names.json"), names, 0o600, None).unwrap();
        host.write(Path::new("/resolv.conf"), "nameserver 127.0.0.1\n", 0o644, None)
            .unwrap();
        let options = Options {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            resolv_conf: "/resolv.conf".into(),
            upstream_port,
            ..Options::new(host.clone(), Refusals::default())
        };
        let sockets = Sockets::bind(&options.listen, InheritedSockets::default())
            .await
            .unwrap();
        let (_, membership) = watch::channel(Arc::new(member_of("shop")));
        let (scope, agent) = Scope::detached();
        let listener = host.listen(Path::new("/dns.sock"), None).unwrap();
        scope.spawn(lend(
            listener,
            sockets.copies().unwrap(),
            membership,
            Refusals::default(),
        ));
        let (scope, standby) = Scope::detached();
        let (socket, names) = (root.path().join("dns.sock"), "/names.json".into());
        let (inner, _) = Scope::detached();
        inner.spawn(async move {
            let _ = stand_by(scope, options, socket, names).await;
        });
        Self {
            address: sockets.addresses()[0],
            agent,
            _standby: standby,
            _sockets: sockets,
            _root: root,
        }
    }

    async fn ask(&self, name: &str) -> String {
        let (packet, socket) = (query(name), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        socket.send_to(&packet, self.address).await.unwrap();
        let mut reply = vec![0; 65_535];
        let length = timeout(DEADLINE, socket.recv(&mut reply)).await.unwrap().unwrap();
        answer(&answer_to(&packet, &reply[..length]))
    }
}

#[tokio::test]
async fn standby_answers_in_place_of_an_agent_that_hangs_and_of_one_that_is_gone() {
    let (scope, _drain) = Scope::detached();
    let port = upstreams(&scope, &[Says::Address("192.0.2.1")]).await;
    let names = serde_json::to_string(&table_of(&["10.0.0.1"])).unwrap();
    let hung = Hung::with_names(&names, port).await;
    assert_eq!(hung.ask("cart.shop.").await, "10.0.0.1!");
    assert_eq!(hung.ask("example.org.").await, "192.0.2.1");
    let mut stream = TcpStream::connect(hung.address).await.unwrap();
    let packet = query("cart.");
    send_framed(&mut stream, &packet).await.unwrap();
    let reply = timeout(DEADLINE, receive_framed(&mut stream)).await.unwrap().unwrap();
    assert_eq!(answer(&answer_to(&packet, &reply)), "10.0.0.1!", "over TCP");
    hung.agent.cancel();
    assert_eq!(hung.ask("cart.").await, "10.0.0.1!");
}

#[tokio::test]
async fn damaged_name_table_costs_no_other_name() {
    let (scope, _drain) = Scope::detached();
    let port = upstreams(&scope, &[Says::Address("192.0.2.1")]).await;
    let hung = Hung::with_names("{\"names\": {", port).await;
    assert_eq!(hung.ask("example.org.").await, "192.0.2.1");
}
