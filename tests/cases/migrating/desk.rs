//! The workstation: where the program runs, in the folder of its file, and what it makes of two clusters.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::kubernetes::Cluster;
use e2e::network::{EtcView, Host, Network};
use e2e::{PATIENCE, eventually, programs};

pub(super) const ROUTE: &str =
    "/apis/networking.istio.io/v1/namespaces/onlineboutique/virtualservices/productcatalogservice-migration";
/// The operator's kubeconfig, beside the migration's file.
pub(super) const KUBECONFIG: &str = "kubeconfig";

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Desk<'a> {
    pub(super) network: &'a Network,
    pub(super) host: Host,
    pub(super) clusters: [&'a Cluster; 2],
}

/// Output of the program, and its exit.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) is_success: bool,
    pub(super) text: String,
}

impl Desk<'_> {
    /// The migration's file.
    pub(super) fn file(&self) -> PathBuf {
        self.network.folder().join("migration.toml")
    }

    /// The program, not started yet, in the folder of its file.
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.network.command(self.host, EtcView::Plain, programs::ctl()?);
        let folder = self.network.folder();
        command.current_dir(folder).env("KUBECONFIG", folder.join(KUBECONFIG));
        command.arg("--file").arg(self.file()).args(arguments);
        Ok(command)
    }

    /// Starts the program with pipes.
    pub(super) fn spawn(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(arguments)?;
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Runs the program to its end.
    pub(super) fn ctl(&self, arguments: &[&str]) -> Result<Ended> {
        Ok(ended(&self.command(arguments)?.output()?))
    }

    /// The same, which must succeed.
    pub(super) fn done(&self, arguments: &[&str]) -> Result<String> {
        let ended = self.ctl(arguments)?;
        ensure!(ended.is_success, "{arguments:?}: {}", ended.text);
        Ok(ended.text)
    }

    /// The same, which must fail with these words.
    pub(super) fn refused(&self, arguments: &[&str], words: &str) -> Result<()> {
        let ended = self.ctl(arguments)?;
        ensure!(!ended.is_success, "{arguments:?} succeeded: {}", ended.text);
        ensure!(
            ended.text.contains(words),
            "{arguments:?} says not {words:?}: {}",
            ended.text
        );
        Ok(())
    }

    /// The weights of VM and pods in a cluster.
    pub(super) fn weights(&self, at: usize) -> Result<[u64; 2]> {
        let route = self.clusters[at].get(ROUTE)?;
        let weight = |side: usize| route["spec"]["http"][0]["route"][side]["weight"].as_u64();
        Ok([0, 1].map(|side| weight(side).unwrap_or(u64::MAX)))
    }

    /// Both clusters have these weights.
    pub(super) fn expect(&self, weights: [u64; 2]) -> Result<()> {
        let both = [self.weights(0)?, self.weights(1)?];
        ensure!(both == [weights; 2], "the weights are {both:?}");
        Ok(())
    }

    /// A cluster has these weights; `None`: no split.
    pub(super) fn expect_in(&self, at: usize, weights: Option<[u64; 2]>) -> Result<()> {
        let now = self.clusters[at].get(ROUTE).and_then(|_| self.weights(at)).ok();
        ensure!(now == weights, "cluster {at} has {now:?}, not {weights:?}");
        Ok(())
    }
}

/// Waits for the end of a program that was started with pipes, and ends it where it doesn't.
pub(super) fn end(mut child: Child) -> Result<Ended> {
    let has_ended = eventually("the program's end", PATIENCE, || {
        ensure!(child.try_wait()?.is_some(), "it still runs");
        Ok(())
    });
    if has_ended.is_err() {
        child.kill()?;
    }
    let ended = ended(&child.wait_with_output()?);
    has_ended.with_context(|| ended.text.clone())?;
    Ok(ended)
}

fn ended(output: &Output) -> Ended {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ended {
        is_success: output.status.success(),
        text: text.concat(),
    }
}
