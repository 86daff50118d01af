//! A connection as netfilter follows it. Pure.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// An entry of /proc/net/nf_conntrack.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Connection {
    /// The state of TCP, such as `ESTABLISHED`.
    pub(super) tcp: String,
    /// True where no answer has come back.
    pub(super) unreplied: bool,
    /// The address and port that the answers come from.
    pub(super) answered_by: SocketAddr,
}

impl Connection {
    /// The entry of the connection from `peer` to this VM's `port`; `is_own` knows this VM's addresses. One that this VM only
    /// forwards may have the same source and port.
    pub(super) fn find(text: &str, peer: SocketAddr, is_own: impl Fn(IpAddr) -> bool, port: u16) -> Option<Self> {
        text.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(2);
            let tcp = words
                .next()
                .filter(|protocol| *protocol == "tcp")
                .and_then(|_| words.nth(2))?;
            // The first packet's source and destination, then those of the answers.
            let values = |key: &'static str| words.clone().filter_map(move |word| word.strip_prefix(key));
            let (mut sources, mut from, mut to) = (values("src="), values("sport="), values("dport="));
            let destination = values("dst=").next()?.parse().ok()?;
            let is_it = sources.next()?.parse() == Ok(peer.ip())
                && from.next()?.parse() == Ok(peer.port())
                && to.next()?.parse() == Ok(port)
                && is_own(destination);
            let answering = (sources.next()?.parse::<IpAddr>().ok()?, from.next()?.parse().ok()?);
            is_it.then(|| Self {
                tcp: tcp.to_owned(),
                unreplied: words.clone().any(|word| word == "[UNREPLIED]"),
                answered_by: answering.into(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
ipv4     2 tcp      6 431999 ESTABLISHED src=10.1.2.3 dst=172.17.0.2 sport=40000 dport=3550 src=172.17.0.2 dst=10.1.2.3 sport=3550 dport=40000 [ASSURED] mark=0 zone=0 use=2
ipv4     2 udp      17 28 src=10.1.2.3 dst=10.0.0.5 sport=40000 dport=3550 src=10.0.0.5 dst=10.1.2.3 sport=3550 dport=40000 mark=0 zone=0 use=2
ipv4     2 tcp      6 431999 ESTABLISHED src=10.1.2.3 dst=10.0.0.5 sport=40000 dport=3550 src=10.0.0.5 dst=10.1.2.3 sport=15006 dport=40000 [ASSURED] mark=0 zone=0 use=2
ipv4     2 tcp      6 100 SYN_SENT src=10.1.2.3 dst=10.0.0.5 sport=40001 dport=3550 [UNREPLIED] src=10.0.0.5 dst=10.1.2.3 sport=15006 dport=40001 mark=0 zone=0 use=2
ipv6     10 tcp      6 9 ESTABLISHED src=fd00:0000:0000:0000:0000:0000:0000:0009 dst=fd00:0000:0000:0000:0000:0000:0000:0005 sport=40000 dport=3550 src=fd00:0000:0000:0000:0000:0000:0000:0005 dst=fd00:0000:0000:0000:0000:0000:0000:0009 sport=3550 dport=40000 [ASSURED] mark=0 use=1
";

    #[test]
    fn connection_is_found_by_both_its_ends() {
        let is_own = |address: IpAddr| ["10.0.0.5", "fd00::5"].contains(&address.to_string().as_str());
        let find = |peer: &str, port| Connection::find(TABLE, peer.parse().unwrap(), is_own, port);
        let found = |tcp: &str, unreplied, answered_by: &str| {
            Some(Connection {
                tcp: tcp.to_owned(),
                unreplied,
                answered_by: answered_by.parse().unwrap(),
            })
        };
        assert_eq!(
            find("10.1.2.3:40000", 3550),
            found("ESTABLISHED", false, "10.0.0.5:15006")
        );
        assert_eq!(find("10.1.2.3:40001", 3550), found("SYN_SENT", true, "10.0.0.5:15006"));
        assert_eq!(
            find("[fd00::9]:40000", 3550),
            found("ESTABLISHED", false, "[fd00::5]:3550")
        );
        assert_eq!(find("10.1.2.3:40000", 3551), None);
        assert_eq!(find("10.1.2.3:40002", 3550), None);
    }
}
