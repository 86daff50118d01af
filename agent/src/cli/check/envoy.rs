//! Envoy: where it comes from, whether it is there, what it is, and what it opens by itself.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use tokio::time::timeout;

use super::ANSWER_TIMEOUT;
use crate::config::EnvoySource;
use crate::docker::Registries;
use crate::envoy::{self, Build, Located};
use crate::host::{Host, Invocation, blocking};
use crate::kube;
use crate::part::{CheckContext, ENVOY_USER, Finding, Question, Site, Subject};
use crate::status;

const ENVOY: Subject = Subject::new("IVA501", "envoy");
const ADMIN: Subject = Subject::new("IVA502", "admin port");
const SYSTEM_ROOTS: Subject = Subject::new("IVA503", "system roots");
/// The file that Istio's Envoy is told of for TLS to hosts outside of the mesh, on Debian and its kin
/// (istio/pkg/security/security.go, GetOSRootFilePath).
const ROOTS_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(super) fn questions(context: &CheckContext) -> Vec<Question> {
    let (one, other) = (context.site.clone(), context.site.clone());
    vec![
        Question::new(ENVOY, async move { [finding(&one).await] }),
        Question::new(ADMIN, async move { [admin(&other).await] }),
        Question::look(SYSTEM_ROOTS, context, |site| [system_roots(&site.host)]),
    ]
}

async fn finding(site: &Site) -> Finding {
    let (config, host) = (site.config.clone(), site.host.clone());
    let options = envoy::Options::new(host.clone(), &config, None);
    let source = config.envoy.source();
    let looked = blocking(move || {
        Ok(match envoy::locate(&options) {
            Located::Here(path) => Ok(program(&host, &source, &path)),
            Located::ToFetch(_) => Err((options, source)),
        })
    });
    match looked.await {
        Ok(Ok(found)) => found,
        Ok(Err((options, source))) => match site.host.runs_no_programs(&site.config.paths.state) {
            true => unrunnable(&site.host, &site.config.paths.state),
            false => match unreadable(site) {
                Some(finding) => finding,
                None => to_fetch(&options, &source).await,
            },
        },
        Err(error) => ENVOY.skipped(format!("{error:#}")),
    }
}

/// A finding where `state` is mounted noexec: a fetched Envoy is kept there, and run from there.
fn unrunnable(host: &Host, state: &Path) -> Finding {
    let there = state
        .ancestors()
        .find(|path| host.exists(path))
        .unwrap_or(state)
        .display();
    let state = state.display();
    ENVOY.failed(
        format!("no program runs from paths.state, {state} (`noexec`), where the Envoy that is fetched would be"),
        format!(
            "mount -o remount,exec $(findmnt --noheadings --output TARGET --target {there}), and so in /etc/fstab; or set \
             envoy.binary to an Envoy elsewhere"
        ),
    )
}

/// The finding of a file that the fetch would read, behind the place of its key.
fn unreadable(Site { host, config, .. }: &Site) -> Option<Finding> {
    let login = Registries::new(host, config.envoy.registry_config.as_deref()).expect_readable();
    let roots = config.envoy.ca_file.as_ref();
    let roots = roots.map_or(Ok(()), |path| kube::read(path, host).map(drop));
    let found = [("envoy.registry_config", login), ("envoy.ca_file", roots)];
    found.into_iter().find_map(|(key, found)| {
        let problem = format!("{}: {:#}", config.places.named(key), found.err()?);
        Some(ENVOY.failed(problem, "mend the file that it names, or take it out of that key"))
    })
}

async fn to_fetch(options: &envoy::Options, source: &EnvoySource) -> Finding {
    let problem = match timeout(ANSWER_TIMEOUT, envoy::is_fetchable(options)).await {
        Ok(Ok(())) => return ENVOY.ok(format!("{source}: not fetched yet, and there to be")),
        Ok(Err(error)) => format!("{source}: not fetched yet, and can't be: {error:#}"),
        Err(_) => format!("{source}: not fetched yet, and no answer within {ANSWER_TIMEOUT:?}"),
    };
    let fix = "have this VM reach it, or set envoy.binary to an Envoy that is here";
    match envoy::earlier(options) {
        None => ENVOY.failed(problem, fix),
        Some(earlier) => ENVOY.warning(format!("{problem}; until then {} serves", earlier.display()), fix),
    }
}

/// The program as the user istio-proxy runs it.
fn program(host: &Host, source: &EnvoySource, path: &Path) -> Finding {
    let version = match envoy::version(host, path) {
        Ok(version) => version,
        Err(error) => {
            let fix = match source {
                EnvoySource::Binary(_) => {
                    "set envoy.binary to a working Envoy that user istio-proxy may execute, or envoy.image to Istio's proxyv2"
                }
                _ => {
                    "see that it is for this kind of machine, and that programs may run from paths.state (no `noexec`)"
                }
            };
            return ENVOY.failed(format!("{error:#}"), fix);
        }
    };
    let is = format!("{source}: version {version}");
    match envoy::build(host, path) {
        Ok(Build::Istio) => ENVOY.ok(format!("{is}, Istio's build")),
        Ok(Build::Vanilla) => ENVOY.warning(
            format!(
                "{is}, without Istio's own filters: it refuses what istiod makes with istio.alpn, istio.stats, \
                 istio.metadata_exchange"
            ),
            "use envoy.image with Istio's proxyv2; or switch those off in istiod, which leaves this VM without istio_* metrics",
        ),
        Err(error) => ENVOY.warning(format!("{is}; {error:#}"), "try it by hand: `envoy --mode validate`"),
    }
}

/// The version of the program that is here.
pub(super) fn version(site: &Site) -> Option<String> {
    match envoy::locate(&envoy::Options::new(site.host.clone(), &site.config, None)) {
        Located::Here(path) => envoy::version(&site.host, &path).ok(),
        Located::ToFetch(_) => None,
    }
}

async fn admin(site: &Site) -> Finding {
    let Some(port) = site.config.envoy.admin_port else {
        return ADMIN.ok("none: Envoy's admin interface is a unix socket in the run directory");
    };
    if status::ask(&site.config.paths.status_socket(), status::BUSY_TIMEOUT)
        .await
        .is_ok()
    {
        return ADMIN.ok(format!("{port} is Envoy's, of the agent that runs"));
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => ADMIN.ok(format!(
            "{port} is free, and any user of this VM may use it while Envoy runs"
        )),
        Err(error) => ADMIN.failed(
            format!("port {port} of 127.0.0.1 can't be listened on: {error}"),
            "write another one into envoy.admin_port, or remove it: then it is a unix socket",
        ),
    }
}

/// Envoy opens it as its own user, for a DestinationRule with TLS and no certificates of its own.
fn system_roots(host: &Host) -> Finding {
    match host.target_meta(Path::new(ROOTS_FILE)) {
        Err(error) => return SYSTEM_ROOTS.skipped(error.to_string()),
        Ok(None) => {
            return SYSTEM_ROOTS.warning(
                format!(
                    "{ROOTS_FILE} is missing: TLS to hosts outside of the mesh fails where a DestinationRule starts it"
                ),
                // A package whose file was removed is installed nevertheless.
                "apt-get install ca-certificates && update-ca-certificates",
            );
        }
        Ok(Some(_)) => {}
    }
    match host.run(&Invocation::new(["test", "-r", ROOTS_FILE]).as_user(ENVOY_USER)) {
        Ok(_) => SYSTEM_ROOTS.ok(format!("user istio-proxy can read {ROOTS_FILE}")),
        Err(_) => SYSTEM_ROOTS.warning(
            format!("user istio-proxy can't read {ROOTS_FILE}"),
            format!("chmod a+rX /etc/ssl /etc/ssl/certs {ROOTS_FILE}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Config;
    use crate::host::fixtures::{Answers, failed};
    use crate::part::{Level, Units};

    const VERSION: &str = "envoy  version: 0a/1.38.3/Clean/RELEASE/BoringSSL";

    #[test]
    fn file_of_the_fetch_that_is_missing_is_told_with_the_place_of_its_key() {
        let root = tempfile::tempdir().unwrap();
        let found = |key: &str| {
            let image = format!("r.example/istio/proxyv2:1.30.0@sha256:{}", "ab".repeat(32));
            let text = format!("[join]\ndirectory = {{ path = '/b' }}\n[envoy]\nimage = '{image}'\n{key} = '/none'\n");
            let site = Site {
                host: Host::new(root.path(), Answers(|call: &Invocation| failed(call, ""))),
                config: Config::parse(Path::new("/c"), &text).unwrap(),
                units: Units::default(),
            };
            unreadable(&site).map(|finding| finding.detail)
        };
        assert_eq!(
            found("registry_config").unwrap(),
            "/c:5:1: envoy.registry_config: /none is not there"
        );
        let roots = found("ca_file").unwrap();
        assert!(
            roots.starts_with("/c:5:1: envoy.ca_file: /none is missing: put it there"),
            "{roots}"
        );
        write(root.path().join("none"), "{}").unwrap();
        set_permissions(root.path().join("none"), Permissions::from_mode(0o600)).unwrap();
        assert_eq!((found("registry_config"), found("ca_file")), (None, None));
    }

    #[test]
    fn envoy_s_own_build_is_told_with_what_goes_without_istio_s_filters() {
        let vanilla = Answers(|call: &Invocation| match call.to_string().as_str() {
            "/e --version" => Ok(VERSION.to_owned()),
            _ => failed(call, "Didn't find a registered implementation for 'istio.alpn'"),
        });
        let path = Path::new("/e");
        let found = program(&Host::new("/", vanilla), &EnvoySource::Binary(path.to_owned()), path);
        assert_eq!(found.level, Level::Warning);
        for filter in [
            "without Istio's own filters",
            "istio.alpn",
            "istio.stats",
            "istio.metadata_exchange",
        ] {
            assert!(found.detail.contains(filter), "{found:?}");
        }
        let fix = found.fix.unwrap();
        assert!(
            fix.contains("envoy.image") && fix.ends_with("which leaves this VM without istio_* metrics"),
            "{fix}"
        );
    }

    /// Needs root.
    #[test]
    fn program_that_istio_proxy_can_not_get_to_is_refused_with_its_fix() {
        let folder = tempfile::tempdir().unwrap();
        let open = |mode| set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        open(0o700);
        let path = folder.path().join("envoy");
        write(&path, format!("#!/bin/sh\necho '{VERSION}'\n")).unwrap();
        set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let found = || program(&Host::system(), &EnvoySource::Binary(path.clone()), &path);
        let refused = found();
        assert_eq!(refused.level, Level::Failed, "{refused:?}");
        assert!(refused.detail.contains("Permission denied"), "{refused:?}");
        let fix = refused.fix.unwrap();
        assert!(
            fix.contains("a working Envoy that user istio-proxy may execute"),
            "{fix}"
        );
        open(0o755);
        assert_eq!(found().level, Level::Ok);
    }

    #[test]
    fn file_system_that_runs_no_program_is_named_before_envoy_is_fetched() {
        let state = tempfile::tempdir().unwrap();
        let (host, below) = (Host::system(), state.path().join("state"));
        assert!(!host.runs_no_programs(&below));
        let found = unrunnable(&host, &below);
        let fix = format!(
            "--target {}), and so in /etc/fstab; or set envoy.binary",
            state.path().display()
        );
        assert!(found.level == Level::Failed && found.fix.unwrap().contains(&fix));
    }
}
