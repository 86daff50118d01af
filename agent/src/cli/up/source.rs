//! Where this VM joins, and where Envoy is from, as arguments and as tables of the configuration.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use toml::{Table, Value};

use crate::cli::{check, usage};
use crate::config::{Config, ConfigError, Fault};
use crate::envoy;
use crate::facts::Membership;
use crate::host::Host;
use crate::join::Join;

/// Bits of a mode that let anybody execute.
const EXECUTABLE: u32 = 0o111;
/// Istio's proxy image, as its releases are published.
const IMAGE: &str = "docker.io/istio/proxyv2";

/// The source of who this VM is.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct SourceArguments {
    /// Join a GKE cluster as the instance's service account: its project, region or zone, and name.
    #[arg(
        long,
        value_name = "PROJECT/LOCATION/CLUSTER",
        group = "place",
        requires = "workload_group"
    )]
    pub(super) gke: Option<String>,
    /// Join by the API server at this URL; needs --token-file or --google.
    #[arg(long, value_name = "URL", group = "place", requires = "workload_group")]
    pub(super) server: Option<String>,
    /// Join by the API server of this kubeconfig's current context.
    #[arg(long, value_name = "PATH", group = "place", requires = "workload_group")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Join by the files that `istioctl x workload entry configure` wrote.
    #[arg(long, value_name = "PATH", group = "place", conflicts_with = "workload_group")]
    pub(super) directory: Option<PathBuf>,
    /// Join by the same files below this URL.
    #[arg(long, value_name = "URL", group = "place", conflicts_with = "workload_group")]
    pub(super) https: Option<String>,
    /// The WorkloadGroup that this VM is of.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "place")]
    pub(super) workload_group: Option<String>,
    /// The CA of --server or --https; default: whom this VM trusts.
    #[arg(long, value_name = "PATH", requires = "place")]
    pub(super) ca_file: Option<PathBuf>,
    /// A bearer token for --server, read again for every call.
    #[arg(long, value_name = "PATH", requires = "server")]
    pub(super) token_file: Option<PathBuf>,
    /// Ask --server as the instance's Google service account.
    #[arg(long, requires = "server", conflicts_with = "token_file")]
    pub(super) google: bool,
    /// Address or name at which istiod is reached; default: that of the Service istio-eastwestgateway.
    #[arg(long, value_name = "HOST", conflicts_with_all = ["directory", "https"])]
    pub(super) ingress: Option<String>,
}

impl SourceArguments {
    /// Fails when there is one that says more of a place than none names.
    pub(super) fn expect_none(&self) -> Result<()> {
        match self.ingress {
            None => Ok(()),
            Some(_) => bail!(
                "--ingress is for a new configuration: this VM has one already; set `ingress` in its [join], or name the \
                 source too and add --force"
            ),
        }
    }

    /// `[join]` with these; `None` when none names a place.
    pub(super) fn table(&self) -> Result<Option<String>> {
        let (kind, mut keys) = if let Some(gke) = &self.gke {
            let parts: Vec<&str> = gke.split('/').collect();
            let [project, location, cluster] = parts[..] else {
                return Err(usage(format!(
                    "--gke {gke}: write PROJECT/LOCATION/CLUSTER, such as my-project/europe-west1/boutique"
                )));
            };
            let keys = [("project", project), ("location", location), ("cluster", cluster)];
            ("gke", keys.map(|(key, value)| (key, Value::from(value))).to_vec())
        } else if let Some(server) = &self.server {
            ("kubernetes", vec![("server", Value::from(server.as_str()))])
        } else if let Some(kubeconfig) = &self.kubeconfig {
            ("kubernetes", vec![("kubeconfig", path(kubeconfig)?)])
        } else if let Some(directory) = &self.directory {
            ("directory", vec![("path", path(directory)?)])
        } else if let Some(url) = &self.https {
            ("https", vec![("url", Value::from(url.as_str()))])
        } else {
            return Ok(None);
        };
        for (key, file) in [("ca_file", &self.ca_file), ("token_file", &self.token_file)] {
            if let Some(file) = file {
                keys.push((key, path(file)?));
            }
        }
        if self.google {
            keys.push(("google", Value::from(true)));
        }
        if let Some(group) = &self.workload_group {
            let (namespace, name) = group
                .split_once('/')
                .ok_or_else(|| usage(format!("--workload-group {group}: write NAMESPACE/NAME")))?;
            keys.push(("namespace", Value::from(namespace)));
            keys.push(("workload_group", Value::from(name)));
        }
        if let Some(ingress) = &self.ingress {
            keys.push(("ingress", Value::from(ingress.as_str())));
        }
        Ok(Some(table(&format!("join.{kind}"), &keys)))
    }
}

/// The error as one of the arguments that the keys of `[join]` are from; `path` is where they are to be written.
pub(super) fn in_arguments(error: Error, path: &Path) -> Error {
    let place = path.display().to_string();
    let named = |fault: Fault| match argument_of(&fault.problem) {
        Some(argument) if fault.place.name == place => Fault {
            place: argument.into(),
            ..fault
        },
        _ => fault,
    };
    match error.downcast::<ConfigError>() {
        Ok(error) => error.map(named).into(),
        Err(error) => error,
    }
}

/// The argument that gives the key which a problem begins with.
fn argument_of(problem: &str) -> Option<&'static str> {
    let key = problem.split([':', ' ']).next()?.strip_prefix("join.")?;
    Some(match key.split_once('.').map_or(key, |(_, key)| key) {
        "server" => "--server",
        "ca_file" => "--ca-file",
        "token_file" => "--token-file",
        "google" => "--google",
        "kubeconfig" => "--kubeconfig",
        "path" => "--directory",
        "url" => "--https",
        "project" | "location" | "cluster" => "--gke",
        "namespace" | "workload_group" => "--workload-group",
        "ingress" => "--ingress",
        _ => "the arguments of `up`",
    })
}

/// The source of Envoy's program.
#[derive(Args, Debug, Default)]
pub(super) struct EnvoyArguments {
    /// An Envoy that is here, instead of one out of an image.
    #[arg(long, value_name = "PATH", conflicts_with = "envoy_image")]
    pub(super) envoy: Option<PathBuf>,
    /// The image that Envoy is taken out of; without a tag the one of istiod's release [default: docker.io/istio/proxyv2]
    #[arg(long, value_name = "IMAGE")]
    pub(super) envoy_image: Option<String>,
    /// A config.json of Docker's with the login of the image's registry.
    #[arg(long, value_name = "PATH", conflicts_with = "envoy")]
    pub(super) registry_config: Option<PathBuf>,
}

impl EnvoyArguments {
    /// Fails when any is there.
    pub(super) fn expect_none(&self) -> Result<()> {
        match (&self.envoy, &self.envoy_image, &self.registry_config) {
            (None, None, None) => Ok(()),
            _ => bail!(
                "--envoy, --envoy-image and --registry-config are for a new configuration: this VM has one already; \
                 change [envoy] in it, or name the source too and add --force"
            ),
        }
    }

    /// Fails where the program of `--envoy` is not here: nothing is written that names another.
    pub(super) fn expect_program(&self, host: &Host) -> Result<()> {
        let Some(binary) = &self.envoy else { return Ok(()) };
        let binary = std::path::absolute(binary)?;
        match host.target_meta(&binary)? {
            Some(meta) if meta.is_file() && meta.mode() & EXECUTABLE != 0 => Ok(()),
            _ => bail!(
                "--envoy {}: no program is there; name an Envoy that is, or leave it out for the one of istiod's release",
                binary.display()
            ),
        }
    }

    /// True when the configuration has what these ask for; without any that is anything.
    pub(super) fn fit(&self, config: &Config) -> bool {
        let name = |image: &str| image.split('@').next().unwrap_or_default().to_owned();
        let image = config.envoy.image.as_deref().map(name);
        let is_image = self.envoy_image.as_ref().is_none_or(|wanted| {
            let there = image.as_deref().unwrap_or_default();
            there == name(wanted) || there.strip_prefix(wanted).is_some_and(|tag| tag.starts_with(':'))
        });
        let is_same = |wanted: &Option<PathBuf>, there: &Option<PathBuf>| {
            let wanted = wanted.as_ref().map(std::path::absolute);
            wanted.is_none_or(|wanted| wanted.ok() == *there)
        };
        is_image
            && is_same(&self.envoy, &config.envoy.binary)
            && is_same(&self.registry_config, &config.envoy.registry_config)
    }

    /// The keys of `[envoy]` by which an operator chose a program, which stays where none is asked for. The image that `up` takes
    /// by itself is of the release of the istiod before.
    pub(super) fn kept(&self, program: Table) -> Option<Table> {
        let of_release = program
            .get("image")
            .and_then(Value::as_str)
            .map(|image| image.split(':').next());
        let is_own = program.len() == 1 && of_release == Some(Some(IMAGE));
        let is_asked_for = self.expect_none().is_err();
        (!is_asked_for && !is_own && !program.is_empty()).then_some(program)
    }

    /// `[envoy]` with the program of the arguments, pinned; by default with that of istiod's release.
    pub(super) async fn table(
        &self,
        host: &Host,
        config: &Config,
        join: &Join,
        membership: &Membership,
    ) -> Result<String> {
        if let Some(binary) = &self.envoy {
            return Ok(table("envoy", &[("binary", path(binary)?)]));
        }
        let image = self.envoy_image.as_deref().unwrap_or(IMAGE);
        let reference = match has_version(image) {
            true => image.to_owned(),
            false => format!(
                "{image}:{}",
                check::istio_release(host, config, join, membership).await?
            ),
        };
        let mut with_login = config.envoy.clone();
        with_login.registry_config.clone_from(&self.registry_config);
        let pinned = envoy::pinned(&with_login, host, &reference)
            .await
            .context("name an image that can be had with --envoy-image, or a program that is here with --envoy")?;
        let mut keys = vec![("image", Value::from(pinned))];
        if let Some(login) = &self.registry_config {
            keys.push(("registry_config", path(login)?));
        }
        Ok(table("envoy", &keys))
    }
}

/// True for a reference with a tag or a digest.
fn has_version(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or_default();
    name.contains([':', '@'])
}

/// A path as the configuration has it, whatever the working directory.
fn path(path: &PathBuf) -> Result<Value> {
    let path = std::path::absolute(path)?;
    let text = path.to_str().context("a path in the configuration has to be UTF-8")?;
    Ok(Value::from(text))
}

fn table(name: &str, keys: &[(&str, Value)]) -> String {
    let lines = keys.iter().map(|(key, value)| format!("{key} = {value}\n"));
    format!("[{name}]\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EnvoySource;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("c.toml"), text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn group(rest: SourceArguments) -> SourceArguments {
        SourceArguments {
            workload_group: Some("shop/catalog".to_owned()),
            ..rest
        }
    }

    #[test]
    fn each_source_becomes_a_configuration_that_is_good() {
        let sources = [
            group(SourceArguments {
                gke: Some("p/europe-west1/c".to_owned()),
                ..SourceArguments::default()
            }),
            group(SourceArguments {
                server: Some("https://h".to_owned()),
                token_file: Some("/t\"\\".into()),
                ca_file: Some("/ca.pem".into()),
                ingress: Some("10.0.0.1".to_owned()),
                ..SourceArguments::default()
            }),
            group(SourceArguments {
                server: Some("https://h".to_owned()),
                google: true,
                ..SourceArguments::default()
            }),
            group(SourceArguments {
                kubeconfig: Some("/k".into()),
                ..SourceArguments::default()
            }),
            SourceArguments {
                directory: Some("/b".into()),
                ..SourceArguments::default()
            },
            SourceArguments {
                https: Some("https://h/b".to_owned()),
                ..SourceArguments::default()
            },
        ];
        for source in sources {
            config(&source.table().unwrap().unwrap());
        }
        assert_eq!(SourceArguments::default().table().unwrap(), None);
        let slip = |gke: &str, group: &str| SourceArguments {
            gke: Some(gke.to_owned()),
            workload_group: Some(group.to_owned()),
            ..SourceArguments::default()
        };
        let error = |slip: SourceArguments| {
            let error = slip.table().unwrap_err();
            assert!(error.is::<clap::Error>(), "wrong usage: {error}");
            error.to_string()
        };
        assert!(error(slip("c", "shop/catalog")).contains("PROJECT/LOCATION/CLUSTER"));
        assert!(error(slip("p/l/c", "catalog")).contains("NAMESPACE/NAME"));
    }

    #[test]
    fn fault_of_an_argument_names_it_and_no_file_that_is_not_there() {
        let path = Path::new("/etc/istio-vm-agent/config.toml");
        for (arguments, wanted) in [
            (
                group(SourceArguments {
                    server: Some("http://h".to_owned()),
                    google: true,
                    ..SourceArguments::default()
                }),
                "--server: join.kubernetes.server",
            ),
            (
                SourceArguments {
                    https: Some("https://h/?a=b".to_owned()),
                    ..SourceArguments::default()
                },
                "--https: join.https.url",
            ),
        ] {
            let text = arguments.table().unwrap().unwrap();
            let error = Config::parse(path, &text).unwrap_err();
            let told = in_arguments(error.into(), path).to_string();
            assert!(told.starts_with(wanted), "{told}");
        }
        let of_a_file = Config::parse(path, "[log]\nlevel = 'loud'\n[join.directory]\npath = '/b'\n").unwrap_err();
        let told = in_arguments(of_a_file.into(), path).to_string();
        assert!(told.starts_with("/etc/istio-vm-agent/config.toml:2:1: "), "{told}");
    }

    #[test]
    fn envoy_that_is_asked_for_again_is_the_one_that_is_configured() {
        let pinned = format!("r.example/istio/proxyv2:1.30.0@sha256:{}", "ab".repeat(32));
        let there = config(&format!("[join.directory]\npath = '/b'\n[envoy]\nimage = '{pinned}'\n"));
        assert!(matches!(there.envoy.source(), EnvoySource::Image { .. }));
        let image = |image: &str| EnvoyArguments {
            envoy_image: Some(image.to_owned()),
            ..EnvoyArguments::default()
        };
        for same in ["r.example/istio/proxyv2", "r.example/istio/proxyv2:1.30.0", &pinned] {
            assert!(image(same).fit(&there), "{same}");
        }
        for other in [
            "r.example/istio/proxy",
            "r.example/istio/proxyv2:1.31.0",
            "istio/proxyv2",
        ] {
            assert!(!image(other).fit(&there), "{other}");
        }
        assert!(EnvoyArguments::default().fit(&there));
        let binary = EnvoyArguments {
            envoy: Some("/e".into()),
            ..EnvoyArguments::default()
        };
        assert!(!binary.fit(&there));
        assert!(has_version("a/b:1") && has_version("b@sha256:0") && !has_version("h:5000/b"));
    }

    #[test]
    fn program_that_an_operator_chose_stays_unless_another_is_asked_for() {
        let program = |text: &str| text.parse::<Table>().unwrap();
        let none = EnvoyArguments::default();
        for chosen in [
            "binary = '/e'",
            "url = 'https://h/e'\nsha256 = 'ab'",
            "image = 'r.example/istio/proxyv2:1.30.0@sha256:ab'",
            "image = 'docker.io/istio/proxyv2:1.30.0@sha256:ab'\nregistry_config = '/c.json'",
        ] {
            assert_eq!(none.kept(program(chosen)), Some(program(chosen)), "{chosen}");
            let other = EnvoyArguments {
                envoy: Some("/other".into()),
                ..EnvoyArguments::default()
            };
            assert_eq!(other.kept(program(chosen)), None, "{chosen}");
        }
        for own in ["", "image = 'docker.io/istio/proxyv2:1.30.0@sha256:ab'"] {
            assert_eq!(none.kept(program(own)), None, "{own}");
        }
    }

    #[test]
    fn envoy_that_is_not_here_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (text, host) = (folder.path().join("text"), Host::system());
        std::fs::write(&text, "").unwrap();
        let expected = |binary: &Path| {
            let arguments = EnvoyArguments {
                envoy: Some(binary.to_owned()),
                ..EnvoyArguments::default()
            };
            arguments.expect_program(&host).map_err(|error| error.to_string())
        };
        for wrong in [&text, folder.path(), &folder.path().join("missing")] {
            assert!(
                expected(wrong).unwrap_err().contains("no program is there"),
                "{wrong:?}"
            );
        }
        assert_eq!(expected(&std::env::current_exe().unwrap()), Ok(()));
        EnvoyArguments::default().expect_program(&host).unwrap();
    }
}
