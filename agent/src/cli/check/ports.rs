//! The mesh's own ports on this VM: who has them, and who may get them by chance.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::config::ports;
use crate::host::{Host, Invocation, Read, blocking};
use crate::part::{CheckContext, Finding, Question, Site, Subject};
use crate::status;

const TAKEN: Subject = Subject::new("IVA107", "ports");
const OUTGOING: Subject = Subject::new("IVA108", "outgoing ports");
/// The unit that holds the mesh's ports.
const PORTS_UNIT: &str = "istio-vm-agent-ports.service";
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const MAX_BYTES: usize = 64 << 10;
const WANTED: [u16; 6] = [
    ports::OUTBOUND,
    ports::INBOUND,
    ports::STATUS,
    ports::READINESS,
    ports::DNS,
    ports::ENVOY_METRICS,
];
/// The unit that answers names while no agent does, and ends soon after a stop of the agent.
const DNS_UNIT: &str = "istio-vm-agent-dns.service";
/// Programs whose hold on a port ends with a start of the agent: it adopts the one, and refuses to start beside the other.
const OURS: [&str; 3] = ["\"envoy\"", "\"istio-vm-agent\"", "\"pilot-agent\""];

pub(super) fn questions(context: &CheckContext) -> Vec<Question> {
    let site = context.site.clone();
    vec![
        Question::new(TAKEN, async move {
            // While an agent runs they are its.
            let socket = site.config.paths.status_socket();
            match status::ask(&socket, status::BUSY_TIMEOUT).await {
                Ok(_) => [TAKEN.ok("served by the agent that runs")],
                Err(_) => [free(&site).await],
            }
        }),
        Question::look(OUTGOING, context, |site| [outgoing(&site.host)]),
    ]
}

async fn free(site: &Site) -> Finding {
    let host = site.host.clone();
    let looked = blocking(move || {
        // Held for us, and so for nobody else.
        let state = host.unit_property(PORTS_UNIT, "ActiveState");
        if state.is_ok_and(|state| state == "active") {
            return Ok(TAKEN.ok("held for the agent and Envoy"));
        }
        let mut taken: Vec<u16> = WANTED.into_iter().filter(|port| !is_free(*port)).collect();
        let has_standby = host
            .unit_property(DNS_UNIT, "MainPID")
            .is_ok_and(|pid| !["", "0"].contains(&pid.as_str()));
        let sockets = host.run(&Invocation::new(["ss", "-Htanp"])).unwrap_or_default();
        // One that was let go meanwhile is nobody's.
        taken.retain(|port| line_of(*port, &sockets).is_some() || !is_free(*port));
        Ok(judge(&taken, &sockets, has_standby))
    });
    looked.await.unwrap_or_else(|error| TAKEN.skipped(format!("{error:#}")))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

/// The line of ss(8) about a port of this VM.
fn line_of(port: u16, sockets: &str) -> Option<&str> {
    let of_port = |line: &&str| {
        let local = line.split_whitespace().nth(3);
        local.is_some_and(|it| it.ends_with(&format!(":{port}")))
    };
    sockets.lines().find(of_port)
}

/// `sockets` are lines of ss(8): state, two queues, the local and the peer's address, and who has it. `has_standby` where
/// the unit of the standby for DNS runs.
fn judge(taken: &[u16], sockets: &str, has_standby: bool) -> Finding {
    let is_standbys = |port: &u16| {
        let line = line_of(*port, sockets);
        *port == ports::DNS && has_standby && line.is_some_and(|it| it.contains("\"istio-vm-agent\""))
    };
    let taken: Vec<u16> = taken.iter().copied().filter(|port| !is_standbys(port)).collect();
    if taken.is_empty() {
        return TAKEN.ok(match has_standby {
            true => format!("free, or of {DNS_UNIT}, which goes with the agent"),
            false => "free".to_owned(),
        });
    }
    let holder = |port: &u16| {
        let line = line_of(*port, sockets)?;
        let users = line.split("users:").nth(1).map_or("somebody unknown", str::trim);
        Some(match line.starts_with("LISTEN") {
            true => format!("{port} by {users}"),
            false => format!("{port} by an outgoing connection of {users}"),
        })
    };
    let holders: Vec<String> = taken
        .iter()
        .map(|port| holder(port).unwrap_or_else(|| port.to_string()))
        .collect();
    let detail = format!("taken: {}", holders.join(", "));
    let is_ours = |holder: &String| OURS.iter().any(|name| holder.contains(name)) && !holder.contains("outgoing");
    match holders.iter().all(is_ours) {
        true => TAKEN.warning(
            format!("{detail}: an Envoy that an agent left behind is adopted"),
            "if it is another's, end it",
        ),
        false => TAKEN.failed(
            detail,
            "end that program, or have it use another port; `ss -tanp` shows who has which",
        ),
    }
}

/// A connection of this VM's to somewhere else may have the number that a listener needs.
fn outgoing(host: &Host) -> Finding {
    let read = |path| {
        host.read(Path::new(path), Read::max(MAX_BYTES).following_links())
            .ok()
            .flatten()
    };
    let (Some(range), Some(reserved)) = (read(RANGE), read(RESERVED)) else {
        return OUTGOING.skipped(format!("{RANGE} can't be read"));
    };
    let mut bounds = range.split_whitespace().map(|word| word.parse::<u16>().ok());
    let (Some(Some(first)), Some(Some(last))) = (bounds.next(), bounds.next()) else {
        return OUTGOING.skipped(format!("{RANGE} has another shape than two numbers"));
    };
    let is_reserved = |port: u16| {
        reserved.trim().split(',').any(|item| {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            low.parse::<u16>().is_ok_and(|low| low <= port) && high.parse::<u16>().is_ok_and(|high| port <= high)
        })
    };
    let mut exposed: Vec<u16> = WANTED.into_iter().chain([ports::CONTAINER]).collect();
    exposed.retain(|port| (first..=last).contains(port) && !is_reserved(*port));
    exposed.sort_unstable();
    if exposed.is_empty() {
        return OUTGOING.ok(format!(
            "outgoing connections are from ports {first} to {last}, none of them the mesh's"
        ));
    }
    let list = exposed.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let all = [reserved.trim(), &list].into_iter().filter(|list| !list.is_empty());
    OUTGOING.warning(
        format!("an outgoing connection may take port {list}, which Envoy or the agent then can't listen on"),
        format!(
            "sysctl -w net.ipv4.ip_local_reserved_ports={}, and the same in /etc/sysctl.d",
            all.collect::<Vec<_>>().join(",")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;
    use crate::part::Level;

    #[test]
    fn who_has_a_port_is_named_listener_or_not() {
        let sockets = "LISTEN 0 4096 0.0.0.0:15001 0.0.0.0:* users:((\"envoy\",pid=7,fd=3))\n\
                       ESTAB 0 0 10.0.0.2:15006 10.0.0.9:443 users:((\"curl\",pid=9,fd=5))\n\
                       LISTEN 0 128 *:15021 *:* users:((\"nginx\",pid=8,fd=6))\n";
        assert_eq!(judge(&[], sockets, false).level, Level::Ok);
        assert_eq!(judge(&[15001], sockets, false).level, Level::Warning);
        let found = judge(&[15001, 15006, 15021], sockets, false);
        assert_eq!(found.level, Level::Failed);
        for words in [
            "15006 by an outgoing connection of ((\"curl\",pid=9",
            "15021 by ((\"nginx\"",
        ] {
            assert!(found.detail.contains(words), "{found:?}");
        }
        assert_eq!(judge(&[15020], "", true).level, Level::Failed);
    }

    #[test]
    fn standby_that_has_the_port_of_dns_is_no_program_to_end_and_no_envoy() {
        let sockets = "LISTEN 0 4096 127.0.0.1:15053 0.0.0.0:* users:((\"istio-vm-agent\",pid=7,fd=3))\n";
        let found = judge(&[15053], sockets, true);
        assert!(found.level == Level::Ok && found.detail.contains(DNS_UNIT), "{found:?}");
        assert_eq!(judge(&[15053], sockets, false).level, Level::Warning);
        assert_eq!(judge(&[15001, 15053], sockets, true).level, Level::Failed);
        let other = sockets.replace("istio-vm-agent", "dnsmasq");
        assert_eq!(judge(&[15053], &other, true).level, Level::Failed);
    }

    #[test]
    fn range_of_outgoing_ports_that_has_the_meshs_is_named_with_the_setting_that_spares_them() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let write = |range: &str, reserved: &str| {
            std::fs::create_dir_all(root.path().join("proc/sys/net/ipv4")).unwrap();
            for (path, text) in [(RANGE, range), (RESERVED, reserved)] {
                std::fs::write(root.path().join(path.trim_start_matches('/')), text).unwrap();
            }
            outgoing(&host)
        };
        assert_eq!(outgoing(&host).level, Level::Skipped);
        assert_eq!(write("32768\t60999\n", "\n").level, Level::Ok);
        let found = write("1024\t65000\n", "8080,15000-15010\n");
        let fix = found.fix.unwrap();
        let setting = fix.split(['=', ' ']).nth(3).unwrap().trim_end_matches(',');
        assert_eq!(setting, "8080,15000-15010,15020,15021,15053,15090");
        assert_eq!(write("1024\t65000\n", setting).level, Level::Ok);
    }
}
