//! Questions of `check` about names: whose queries are captured, who passes the capture by, and whether servers answer.

pub(super) mod nsswitch;

pub(super) use nsswitch::is_passed_by;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::forward::ask_udp;
use crate::facts::Membership;
use crate::host::{ResolvConf, blocking};
use crate::part::{CheckContext, Finding, Member, Question, Site, Subject};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const CAPTURE: Subject = Subject::new("IVA701", "name servers");
const NSSWITCH: Subject = Subject::new("IVA702", "nsswitch");
const ANSWERS: Subject = Subject::new("IVA703", "DNS answers");
const PORT: u16 = 53;
/// Time that a server is given: programs wait for 5 s, and ask the next one then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The name servers of the root zone (RFC 1035, section 4.1), a question that every server has an answer to, if only a
/// refusal; recursion desired, so that a server which asks others shows whether they answer.
const QUERY: [u8; 17] = [0x15, 0x53, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
/// The code of an answer that a server didn't get itself (RFC 1035, section 4.1.1). REFUSED is one to this question.
const SERVFAIL: u8 = 2;

pub(super) fn questions(context: &CheckContext) -> Vec<Question> {
    vec![
        Question::look_of_member(CAPTURE, context, |site, membership| [captured(site, membership)]),
        Question::look_of_member(NSSWITCH, context, |site, membership| match membership.dns_capture {
            true => [nsswitch::finding(NSSWITCH, &site.host)],
            false => [NSSWITCH.skipped("DNS is not captured")],
        }),
        Question::of_member(ANSWERS, context, answers),
    ]
}

fn captured(site: &Site, membership: &Membership) -> Finding {
    if !membership.dns_capture {
        return CAPTURE.ok("DNS is not captured: names of the mesh are those of the VM's own name servers");
    }
    match site.host.resolv_conf(Path::new(RESOLV_CONF)) {
        Ok(conf) => judge(&conf.unwrap_or_default()),
        Err(error) => CAPTURE.failed(
            format!("failed to read the name servers: {error}"),
            format!("make {RESOLV_CONF} a file of some lines that root can read"),
        ),
    }
}

/// Name servers that the VM's programs ask past the agent.
fn judge(conf: &ResolvConf) -> Finding {
    let (captured, passed): (Vec<_>, Vec<_>) = conf.servers.iter().partition(|server| server.is_redirectable());
    let list = |servers: &[_]| {
        let addresses = servers
            .iter()
            .map(|server: &&crate::host::NameServer| server.address.to_string());
        addresses.collect::<Vec<_>>().join(", ")
    };
    if !passed.is_empty() {
        return CAPTURE.warning(
            format!(
                "queries to {} are not captured, for it is a link-local address: what is asked there is answered \
                 without the mesh's names",
                list(&passed)
            ),
            format!("name another address of that server in {RESOLV_CONF}"),
        );
    }
    if let Some(word) = conf.unusable.first() {
        let fix = match word.ends_with('\r') {
            true => format!("sed -i 's/\\r$//' {RESOLV_CONF}"),
            false => format!("write the server's address into {RESOLV_CONF}"),
        };
        return CAPTURE.warning(
            format!("{RESOLV_CONF}: nameserver {word:?} is no address, and programs pass it over"),
            fix,
        );
    }
    CAPTURE.ok(format!("queries to {} are captured", list(&captured)))
}

/// Asks every name server at once; the agent hands on to them what the mesh doesn't know.
async fn answers(Member { site, .. }: Member) -> Vec<Finding> {
    let read = blocking(move || Ok(site.host.resolv_conf(Path::new(RESOLV_CONF))?)).await;
    let servers = read.ok().flatten().unwrap_or_default().servers;
    let addresses: Vec<_> = servers
        .iter()
        .filter_map(|server| server.socket_address(PORT))
        .collect();
    judge_answers(&asked(&addresses).await)
}

async fn asked(addresses: &[SocketAddr]) -> Vec<(SocketAddr, Option<String>)> {
    join_all(addresses.iter().map(|address| async {
        let problem = match timeout(ANSWER_TIMEOUT, ask_udp(*address, &QUERY)).await {
            Ok(Ok(answer)) => {
                is_failure(&answer).then(|| "SERVFAIL: it has no answer from the servers that it asks".to_owned())
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {ANSWER_TIMEOUT:?}")),
        };
        (*address, problem)
    }))
    .await
}

/// True for an answer that says the server has none from those that it asks.
fn is_failure(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| flags & 0x0f == SERVFAIL)
}

fn judge_answers(asked: &[(SocketAddr, Option<String>)]) -> Vec<Finding> {
    let silent: Vec<String> = asked
        .iter()
        .filter_map(|(address, problem)| Some(format!("{} ({})", address.ip(), problem.as_ref()?)))
        .collect();
    let fix = format!(
        "check that this VM, and a resolver on it, reaches its name servers, or name others in {RESOLV_CONF}: `nameserver \
         ADDRESS`; without one programs ask 127.0.0.1; one that asks by TLS needs ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE=853 to \
         do so while Envoy is down"
    );
    let finding = match silent.len() {
        _ if asked.is_empty() => ANSWERS.skipped(format!("{RESOLV_CONF} names no server that can be asked")),
        0 => ANSWERS.ok(format!("{} of {} name servers answer", asked.len(), asked.len())),
        _ => ANSWERS.warning(format!("no answer from name server {}", silent.join(", ")), fix),
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;
    use crate::part::Level;

    #[test]
    fn name_servers_that_pass_the_agent_by_are_named() {
        let conf = |text: &str| judge(&ResolvConf::parse(text));
        assert_eq!(conf("nameserver 10.0.0.1\n").level, Level::Ok);
        let found = conf("nameserver fe80::1%eth0\nnameserver 10.0.0.1\n");
        assert!(
            found.detail.starts_with("queries to fe80::1 are not captured"),
            "{found:?}"
        );
        assert_eq!(conf("").detail, "queries to 127.0.0.1 are captured");
        for (line, fix) in [
            ("nameserver 10.0.0.1\r\n", "sed -i 's/\\r$//' /etc/resolv.conf"),
            (
                "nameserver dns.example\n",
                "write the server's address into /etc/resolv.conf",
            ),
        ] {
            let found = conf(line);
            assert!(found.detail.contains("is no address"), "{found:?}");
            assert_eq!(found.fix.as_deref(), Some(fix));
        }
    }

    #[tokio::test]
    async fn server_that_gives_no_answer_is_named_and_keeps_no_other_from_being_asked() {
        let (well, silent) = (
            UdpSocket::bind("127.0.0.1:0").await,
            UdpSocket::bind("127.0.0.1:0").await,
        );
        let (well, silent) = (well.unwrap(), silent.unwrap());
        let addresses = [well.local_addr().unwrap(), silent.local_addr().unwrap()];
        let serves = async {
            let mut query = [0; QUERY.len()];
            let (length, client) = well.recv_from(&mut query).await.unwrap();
            query[2] |= 0x80;
            well.send_to(&query[..length], client).await.unwrap();
        };
        let (asked, ()) = tokio::join!(asked(&addresses), serves);
        assert_eq!(asked[0].1, None);
        let found = &judge_answers(&asked)[0];
        assert!(
            found.level == Level::Warning && found.detail.contains("no answer within 2s"),
            "{found:?}"
        );
        assert_eq!(judge_answers(&asked[..1])[0].level, Level::Ok);
        let fails = async {
            let mut query = [0; QUERY.len()];
            let (length, client) = well.recv_from(&mut query).await.unwrap();
            (query[2], query[3]) = (query[2] | 0x80, SERVFAIL);
            well.send_to(&query[..length], client).await.unwrap();
        };
        let (failed, ()) = tokio::join!(super::asked(&addresses[..1]), fails);
        let found = &judge_answers(&failed)[0];
        assert!(
            found.level == Level::Warning && found.detail.contains("(SERVFAIL: "),
            "{found:?}"
        );
        assert_eq!(judge_answers(&[])[0].level, Level::Skipped);
    }
}
