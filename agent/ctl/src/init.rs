//! `init`: the migration's file, and the pods, from what the clusters hold and from the VM's own configuration.
//!
//! The file is for people to read and to correct, so that everything that was guessed has its reason beside it. The pods
//! are printed and never applied: how many there are, and where, is the operator's to say.

mod found;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod pod;
mod text;
mod vm;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cluster::Cluster;
use crate::migration::{self, Entry, Name, Protocol, Text};
use crate::output;

use found::Found;
use vm::Vm;

/// Arguments of `init`; the rest it finds.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// A context of the kubeconfig, for each cluster with callers; the VM's first [default: the current one].
    #[arg(long = "context", value_name = "NAME", value_parser = word)]
    contexts: Vec<Text>,
    /// The kubeconfig [default: kubectl's].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The VM's configuration, /etc/istio-vm-agent/config.toml there.
    #[arg(long, value_name = "FILE")]
    vm: Option<PathBuf>,
    /// Namespace of the service [default: the VM's].
    #[arg(long, short, value_name = "NAME", value_parser = name)]
    namespace: Option<Name>,
    /// The VM's WorkloadGroup [default: the one that its configuration names].
    #[arg(long, value_name = "NAME", value_parser = name)]
    workload_group: Option<Name>,
    /// The Service that callers name [default: the one that selects the VM].
    #[arg(long, value_name = "NAME", value_parser = name)]
    service: Option<Name>,
    /// The pods' own Service [default: that of the VM with -pods].
    #[arg(long, value_name = "NAME", value_parser = name)]
    pods_service: Option<Name>,
    /// Namespace of istiod [default: the one that the VM's configuration names, or istio-system].
    #[arg(long, value_name = "NAME", value_parser = name)]
    istio_namespace: Option<Name>,
    /// Print the pods' ServiceAccount, Service and Deployment as the VM's container has it; write no file.
    #[arg(long, requires = "vm")]
    pod: bool,
    /// The image of the pods, NAME@sha256:DIGEST, where the VM's configuration names a tag.
    #[arg(long, value_name = "IMAGE", requires = "pod", value_parser = pod::pinned)]
    image: Option<String>,
}

/// Who migrates: named by the arguments, by the VM's configuration, or found.
struct Subject {
    namespace: Name,
    workload_group: Name,
    service: Name,
    protocol: Protocol,
    pods_service: Name,
}

/// Writes the migration's file to `file`, which must not be there yet, or prints the pods.
pub(crate) async fn run(arguments: &Arguments, file: &Path) -> Result<()> {
    let vm = arguments.vm.as_deref().map(vm::read).transpose()?.unwrap_or_default();
    let (namespace, workload_group) = named(arguments, &vm)?;
    let mut clusters = Vec::new();
    for entry in entries(arguments) {
        let cluster = Cluster::new(&entry).await;
        let istiod = found::Istiod {
            namespace: arguments.istio_namespace.as_ref().or_else(|| vm.istio_namespace()),
            revision: vm.revision(),
        };
        clusters.push(Found::read(&cluster, &namespace, &workload_group, &istiod).await?);
    }
    let Some(of_vm) = clusters.iter().find(|found| found.group.is_some()) else {
        bail!(
            "no cluster has WorkloadGroup {namespace}/{workload_group}: name the VM's context with --context, or the \
             group with --workload-group"
        );
    };
    let service = of_vm.service(arguments.service.as_ref())?;
    let subject = Subject {
        pods_service: match &arguments.pods_service {
            Some(name) => name.clone(),
            None => name(&format!("{service}-pods")).map_err(|error| anyhow::anyhow!("--pods-service: {error}"))?,
        },
        namespace,
        workload_group,
        protocol: of_vm.protocol(&service),
        service,
    };
    if subject.pods_service == subject.service {
        bail!("--pods-service: {} is the Service of the VM", subject.service);
    }
    if arguments.pod {
        return print_pods(arguments, &subject, of_vm, &vm);
    }
    let text = text::file(&subject, &clusters, &vm)?;
    migration::parse(file, &text)?;
    write(file, &text)?;
    output::print(&format!(
        "{} is written: read it, then `istio-vm-ctl plan`",
        file.display()
    ));
    Ok(())
}

fn print_pods(arguments: &Arguments, subject: &Subject, of_vm: &Found, vm: &Vm) -> Result<()> {
    let pods = pod::pods(subject, of_vm, vm, arguments.image.as_deref())?;
    for note in &pods.notes {
        let _ = writeln!(std::io::stderr(), "istio-vm-ctl: {}", output::printable(note));
    }
    let mut text = String::new();
    for object in &pods.objects {
        write!(text, "---\n{}", serde_saphyr::to_string(object)?)?;
    }
    output::document(text.trim_end());
    Ok(())
}

fn named(arguments: &Arguments, vm: &Vm) -> Result<(Name, Name)> {
    let namespace = arguments.namespace.as_ref().or_else(|| vm.namespace());
    let group = arguments.workload_group.as_ref().or_else(|| vm.workload_group());
    let missing = |option: &str| format!("{option} is needed: no configuration of a VM (--vm) says it");
    Ok((
        namespace.with_context(|| missing("--namespace"))?.clone(),
        group.with_context(|| missing("--workload-group"))?.clone(),
    ))
}

/// Clusters as they are called until their own name is known.
fn entries(arguments: &Arguments) -> Vec<Entry> {
    let entry = |context: Option<&Text>| Entry {
        name: context.cloned().unwrap_or_else(|| Text::known("current-context")),
        context: context.cloned(),
        kubeconfig: arguments.kubeconfig.clone(),
        istiod: None,
        callers: Vec::new(),
        prometheus: None,
    };
    match arguments.contexts.as_slice() {
        [] => vec![entry(None)],
        contexts => contexts.iter().map(|context| entry(Some(context))).collect(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own file on the operator's machine, which has no Host"
)]
fn write(file: &Path, text: &str) -> Result<()> {
    let about = || {
        format!(
            "failed to write {}: one that is there stays as it is; name another with --file",
            file.display()
        )
    };
    let mut created = std::fs::File::create_new(file).with_context(about)?;
    created.write_all(text.as_bytes()).with_context(about)
}

fn name(text: &str) -> Result<Name, String> {
    Name::try_from(text.to_owned())
}

fn word(text: &str) -> Result<Text, String> {
    Text::try_from(text.to_owned())
}
