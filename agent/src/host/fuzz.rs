//! A machine without files, on which every command prints the same; and what holds of files that others write.

use netlink_packet_core::NetlinkBuffer;

use super::fixtures::Answers;
use super::netlink::List;
use super::proc::Stat;
use super::{Host, Invocation, ResolvConf, bridges, packet_filter};

/// The machine whose commands print `text`.
pub(crate) fn machine(text: &str) -> Host {
    let text = text.to_owned();
    Host::new("/nonexistent", Answers(move |_: &Invocation| Ok(text.clone())))
}

/// /proc/PID/stat, in which the name is anybody's choice.
pub(crate) fn process_stat(text: &str) {
    let _ = Stat::parse(text);
}

/// /proc/net/tcp.
pub(crate) fn proc_net_tcp(text: &str) {
    assert!(super::sockets::in_state(text, "0A").len() <= text.lines().count());
}

/// resolv.conf, of the VM.
pub(crate) fn resolv_conf(text: &str) {
    let conf = ResolvConf::parse(text);
    assert!(conf.servers.len() <= 16);
    for (index, server) in conf.servers.iter().enumerate() {
        assert!(
            !conf.servers.iter().take(index).any(|earlier| earlier == server),
            "each once"
        );
    }
    for domain in &conf.search {
        assert!(!domain.is_empty() && !domain.ends_with('.') && !domain.contains(|c: char| c.is_ascii_whitespace()));
    }
}

/// One packet of the kernel's: a list of interfaces, or of what is in nf_tables.
pub(crate) fn netlink_packet(packet: &[u8]) {
    let link = |message: NetlinkBuffer<&[u8]>| bridges::link(message.payload());
    let mut links = List::new(&link);
    let _ = links.read(packet);
    assert!(links.taken.len() <= packet.len() / 16, "each has a header");
    let comment = |message: NetlinkBuffer<&[u8]>| {
        let beside = packet_filter::attribute(message.payload(), 6);
        Some(packet_filter::comment(&beside.unwrap_or_default()))
    };
    let mut comments = List::new(&comment);
    let _ = comments.read(packet);
    assert!(comments.taken.iter().map(String::len).sum::<usize>() <= packet.len());
}
