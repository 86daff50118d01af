//! Files as the units see them, which see less than the shell that `check` is run in, and as others than root may.

use std::path::{Path, PathBuf};

use super::proxies::Proxies;
use crate::cli::exposure::{Exposure, exposures};
use crate::config::{Config, JoinConfig, PathsConfig, env};
use crate::host::{Host, Invocation};
use crate::part::{CheckContext, Finding, Level, Question, Site, Subject};

const FILES: Subject = Subject::new("IVA103", "files");
const SANDBOX: Subject = Subject::new("IVA104", "sandbox");
const UNIT: Subject = Subject::new("IVA111", "unit");
const AGENT: &str = "istio-vm-agent.service";
/// The first of the two: what is said of one holds for both.
const ENVOY: &str = "istio-vm-agent-envoy@a.service";
/// LimitNOFILE= of the units.
const OPEN_FILES: &str = "1048576";
/// Remedy for a unit that doesn't start at boot.
const ENABLE: &str = "systemctl enable istio-vm-agent";
/// Directories that ProtectHome= takes away (systemd.exec(5)).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// Directories of which PrivateTmp= gives a unit its own.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

pub(super) fn questions(context: &CheckContext, path: &Path) -> Vec<Question> {
    let (one, other) = (path.to_owned(), path.to_owned());
    vec![
        Question::look(FILES, context, move |site| files(site, &one)),
        Question::look(SANDBOX, context, move |site| sandboxed(site, &other)),
        Question::look(UNIT, context, |site| {
            unit(&site.host, &Proxies::of(env::proxy_variable))
        }),
    ]
}

/// Files that are open to others than root.
fn files(site: &Site, path: &Path) -> Vec<Finding> {
    let found = exposures(&site.config, path, &site.host).into_iter();
    let findings: Vec<Finding> = found
        .map(|exposure| match exposure {
            Exposure::Writable { problem, fix } => FILES.failed(problem, fix),
            Exposure::Readable { problem, fix } => FILES.warning(problem, fix),
        })
        .collect();
    match findings.is_empty() {
        true => vec![FILES.ok("none that root trusts or keeps secret is open to others")],
        false => findings,
    }
}

/// A property of the agent's unit; `None` where it is not installed.
fn property(host: &Host, name: &str) -> Option<String> {
    let is_loaded = host
        .unit_property(AGENT, "LoadState")
        .is_ok_and(|state| state == "loaded");
    is_loaded.then(|| host.unit_property(AGENT, name).ok()).flatten()
}

/// Files that are there in a shell, and missing in the unit.
fn sandboxed(site: &Site, path: &Path) -> Vec<Finding> {
    let Site { host, config, .. } = site;
    let Some(mut findings) = unseen(host, config, path) else {
        return vec![SANDBOX.skipped(format!("{AGENT} is not installed here"))];
    };
    if config.paths != PathsConfig::default() {
        findings.push(SANDBOX.failed(
            format!("[paths] has other directories than those that {AGENT} may write"),
            "remove [paths], or give the units those directories with `systemctl edit` (RuntimeDirectory=, StateDirectory=)",
        ));
    }
    match findings.is_empty() {
        true => vec![SANDBOX.ok(format!("{AGENT} sees the files of the configuration"))],
        false => findings,
    }
}

/// The findings of those that the configuration names; `None` where the unit is not installed.
fn unseen(host: &Host, config: &Config, path: &Path) -> Option<Vec<Finding>> {
    let (home, temporary) = (property(host, "ProtectHome")?, property(host, "PrivateTmp")?);
    let mut hidden: Vec<&str> = Vec::new();
    hidden.extend(HOMES.iter().filter(|_| ["yes", "tmpfs"].contains(&home.as_str())));
    hidden.extend(TEMPORARY.iter().filter(|_| temporary == "yes"));
    let named = named(config, path).into_iter();
    Some(
        named
            .filter_map(|(key, path)| lost(host, key, &path, &hidden))
            .collect(),
    )
}

/// # Errors
/// When the unit doesn't see a file that a configuration names which is about to be written.
pub(in crate::cli) fn expect_seen(host: &Host, config: &Config, path: &Path) -> anyhow::Result<()> {
    let unseen = unseen(host, config, path).unwrap_or_default().into_iter();
    let lines: Vec<String> = unseen
        .map(|found| format!("{}: {}", found.detail, found.fix.unwrap_or_default()))
        .collect();
    anyhow::ensure!(lines.is_empty(), "{}", lines.join("\n"));
    Ok(())
}

fn lost(host: &Host, key: &str, path: &Path, hidden: &[&str]) -> Option<Finding> {
    let real = host.resolved(path);
    let folder = hidden
        .iter()
        .find(|folder| path.starts_with(folder) || real.starts_with(folder))?;
    let whose = match TEMPORARY.contains(folder) {
        true => "PrivateTmp=",
        false => "ProtectHome=",
    };
    let to = match key {
        // Which user istio-proxy executes: /etc/istio-vm-agent is root's alone.
        "envoy.binary" => "as /usr/local/bin/envoy",
        _ => "below /etc/istio-vm-agent",
    };
    Some(SANDBOX.failed(
        format!(
            "{key}: {} is below {folder}, which {AGENT} does not see ({whose})",
            path.display()
        ),
        format!("put it {to}, and that path into {key}"),
    ))
}

/// Every file and directory that a configuration names, and itself, with its key.
pub(in crate::cli) fn named(config: &Config, path: &Path) -> Vec<(&'static str, PathBuf)> {
    let mut named = vec![("--config", path.to_owned())];
    let mut add = |key: &'static str, paths: &[PathBuf]| {
        named.extend(paths.iter().map(|path| (key, path.clone())));
    };
    add("envoy.binary", config.envoy.binary.as_slice());
    add("envoy.ca_file", config.envoy.ca_file.as_slice());
    add("envoy.registry_config", config.envoy.registry_config.as_slice());
    for container in config.workloads.containers() {
        add(
            "workload.container.registry_config",
            container.registry_config.as_slice(),
        );
        add("workload.container.env_files", &container.env_files);
        add("workload.container.secrets", &container.secrets);
    }
    match &config.join {
        JoinConfig::Directory(directory) => add("join.directory.path", std::slice::from_ref(&directory.path)),
        JoinConfig::Kubernetes(kubernetes) => {
            add("join.kubernetes.ca_file", kubernetes.ca_file.as_slice());
            add("join.kubernetes.token_file", kubernetes.token_file.as_slice());
            add("join.kubernetes.kubeconfig", kubernetes.kubeconfig.as_slice());
        }
        JoinConfig::Https(https) => {
            add("join.https.ca_file", https.ca_file.as_slice());
            add("join.https.header_file", https.header_file.as_slice());
        }
        JoinConfig::Gke(_) => {}
    }
    named
}

/// Findings unless the agent starts at boot, and as its unit is written.
fn unit(host: &Host, here: &Proxies) -> Vec<Finding> {
    let (Some(state), Some(stale)) = (property(host, "UnitFileState"), property(host, "NeedDaemonReload")) else {
        return vec![UNIT.skipped(format!("{AGENT} is not installed here"))];
    };
    let found = match (state.as_str(), stale.as_str()) {
        (_, "yes") => UNIT.warning(
            format!("{AGENT} has changed since systemd read it"),
            "systemctl daemon-reload, then systemctl restart istio-vm-agent",
        ),
        ("enabled" | "enabled-runtime" | "static" | "generated" | "linked", _) => {
            UNIT.ok(format!("{AGENT} is {state}"))
        }
        ("masked" | "masked-runtime", _) => UNIT.failed(
            format!("{AGENT} is masked, and can't be started"),
            "systemctl unmask istio-vm-agent",
        ),
        _ => UNIT.warning(
            format!("{AGENT} is {state}: this VM does not join after a reboot"),
            ENABLE,
        ),
    };
    let mut findings: Vec<Finding> = WRITTEN.iter().filter_map(|written| written.changed(host)).collect();
    findings.extend(proxies(host, here));
    if findings.is_empty() || found.level != Level::Ok {
        findings.insert(0, found);
    }
    findings
}

/// The warning about a unit that goes by other proxies than the shell; none where it has variables from a file.
fn proxies(host: &Host, here: &Proxies) -> Option<Finding> {
    property(host, "EnvironmentFiles").filter(String::is_empty)?;
    // systemd's own variables are every unit's.
    let systemd = host.run(&Invocation::new([
        "systemctl",
        "show",
        "--property=Environment",
        "--value",
    ]));
    let unit = [property(host, "Environment")?, systemd.unwrap_or_default()].join(" ");
    let (problem, fix) = here.differing(&Proxies::shown(&unit))?;
    Some(UNIT.warning(problem, fix))
}

/// A property that a unit can't do without as it is written.
struct Written {
    unit: &'static str,
    property: &'static str,
    /// Value that the property is to have.
    value: &'static str,
    /// Consequence of another value.
    otherwise: &'static str,
}

/// Of the agent and of Envoy.
const WRITTEN: &[Written] = &[
    written(
        AGENT,
        "Group",
        "istio-proxy",
        "its own calls are sent to Envoy, or it doesn't start",
    ),
    written(AGENT, "LimitNOFILE", OPEN_FILES, "it runs out of descriptors"),
    written(
        AGENT,
        "TimeoutStartUSec",
        "infinity",
        "systemd ends it while it waits to join",
    ),
    written(ENVOY, "LoadState", "loaded", "Envoy can't be started"),
    written(ENVOY, "User", "istio-proxy", "Envoy's own calls are sent to Envoy"),
    written(ENVOY, "Group", "istio-proxy", "Envoy can't reach the agent's sockets"),
    written(
        ENVOY,
        "LimitNOFILE",
        OPEN_FILES,
        "Envoy, which has two for each connection, runs out of descriptors",
    ),
];

const fn written(unit: &'static str, property: &'static str, value: &'static str, otherwise: &'static str) -> Written {
    Written {
        unit,
        property,
        value,
        otherwise,
    }
}

impl Written {
    /// The finding where it is another; none where systemd doesn't say.
    fn changed(&self, host: &Host) -> Option<Finding> {
        let Self {
            unit,
            property,
            value,
            otherwise,
        } = self;
        let is = host
            .unit_property(unit, property)
            .ok()
            .filter(|is| !is.is_empty() && is != value)?;
        let (what, fix) = match *property {
            "LoadState" => (
                format!("{unit} is {is}"),
                format!("systemctl unmask {unit}, or reinstall the package"),
            ),
            _ => (
                format!("{unit} has {property}={is}, where {value} is needed"),
                format!("take that out of the drop-in that `systemctl cat {unit}` shows, then systemctl daemon-reload"),
            ),
        };
        Some(UNIT.failed(format!("{what}: {otherwise}"), fix))
    }
}

/// True for a finding that `up`, which enables the unit, takes away by itself.
pub(super) fn is_enabled_by_up(finding: &Finding) -> bool {
    finding.is_of(UNIT) && finding.fix.as_deref() == Some(ENABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{CommandError, Run};
    use crate::part::Units;

    /// systemd's answers about the unit.
    #[derive(Debug)]
    struct Systemd(&'static [(&'static str, &'static str)]);

    impl Run for Systemd {
        fn run(&self, call: &Invocation) -> Result<String, CommandError> {
            let property = call.argv[2].trim_start_matches("--property=");
            let known = self.0.iter().find(|(name, _)| *name == property);
            let missing = || CommandError::NotFound {
                call: Box::new(call.clone()),
            };
            known.map(|(_, value)| (*value).to_owned()).ok_or_else(missing)
        }
    }

    const SANDBOXED: &[(&str, &str)] = &[("LoadState", "loaded"), ("ProtectHome", "yes"), ("PrivateTmp", "yes")];

    fn site(root: &Path, systemd: &'static [(&'static str, &'static str)], text: &str) -> Site {
        Site {
            host: Host::new(root, Systemd(systemd)),
            config: Config::parse(Path::new("/c"), text).unwrap(),
            units: Units::default(),
        }
    }

    #[test]
    fn files_that_the_unit_does_not_see_are_named_with_their_keys() {
        let root = tempfile::tempdir().unwrap();
        let path = Path::new("/etc/istio-vm-agent/config.toml");
        let bundle = |path: &str| format!("[join]\ndirectory = {{ path = \"{path}\" }}\n");
        let said = |systemd, text: &str| sandboxed(&site(root.path(), systemd, text), path);
        let hidden = bundle("/home/ada/bundle") + "[envoy]\nbinary = \"/tmp/envoy\"\n";
        let found = said(SANDBOXED, &hidden);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].detail.starts_with("envoy.binary: /tmp/envoy") && found[0].detail.contains("PrivateTmp="));
        assert!(found[1].detail.contains("join.directory.path") && found[1].detail.contains("ProtectHome="));
        // Envoy's user can't enter the directory of the configuration.
        let fixes = found.iter().map(|finding| finding.fix.as_deref().unwrap());
        assert_eq!(
            fixes.collect::<Vec<_>>(),
            [
                "put it as /usr/local/bin/envoy, and that path into envoy.binary",
                "put it below /etc/istio-vm-agent, and that path into join.directory.path",
            ]
        );
        let container =
            "[workload.container]\nname = \"web\"\nimage = \"web:1\"\nenv_files = [\"/home/ada/web.env\"]\n";
        let found = said(SANDBOXED, &(bundle("/etc/bundle") + container));
        assert!(
            found[0]
                .detail
                .starts_with("workload.container.env_files: /home/ada/web.env"),
            "{found:?}"
        );
        let seen = |text: &str| {
            let Site { host, config, .. } = site(root.path(), SANDBOXED, text);
            expect_seen(&host, &config, path)
        };
        let error = format!("{:#}", seen(&hidden).unwrap_err());
        assert!(
            error.contains("join.directory.path: /home/ada/bundle") && error.contains("put it below"),
            "{error}"
        );
        assert!(seen(&bundle("/etc/bundle")).is_ok());
        assert_eq!(said(SANDBOXED, &bundle("/etc/bundle"))[0].level, Level::Ok);
        assert_eq!(said(&[], &hidden)[0].level, Level::Skipped);
        let open = &[("LoadState", "loaded"), ("ProtectHome", "no"), ("PrivateTmp", "no")];
        assert_eq!(said(open, &hidden)[0].level, Level::Ok);
        let moved = bundle("/etc/bundle") + "[paths]\nstate = \"/srv/state\"\n";
        assert!(
            said(SANDBOXED, &moved)[0]
                .detail
                .starts_with("[paths] has other directories")
        );
        // Behind a link, too.
        std::fs::create_dir_all(root.path().join("root/bundle")).unwrap();
        std::os::unix::fs::symlink(root.path().join("root/bundle"), root.path().join("bundle")).unwrap();
        assert_eq!(said(SANDBOXED, &bundle("/bundle"))[0].level, Level::Failed);
    }

    #[test]
    fn unit_that_does_not_start_at_boot_is_named() {
        let root = tempfile::tempdir().unwrap();
        let said = |systemd| unit(&Host::new(root.path(), Systemd(systemd)), &Proxies::default());
        let all: [(&'static [(&str, &str)], Level); 4] = [
            (&[], Level::Skipped),
            (
                &[
                    ("LoadState", "loaded"),
                    ("UnitFileState", "enabled"),
                    ("NeedDaemonReload", "no"),
                ],
                Level::Ok,
            ),
            (
                &[
                    ("LoadState", "loaded"),
                    ("UnitFileState", "disabled"),
                    ("NeedDaemonReload", "no"),
                ],
                Level::Warning,
            ),
            (
                &[
                    ("LoadState", "loaded"),
                    ("UnitFileState", "masked"),
                    ("NeedDaemonReload", "no"),
                ],
                Level::Failed,
            ),
        ];
        for (systemd, level) in all {
            assert_eq!(said(systemd)[0].level, level, "{systemd:?}");
        }
    }

    #[test]
    fn proxy_of_the_unit_alone_is_told_where_systemd_tells_all_of_its_environment() {
        const PROXY: [(&str, &str); 3] = [
            ("LoadState", "loaded"),
            ("EnvironmentFiles", ""),
            ("Environment", "HTTPS_PROXY=http://proxy:3128"),
        ];
        const FILE: [(&str, &str); 3] = [PROXY[0], ("EnvironmentFiles", "/etc/default/proxy"), PROXY[2]];
        let root = tempfile::tempdir().unwrap();
        let said = |systemd| proxies(&Host::new(root.path(), Systemd(systemd)), &Proxies::default());
        assert_eq!(said(&PROXY).unwrap().level, Level::Warning);
        assert_eq!(said(&FILE), None);
        assert_eq!(said(&[]), None);
    }

    #[test]
    fn drop_in_that_keeps_a_unit_from_its_work_is_named() {
        const FINE: [(&str, &str); 7] = [
            ("LoadState", "loaded"),
            ("UnitFileState", "enabled"),
            ("NeedDaemonReload", "no"),
            ("User", "istio-proxy"),
            ("Group", "istio-proxy"),
            ("LimitNOFILE", "1048576"),
            ("TimeoutStartUSec", "infinity"),
        ];
        let root = tempfile::tempdir().unwrap();
        let said = |systemd| unit(&Host::new(root.path(), Systemd(systemd)), &Proxies::default());
        assert_eq!(said(&FINE)[0].level, Level::Ok);
        const DROPPED: [(&str, &str); 7] = {
            let mut dropped = FINE;
            dropped[4] = ("Group", "root");
            dropped[6] = ("TimeoutStartUSec", "1s");
            dropped
        };
        let found = said(&DROPPED);
        let told: Vec<&str> = found
            .iter()
            .map(|found| found.detail.split(',').next().unwrap())
            .collect();
        let expected = [
            "istio-vm-agent.service has Group=root",
            "istio-vm-agent.service has TimeoutStartUSec=1s",
            "istio-vm-agent-envoy@a.service has Group=root",
        ];
        assert_eq!(told, expected);
        assert!(found.iter().all(|found| found.level == Level::Failed), "{found:?}");
    }
}
