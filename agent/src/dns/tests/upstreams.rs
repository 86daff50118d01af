//! The servers that questions are forwarded to, each with one thing to say.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use tokio::net::{TcpListener, UdpSocket};

use super::super::forward::{receive_framed, send_framed};
use super::*;

/// The answer of a server that we forward to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Says {
    Address(&'static str),
    Code(ResponseCode),
    Nothing,
    /// To all but `dead.`, of which it says nothing.
    OfTheLiving(&'static str),
}

/// Servers on 127.0.0.1, 127.0.0.2, … with one port, which is returned. They end with the scope.
pub(super) async fn upstreams(scope: &Scope, say: &[Says]) -> u16 {
    let mut port = 0;
    for (number, says) in (1..).zip(say.iter().copied()) {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((IpAddr::from([127, 0, 0, number]), port))
                .await
                .unwrap();
            match TcpListener::bind(udp.local_addr().unwrap()).await {
                Ok(tcp) => break (udp, tcp),
                // Somebody has the port that the kernel chose: another will do.
                Err(_) if port == 0 => {}
                Err(error) => panic!("{error}"),
            }
        };
        port = udp.local_addr().unwrap().port();
        scope.spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                if let Some(reply) = reply_to(&buffer[..length], says) {
                    let stale = [&[reply[0] ^ 1], &reply[1..]].concat();
                    udp.send_to(&stale, client).await.unwrap();
                    udp.send_to(&reply, client).await.unwrap();
                }
            }
        });
        scope.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let packet = receive_framed(&mut stream).await.unwrap();
                if let Some(reply) = reply_to(&packet, says) {
                    send_framed(&mut stream, &reply).await.unwrap();
                }
            }
        });
    }
    port
}

pub(super) fn reply_to(packet: &[u8], says: Says) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(packet).unwrap().into_response();
    assert_eq!(message.max_payload(), 1400, "EDNS is passed on");
    match says {
        Says::Nothing => return None,
        Says::Code(code) => message.metadata.response_code = code,
        Says::OfTheLiving(_) if message.queries[0].name.to_ascii() == "dead." => return None,
        Says::Address(ip) | Says::OfTheLiving(ip) => {
            let name = message.queries[0].name.clone();
            message.add_answer(Record::from_rdata(name, 5, RData::A(A(ip.parse().unwrap()))));
        }
    }
    Some(message.to_vec().unwrap())
}
