//! The way to the mesh: each control plane, the CA, and one certificate of it that nobody keeps.

use std::time::{Duration, SystemTime};

use anyhow::{Error, Result, anyhow};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::ANSWER_TIMEOUT;
use super::credentials;
use super::host::SET_THE_CLOCK;
use crate::config::{Config, JoinConfig};
use crate::control_plane::{self, Unresolved};
use crate::facts::{Membership, date};
use crate::identity;
use crate::part::{CheckContext, Finding, Level, Member, Question, Subject};

const CONTROL_PLANE: Subject = Subject::new("IVA301", "control plane");
const CA: Subject = Subject::new("IVA302", "CA");
const CERTIFICATE: Subject = Subject::new("IVA303", "CA's signature");
const REACH: &str = "let this VM reach it by TCP (routes, firewalls, its port), and see that the bundle is of this mesh: \
                     `istioctl x workload entry configure` makes one";

const SHOW: &str = "show the CA what it accepts: a token of this group's service account and of the cluster that cluster_id names, \
                    and a CA that is switched on (ENABLE_CA_SERVER, CA_ADDR)";
/// Time for one address of a name, and for the resolver. With what the join source takes before, it ends within a round.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(2500);
/// Time for all addresses of a name: it may have several, none of which answers.
const NAME_TIMEOUT: Duration = Duration::from_secs(3);

/// The finding that the CA signs, where it is there. A later round keeps it: the CA is not asked to sign again.
pub(super) fn signed(findings: &[Finding]) -> Option<Finding> {
    let mut good = findings.iter().filter(|finding| finding.level == Level::Ok);
    good.find(|finding| finding.is_of(CERTIFICATE)).cloned()
}

/// `signed` is an earlier round's.
pub(super) fn questions(context: &CheckContext, signed: Option<Finding>) -> Vec<Question> {
    let certificate = match signed {
        Some(finding) => Question::new(CERTIFICATE, async { [finding] }),
        None => Question::of_member(CERTIFICATE, context, |member| async move { [rehearsal(member).await] }),
    };
    vec![
        Question::of_member(CONTROL_PLANE, context, control_planes),
        Question::of_member(
            CA,
            context,
            |member| async move { [authority(&member.membership).await] },
        ),
        certificate,
    ]
}

/// The configured ones, else the membership's.
pub(super) fn addresses(config: &Config, membership: &Membership) -> Vec<String> {
    match config.control_plane.addresses.as_slice() {
        [] => vec![membership.discovery_address.clone()],
        configured => configured.to_vec(),
    }
}

/// One that answers is enough to join.
async fn control_planes(Member { site, membership, .. }: Member) -> Vec<Finding> {
    let addresses = addresses(&site.config, &membership);
    let asked = addresses.iter().map(|address| async {
        match connect(&membership, address).await {
            Ok(to) => CONTROL_PLANE.ok(format!("{to} answers and proves its name")),
            Err(error) => CONTROL_PLANE.failed(format!("{error:#}"), reach(&error, &site.config.join)),
        }
    });
    let findings = join_all(asked).await;
    match findings.iter().any(|finding| finding.level == Level::Ok) {
        true => findings.into_iter().map(Finding::tolerable).collect(),
        false => findings,
    }
}

/// Remedy for a control plane that can't be reached for that reason.
fn reach(error: &Error, join: &JoinConfig) -> String {
    if control_plane::is_untimely(error) {
        return SET_THE_CLOCK.to_owned();
    }
    let Some(Unresolved { host, .. }) = error.downcast_ref() else {
        return REACH.to_owned();
    };
    let line = match join {
        JoinConfig::Directory(_) | JoinConfig::Https(_) => format!(
            "make the bundle with `istioctl x workload entry configure --ingressIP ADDRESS`, the address at which this VM \
             reaches istiod, or write `ADDRESS {host}` into its hosts file"
        ),
        JoinConfig::Kubernetes(_) | JoinConfig::Gke(_) => {
            "give istiod's address, in [join] as `ingress`, or in control_plane.addresses".to_owned()
        }
    };
    format!("{line}; or have a name server of /etc/resolv.conf know {host}")
}

async fn connect(membership: &Membership, address: &str) -> Result<String> {
    let connection = control_plane::connect(membership, address, None, SystemTime::now(), ADDRESS_TIMEOUT);
    match timeout(NAME_TIMEOUT, connection).await {
        Ok(connected) => connected.map(|connection| connection.address),
        Err(_) => Err(anyhow!("istiod at {address} gave no answer within {NAME_TIMEOUT:?}")),
    }
}

/// A CA of the mesh that is not istiod (`CA_ADDR`).
async fn authority(membership: &Membership) -> Finding {
    if membership.ca_address == membership.discovery_address {
        return CA.ok("is istiod");
    }
    match connect(membership, &membership.ca_address).await {
        Ok(to) => CA.ok(format!("{to} answers and proves its name")),
        Err(error) => CA.failed(
            format!("CA_ADDR of cluster.env: {error:#}"),
            "let this VM reach the CA of the mesh, or take CA_ADDR out of cluster.env where istiod is the CA",
        ),
    }
}

/// Shows the token or the certificate to the CA, and lets it sign once: that the account, the cluster's id, the life and
/// the roots are good is only known then.
async fn rehearsal(
    Member {
        site,
        membership,
        tokens,
    }: Member,
) -> Finding {
    let now = SystemTime::now();
    let current = credentials::certificate(&site, &membership, now);
    if current.is_none() && tokens.is_none() && membership.token_file.is_none() {
        return CERTIFICATE.skipped("this VM has neither a certificate nor a token to ask with");
    }
    let addresses = addresses(&site.config, &membership);
    if let Err(error) = reachable(&membership, &addresses).await {
        return CERTIFICATE.skipped(format!("no CA answers: {error:#}"));
    }
    let credential = match (&current, &tokens) {
        (None, None) => credentials::remedy(&membership, now),
        _ => None,
    };
    let asked = identity::rehearse(&site.config.identity, addresses, &membership, current.as_ref(), tokens);
    match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(issued)) => {
            let by = issued
                .issued_with
                .map_or_else(String::new, |with| format!(" for {}", with.by));
            CERTIFICATE.ok(format!(
                "it signs for {} until {}{by}; this one is not kept",
                issued.spiffe_id,
                date(issued.not_after)
            ))
        }
        Ok(Err(error)) => CERTIFICATE.failed(format!("{error:#}"), credential.unwrap_or_else(|| SHOW.to_owned())),
        Err(_) => CERTIFICATE.failed(
            format!("the CA signed nothing within {ANSWER_TIMEOUT:?}"),
            "see the log of istiod, or of the CA that CA_ADDR names",
        ),
    }
}

/// Fails when none of those that would be asked for a signature answers, which is told elsewhere.
async fn reachable(membership: &Membership, addresses: &[String]) -> Result<()> {
    let ca = [membership.ca_address.clone()];
    let asked = match membership.ca_address == membership.discovery_address {
        true => addresses,
        false => &ca,
    };
    let mut answers = join_all(asked.iter().map(|address| connect(membership, address))).await;
    match answers.iter().any(Result::is_ok) {
        true => Ok(()),
        false => answers.pop().unwrap_or(Ok(String::new())).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use futures_util::FutureExt;
    use tokio::sync::watch;

    use super::*;
    use crate::control_plane::fixtures;
    use crate::host::Host;
    use crate::part::{Joined, Site, Units};

    #[tokio::test]
    async fn ca_that_has_signed_is_not_asked_again() {
        let site = Arc::new(Site {
            host: Host::system(),
            config: Config::default(),
            units: Units::default(),
        });
        // A question that asked would wait for the join source, which never answers.
        let (_join, joined) = watch::channel(Joined::Pending);
        let context = CheckContext { site, joined };
        let earlier = [CA.ok("is istiod"), CERTIFICATE.ok("it signs")];
        let questions = questions(&context, signed(&earlier));
        let again = questions.into_iter().find(|question| question.subject == CERTIFICATE);
        let answer = again.unwrap().answer.now_or_never();
        assert_eq!(answer, Some(vec![CERTIFICATE.ok("it signs")]));
        assert_eq!(signed(&[CERTIFICATE.failed("no", "fix")]), None);
        assert_eq!(signed(&[CERTIFICATE.skipped("no CA answers")]), None);
    }

    #[tokio::test]
    async fn name_without_an_address_is_given_one_and_no_route() {
        let mut membership = fixtures::membership();
        membership.hosts.clear();
        let error = connect(&membership, "istiod.no-such.invalid:15012").await.unwrap_err();
        assert!(
            format!("{error:#}").starts_with("failed to resolve istiod.no-such.invalid"),
            "{error:#}"
        );
        let of = |join: &str| {
            let config = Config::parse(Path::new("c.toml"), join).unwrap();
            reach(&error, &config.join)
        };
        let directory = of("[join.directory]\npath = '/b'\n");
        assert!(directory.contains("--ingressIP ADDRESS"), "{directory}");
        assert!(directory.contains("`ADDRESS istiod.no-such.invalid`"), "{directory}");
        let kubernetes = of("[join.kubernetes]\nkubeconfig = '/k'\nnamespace = 'shop'\nworkload_group = 'catalog'\n");
        assert!(kubernetes.contains("`ingress`"), "{kubernetes}");
        assert_eq!(reach(&anyhow!("refused"), &JoinConfig::default()), REACH);
    }

    #[tokio::test]
    async fn ca_that_is_not_istiod_is_asked_too() {
        let mut membership = fixtures::membership();
        membership.ca_address = membership.discovery_address.clone();
        assert_eq!(authority(&membership).await.level, Level::Ok);
        membership.ca_address = "127.0.0.1:1".to_owned();
        let found = authority(&membership).await;
        assert!(found.is_of(CA) && found.level == Level::Failed, "{found:?}");
        assert!(found.detail.contains("127.0.0.1:1"), "{found:?}");
    }
}
