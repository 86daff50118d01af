//! Envoy's version beside the control plane's. A finding never keeps a VM from joining: a version that doesn't fit may
//!  work.

use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use super::control_plane::addresses;
use super::{credentials, envoy};
use crate::config::Config;
use crate::control_plane::{self, token::TokenSource};
use crate::facts::Membership;
use crate::host::{Host, blocking};
use crate::join::Join;
use crate::part::{CheckContext, Finding, Member, Question, Site, Subject, Units};

use super::ANSWER_TIMEOUT;

const VERSIONS: Subject = Subject::new("IVA304", "versions");
/// Istio 1.N is built on Envoy 1.(N + 8), since 1.16 (istio.io, "Supported Releases"; istio/proxy's
/// ENVOY_VERSION.txt).
const ENVOY_AHEAD: u32 = 8;
const FIRST: u32 = 16;
/// "The Istio control plane can be one version ahead of the data plane. However, the data plane cannot be ahead of
/// control plane." (istio.io, "Supported Releases", Control Plane/Data Plane Skew)
const SUPPORTED: u32 = 1;

pub(super) fn questions(context: &CheckContext) -> Vec<Question> {
    vec![Question::of_member(VERSIONS, context, |member| async move {
        [timeout(ANSWER_TIMEOUT, finding(member))
            .await
            .unwrap_or_else(|_| VERSIONS.skipped("not compared: no control plane gave an answer in time"))]
    })]
}

/// The release of Istio that istiod is of, such as `1.30.0`, which is the tag of its images too.
///
/// # Errors
/// When no control plane answers, or none says that it is a release.
pub(in crate::cli) async fn istio_release(
    host: &Host,
    config: &Config,
    join: &Join,
    membership: &Membership,
) -> Result<String> {
    let site = Site {
        host: host.clone(),
        config: config.clone(),
        units: Units::default(),
    };
    let tokens = join.tokens();
    let asked = timeout(ANSWER_TIMEOUT, istiod(&site, membership, tokens.as_deref())).await;
    let name_one = "name Envoy's image with its tag by --envoy-image, or a program that is here by --envoy";
    let Some((address, said)) = asked.unwrap_or_default() else {
        bail!("which Istio is it? No control plane answers: `istio-vm-agent check` says why, or {name_one}");
    };
    let said = said.with_context(|| format!("which Istio is it? {name_one}"))?;
    match said.filter(|version| is_release(version)) {
        Some(version) => Ok(version),
        None => bail!("istiod at {address} doesn't say of which release it is: {name_one}"),
    }
}

/// The answer of the first control plane that gives one to which Istio it is, and its address; `None`: there is none.
async fn istiod(
    site: &Site,
    membership: &Membership,
    tokens: Option<&dyn TokenSource>,
) -> Option<(String, Result<Option<String>>)> {
    let now = SystemTime::now();
    let stored = credentials::certificate(site, membership, now);
    let certificate = stored.as_ref();
    for address in addresses(&site.config, membership) {
        let connected = control_plane::connect(membership, &address, certificate, now, ANSWER_TIMEOUT).await;
        if let Ok(connection) = connected {
            let said = control_plane::version(connection, membership, certificate, tokens, now).await;
            return Some((address, said));
        }
    }
    None
}

async fn finding(
    Member {
        site,
        membership,
        tokens,
    }: Member,
) -> Finding {
    let asked = site.clone();
    let Ok(Some(version)) = blocking(move || Ok(envoy::version(&asked))).await else {
        return VERSIONS.skipped("not compared: Envoy is not here yet, or does not run");
    };
    match istiod(&site, &membership, tokens.as_deref()).await {
        Some((address, said)) => told(&address, &version, said),
        None => VERSIONS.skipped("not compared: no control plane answers"),
    }
}

/// True for `1.30.0`, `1.31.0-rc.1`: what an image has for a tag.
fn is_release(version: &str) -> bool {
    let number = version.split('-').next().unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    number.split('.').count() == 3 && number.split('.').all(is_number) && version.chars().all(is_plain)
}

fn told(address: &str, envoy: &str, said: Result<Option<String>>) -> Finding {
    match said {
        Ok(Some(istiod)) => judge(address, envoy, &istiod),
        Ok(None) => unknown(address, "doesn't say which Istio it is"),
        Err(error) => VERSIONS.skipped(format!("not compared: {error:#}")),
    }
}

fn unknown(address: &str, why: &str) -> Finding {
    VERSIONS.skipped(format!("not compared: istiod at {address} {why}"))
}

fn judge(address: &str, envoy: &str, istiod: &str) -> Finding {
    let Some(control) = minor(istiod) else {
        return unknown(address, &format!("says that it is {istiod:?}, which is no release"));
    };
    let Some(data) = minor(envoy)
        .and_then(|envoy| envoy.checked_sub(ENVOY_AHEAD))
        .filter(|data| *data >= FIRST)
    else {
        return VERSIONS.skipped(format!(
            "not compared: Envoy {envoy} is that of no Istio that is known here"
        ));
    };
    let is = format!("Envoy {envoy} is Istio 1.{data}'s, istiod at {address} is {istiod}");
    let fitting = format!(
        "take an Envoy 1.{}, or Istio 1.{control}'s proxyv2",
        control.saturating_add(ENVOY_AHEAD)
    );
    match control.checked_sub(data) {
        Some(0..=SUPPORTED) => VERSIONS.ok(is),
        Some(behind) => VERSIONS.warning(
            format!("{is}: {behind} minor versions behind, and Istio supports {SUPPORTED}"),
            fitting,
        ),
        None => VERSIONS.warning(
            format!("{is}: Istio supports no Envoy that is newer than the control plane"),
            fitting,
        ),
    }
}

/// 31 of `1.31.2`, `1.31-alpha.0`, `1.31.0-dev`.
fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("1.")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Level;

    #[test]
    fn the_skew_that_istio_supports_is_fine_and_the_rest_is_named() {
        for (envoy, istiod, level, says) in [
            (
                "1.39.1",
                "1.31.2",
                Level::Ok,
                "Envoy 1.39.1 is Istio 1.31's, istiod at i:15012 is 1.31.2",
            ),
            ("1.38.4-dev", "1.31.0", Level::Ok, "is Istio 1.30's"),
            ("1.37.0", "1.31.0", Level::Warning, "2 minor versions behind"),
            (
                "1.30.0",
                "1.31-alpha.0",
                Level::Warning,
                "take an Envoy 1.39, or Istio 1.31's proxyv2",
            ),
            ("1.40.0", "1.31.0", Level::Warning, "newer than the control plane"),
            (
                "1.40.0",
                "master-lab",
                Level::Skipped,
                "not compared: istiod at i:15012 says that it is \"master-lab\"",
            ),
            ("1.40.0", "unknown", Level::Skipped, "which is no release"),
            ("1.23.0", "1.16.0", Level::Skipped, "no Istio that is known here"),
            ("1.2.0", "1.16.0", Level::Skipped, "not compared"),
            ("2.0.0", "1.16.0", Level::Skipped, "not compared"),
        ] {
            let found = judge("i:15012", envoy, istiod);
            assert!(
                found.level == level
                    && (found.detail.contains(says) || found.fix.as_deref().unwrap_or_default().contains(says)),
                "{envoy} {istiod}: {found:?}"
            );
        }
        for (version, wanted) in [
            ("1.30.0", true),
            ("1.31.0-rc.1", true),
            ("1.31-alpha.0", false),
            ("master-lab", false),
            ("1.30.0/../x", false),
            ("", false),
        ] {
            assert_eq!(is_release(version), wanted, "{version}");
        }
        let silent = told("i:15012", "1.40.0", Ok(None));
        assert_eq!(
            (silent.level, silent.detail.contains("doesn't say")),
            (Level::Skipped, true)
        );
        let refused = told("i:15012", "1.40.0", Err(anyhow::anyhow!("no")));
        assert_eq!(
            (refused.level, refused.detail.as_str()),
            (Level::Skipped, "not compared: no")
        );
    }
}
