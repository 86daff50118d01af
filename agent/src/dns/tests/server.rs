//! The agent's DNS on a port of its own, and what it is asked.

use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::control_plane::fixtures::membership;
use crate::facts::{HostBridge, NameInfo};
use crate::host::System;

/// The agent's DNS on a port of its own, over a resolv.conf of its own.
pub(super) struct Server {
    root: tempfile::TempDir,
    /// The first of the addresses.
    pub(super) address: SocketAddr,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) scope: Scope,
    pub(super) drain: CancellationToken,
    pub(super) membership: watch::Sender<Arc<Membership>>,
    pub(super) names: watch::Sender<Option<Arc<NameTable>>>,
    pub(super) machine: watch::Sender<HostState>,
    pub(super) done: tokio::sync::oneshot::Receiver<()>,
    pub(super) refusals: Refusals,
}

impl Server {
    pub(super) async fn start(upstream_port: u16, servers: &[&str]) -> Self {
        Self::start_at(&["127.0.0.1:0"], upstream_port, servers).await
    }

    pub(super) async fn start_at(listen: &[&str], upstream_port: u16, servers: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let (scope, drain) = Scope::detached();
        let (membership, members) = watch::channel(Arc::new(member_of("shop")));
        let (names, table) = watch::channel(None);
        let (machine, known) = watch::channel(HostState::default());
        let options = Options {
            host,
            listen: listen.iter().map(|address| address.parse().unwrap()).collect(),
            resolv_conf: "/resolv.conf".into(),
            upstream_port,
            query_timeout: Duration::from_secs(1),
            refusals: Refusals::default(),
            counts: DnsCounts::default(),
            problem: watch::Sender::default(),
            lender: None,
        };
        let refusals = options.refusals.clone();
        let sockets = Sockets::bind(&options.listen, InheritedSockets::default())
            .await
            .unwrap();
        let addresses = sockets.addresses();
        let (ended, done) = tokio::sync::oneshot::channel();
        // Not under the drain that ends it: the test sees whether it ends by itself.
        let (outer, _) = Scope::detached();
        outer.spawn({
            let scope = scope.clone();
            async move {
                serve(scope, options, sockets, members, table, known).await.unwrap();
                let _ = ended.send(());
            }
        });
        let server = Self {
            root,
            address: addresses[0],
            addresses,
            scope,
            drain,
            membership,
            names,
            machine,
            done,
            refusals,
        };
        server.resolve_by(servers);
        server
    }

    pub(super) fn resolve_by(&self, servers: &[&str]) {
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        Host::new(self.root.path(), System)
            .write(Path::new("/resolv.conf"), &text, 0o644, None)
            .unwrap();
    }

    pub(super) fn publish(&self, ips: &[&str]) {
        self.names.send_replace(Some(Arc::new(table_of(ips))));
    }

    /// Has a bridge with containers in this network.
    pub(super) fn bridge(&self, network: &str) {
        let bridge = HostBridge {
            interface: "br-shop".to_owned(),
            addresses: Vec::new(),
            networks: vec![network.parse().unwrap()],
            is_inner: true,
        };
        self.machine.send_modify(|machine| machine.bridges = vec![bridge]);
    }

    pub(super) async fn udp(&self, packet: &[u8]) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(packet, self.address).await.unwrap();
        let mut reply = vec![0; 65_535];
        let length = timeout(DEADLINE, socket.recv(&mut reply)).await.unwrap().unwrap();
        answer_to(packet, &reply[..length])
    }

    pub(super) async fn tcp(&self, stream: &mut TcpStream, packet: &[u8]) -> Message {
        send_framed(stream, packet).await.unwrap();
        let reply = timeout(DEADLINE, receive_framed(stream)).await.unwrap().unwrap();
        answer_to(packet, &reply)
    }

    /// Asks until the answer is `wanted`.
    pub(super) async fn becomes(&self, name: &str, wanted: &str) {
        timeout(DEADLINE, async {
            while answer(&self.udp(&query(name)).await) != wanted {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}

/// cart.shop.svc.cluster.local alone.
pub(super) fn table_of(ips: &[&str]) -> NameTable {
    let info = NameInfo {
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        registry: "Kubernetes".to_owned(),
        shortname: "cart".to_owned(),
        namespace: "shop".to_owned(),
    };
    NameTable {
        names: [("cart.shop.svc.cluster.local".to_owned(), info)].into(),
    }
}

pub(super) fn member_of(namespace: &str) -> Membership {
    let mut member = membership();
    member.spiffe_id.namespace = namespace.to_owned();
    member.dns_capture = true;
    member
}

pub(super) fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let mut edns = Edns::new();
    edns.set_max_payload(1400);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

pub(super) fn answer_to(packet: &[u8], reply: &[u8]) -> Message {
    assert_eq!(reply[..2], packet[..2], "an answer to another query");
    Message::from_vec(reply).unwrap()
}

/// Addresses, or the code when there are none; `!` marks an answer of the mesh.
pub(super) fn answer(message: &Message) -> String {
    let addresses: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    match (addresses.is_empty(), message.metadata.authoritative) {
        (true, _) => format!("{:?}", message.metadata.response_code),
        (false, true) => format!("{}!", addresses.join(",")),
        (false, false) => addresses.join(","),
    }
}
