//! `manifests`: what the cluster side needs for a group of VMs, for `kubectl apply -f -`. Asks no cluster.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use clap::error::ErrorKind;
use serde_json::json;

use super::configuration::ConfigSource;
use super::{Outcome, Output, print};
use crate::config::{Config, JoinConfig, KubernetesConfig};
use crate::facts::{Probe, ProbeKind};
use crate::host::Host;
use crate::manifests::{self, Endpoints, Exposed, Group, Mesh, Name, Port, ServiceName, Subject, Wanted};
use crate::terminal::indented;

mod requested;

use requested::{RequestedArguments, WayArguments};

/// Arguments that are not given are taken from the configuration, where there is one.
#[derive(Args, Clone, Debug)]
pub(super) struct ManifestsArguments {
    /// Namespace of the VMs.
    #[arg(long, short)]
    namespace: Option<Name>,
    /// Print the namespace too.
    #[arg(long)]
    with_namespace: bool,
    /// Name of the WorkloadGroup.
    #[arg(long, value_name = "NAME")]
    workload_group: Option<Name>,
    /// Name of the Service [default: that of the container, else of the WorkloadGroup].
    #[arg(long, value_name = "NAME")]
    service: Option<Name>,
    /// The VMs' identity [default: the name of the WorkloadGroup].
    #[arg(long, value_name = "NAME")]
    service_account: Option<Name>,
    /// A port of the Service, and where the VM listens if that is another port; Istio takes the protocol from the
    /// name [default: the container's].
    #[arg(long = "port", value_name = "NAME:PORT[:TARGET]")]
    ports: Vec<Port>,
    /// A label of the VMs, beside `app`.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Istio's name of the VMs' network, where the mesh has several.
    #[arg(long)]
    network: Option<String>,
    /// An address of a VM, for a mesh in which istiod registers none; may be repeated.
    #[arg(long = "address", value_name = "IP", group = "way")]
    addresses: Vec<IpAddr>,
    /// For a cluster that the VMs don't join: only what its pods need to call them, by --address, --gateway or
    /// --remote-secret.
    #[arg(long, requires = "way")]
    other_cluster: bool,
    #[command(flatten)]
    way: WayArguments,
    #[command(flatten)]
    requested: RequestedArguments,
    /// Namespace of istiod [default: istio-system].
    #[arg(long, value_name = "NAME")]
    istio_namespace: Option<Name>,
    /// Revision of istiod, if it has one.
    #[arg(long)]
    revision: Option<Name>,
    /// The Service by which VMs reach istiod [default: istio-eastwestgateway].
    #[arg(long, value_name = "NAME[.NAMESPACE]")]
    ingress_service: Option<ServiceName>,
    /// VMs don't look for such a Service: their configuration says where istiod is.
    #[arg(long, conflicts_with = "ingress_service")]
    no_ingress_service: bool,
    /// A Google service account of the VMs, which may join; its access token needs the scope userinfo.email.
    #[arg(long, value_name = "EMAIL", value_parser = Subject::google)]
    google_service_account: Vec<Subject>,
    /// A Kubernetes user who may join.
    #[arg(long, value_name = "NAME", value_parser = user)]
    user: Vec<Subject>,
    /// A Kubernetes group whose users may join.
    #[arg(long, value_name = "NAME", value_parser = group_of_users)]
    group: Vec<Subject>,
    /// A ServiceAccount whose tokens may join.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = Subject::service_account)]
    joining_service_account: Vec<Subject>,
}

/// Prints YAML, or as JSON one List; `kubectl apply` takes either. Notes go to stderr, where a pipe leaves them to see.
pub(super) async fn run(path: &Path, output: Output, arguments: &ManifestsArguments) -> Result<Outcome> {
    // Whoever prepares a cluster needs no configuration; one that was named must be there.
    let config = ConfigSource::new(path, &Host::system())?.find_any().await?;
    let wanted = wanted(arguments, config.as_ref())?;
    if let problems @ [_, ..] = manifests::problems(&wanted).as_slice() {
        return Err(clap::Error::raw(ErrorKind::ValueValidation, problems.join("\n") + "\n").into());
    }
    for note in manifests::notes(&wanted) {
        writeln!(std::io::stderr(), "istio-vm-agent: {}", indented(&note))?;
    }
    print(&text(output, &wanted)?)
}

fn text(output: Output, wanted: &Wanted) -> Result<String> {
    let objects = manifests::objects(wanted);
    Ok(match output {
        Output::Text => serde_saphyr::to_string_multiple(&objects)?,
        Output::Json => {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
            serde_json::to_string_pretty(&list)? + "\n"
        }
    })
}

fn wanted(arguments: &ManifestsArguments, config: Option<&Config>) -> Result<Wanted> {
    let subjects = [
        &arguments.google_service_account,
        &arguments.user,
        &arguments.group,
        &arguments.joining_service_account,
    ];
    Ok(Wanted {
        group: group(arguments, config)?,
        mesh: mesh(arguments, config)?,
        namespace: arguments.with_namespace,
        endpoints: endpoints(arguments),
        exposed: arguments.requested.exposed(),
        policies: arguments.requested.policies(),
        scraped: arguments.requested.scraped(),
        subjects: subjects.into_iter().flatten().cloned().collect(),
    })
}

fn endpoints(arguments: &ManifestsArguments) -> Endpoints {
    let addresses = arguments.addresses.clone();
    match (addresses.is_empty(), arguments.other_cluster) {
        (_, true) => Endpoints::Elsewhere(arguments.way.way(addresses)),
        (true, false) => Endpoints::Registered,
        (false, false) => Endpoints::Listed(addresses),
    }
}

/// The cluster of `join.kubernetes` or `join.gke`.
fn cluster(config: Option<&Config>) -> Option<KubernetesConfig> {
    match &config?.join {
        JoinConfig::Kubernetes(cluster) => Some((**cluster).clone()),
        JoinConfig::Gke(cluster) => Some(cluster.group()),
        JoinConfig::Directory(_) | JoinConfig::Https(_) => None,
    }
}

fn mesh(arguments: &ManifestsArguments, config: Option<&Config>) -> Result<Mesh> {
    let cluster = cluster(config);
    let cluster = cluster.as_ref();
    let revision = cluster.map(|cluster| cluster.revision.as_str());
    // Istio's charts give this name to the one without a suffix.
    let revision = revision.filter(|revision| !["", "default"].contains(revision));
    let is_told = arguments.no_ingress_service
        || arguments.ingress_service.is_none() && cluster.is_some_and(|cluster| cluster.ingress.is_some());
    let gateway = "istio-eastwestgateway";
    let ingress = cluster.map_or(gateway, |cluster| &cluster.ingress_service);
    let is_own = ingress == gateway && arguments.requested.exposed().contains(&Exposed::IstiodLoadBalancer);
    let ingress = if is_own { manifests::LOAD_BALANCER } else { ingress };
    Ok(Mesh {
        namespace: chosen(
            arguments.istio_namespace.as_ref(),
            Some(cluster.map_or("istio-system", |cluster| &cluster.istio_namespace)),
        )?
        .context("no namespace of istiod")?,
        revision: chosen(arguments.revision.as_ref(), revision)?,
        ingress: match is_told {
            true => None,
            false => chosen(arguments.ingress_service.as_ref(), Some(ingress))?,
        },
    })
}

/// The argument, else the configuration's value.
fn chosen<T: Clone + FromStr<Err = String>>(given: Option<&T>, configured: Option<&str>) -> Result<Option<T>> {
    match (given, configured) {
        (Some(given), _) => Ok(Some(given.clone())),
        (None, Some(text)) => Ok(Some(text.parse().map_err(|error| anyhow!("{text:?}: {error}"))?)),
        (None, None) => Ok(None),
    }
}

fn group(arguments: &ManifestsArguments, config: Option<&Config>) -> Result<Group> {
    let container = config.and_then(|config| config.workloads.containers().next());
    let cluster = cluster(config);
    let name = chosen(
        arguments.workload_group.as_ref(),
        cluster.as_ref().map(|cluster| cluster.workload_group.as_str()),
    )?
    .ok_or_else(|| missing("--workload-group is needed", "names no cluster", config))?;
    let namespace = chosen(
        arguments.namespace.as_ref(),
        cluster.as_ref().map(|cluster| cluster.namespace.as_str()),
    )?
    .ok_or_else(|| missing("--namespace is needed", "names no cluster", config))?;
    let service = match (&arguments.service, container) {
        (Some(service), _) => service.clone(),
        // Docker allows more than Kubernetes does.
        (None, Some(container)) => container.name.parse().unwrap_or_else(|_| name.clone()),
        (None, None) => name.clone(),
    };
    let probe = config.and_then(|config| config.health.probe.clone());
    let ports = ports(arguments, config)?;
    Ok(Group {
        namespace,
        service,
        service_account: arguments.service_account.clone().unwrap_or_else(|| name.clone()),
        name,
        labels: arguments.labels.iter().cloned().collect(),
        network: arguments.network.clone(),
        probe: probe.map_or_else(|| probe_of(&ports[0]), |config| config.0),
        ports,
    })
}

fn ports(arguments: &ManifestsArguments, config: Option<&Config>) -> Result<Vec<Port>> {
    if !arguments.ports.is_empty() {
        return Ok(arguments.ports.clone());
    }
    let published = config.into_iter().flat_map(|config| config.workloads.published());
    let ports: Vec<Port> = published
        .map(|port| format!("tcp-{0}:{0}", port.host).parse())
        .collect::<Result<_, String>>()
        .map_err(anyhow::Error::msg)?;
    match ports.is_empty() {
        true => Err(missing("--port is needed", "has no container with ports", config)),
        false => Ok(ports),
    }
}

/// gRPC servers know how to be asked; of others it is only known that they listen.
fn probe_of(port: &Port) -> Probe {
    let kind = match port.is_grpc() {
        true => ProbeKind::Grpc {
            port: port.target,
            service: String::new(),
        },
        false => ProbeKind::Tcp {
            host: None,
            port: port.target,
        },
    };
    Probe {
        kind,
        initial_delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
        period: Duration::from_secs(10),
        success_threshold: 1,
        failure_threshold: 1,
    }
}

/// Ends as usage errors do: neither an argument nor the configuration says it.
fn missing(problem: &str, lack: &str, config: Option<&Config>) -> anyhow::Error {
    let why = match config {
        Some(_) => format!("the configuration {lack}"),
        None => "there is no configuration".to_owned(),
    };
    clap::Error::raw(ErrorKind::MissingRequiredArgument, format!("{problem}: {why}\n")).into()
}

fn user(name: &str) -> Result<Subject, String> {
    subject(name, Subject::User)
}

fn group_of_users(name: &str) -> Result<Subject, String> {
    subject(name, Subject::Group)
}

fn subject(name: &str, kind: impl FnOnce(String) -> Subject) -> Result<Subject, String> {
    match name.is_empty() {
        true => Err("must not be empty".to_owned()),
        false => Ok(kind(name.to_owned())),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not key=value"))?;
    if key == "app" {
        return Err("the label app is the name of the Service".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests;
