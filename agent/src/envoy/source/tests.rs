//! A VM without a program, for the cases of all sources.

mod download;
mod image;
mod server;

use std::path::Path;

use super::*;
use crate::config::EnvoyConfig;
use crate::facts::EnvoyState;
use crate::host::{Host, System};
use crate::supervise::Scope;

/// A program as far as anybody looks, and its SHA-256.
const PROGRAM: &[u8] = b"\x7fELF of a kind";
const SHA256: &str = "8e4a2ba0e664ef1b2aba35d4f07c1689e3a095684099c0e344a126f5e67635a8";
const CA_FILE: &str = "/ca.pem";
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

struct Vm {
    _root: tempfile::TempDir,
    options: Options,
}

impl Vm {
    fn new(config: EnvoyConfig) -> Self {
        let root = tempfile::tempdir().unwrap();
        let options = Options {
            config,
            ..Options::bare(Host::new(root.path(), System))
        };
        Self { _root: root, options }
    }

    fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.options.host.real_path(&self.options.paths.envoys()));
        let entries = entries.into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// An agent that only provides.
struct Providing {
    program: watch::Receiver<Option<PathBuf>>,
    state: watch::Receiver<EnvoyState>,
    publish: watch::Sender<EnvoyState>,
    problem: watch::Receiver<Option<String>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Providing {
    fn of(vm: &Vm) -> Self {
        let (scope, stop) = Scope::detached();
        let program = watch::Sender::new(None);
        let (state, seen_state) = watch::channel(EnvoyState::default());
        let (problem, seen_problem) = watch::channel(None);
        let options = vm.options.clone();
        let (seen_program, publish) = (program.subscribe(), state.clone());
        scope.spawn(async move {
            let state = EnvoyStatePublisher::new(options.clone(), state);
            match provide(&options, &program, &state, &problem).await {}
        });
        Self {
            program: seen_program,
            state: seen_state,
            publish,
            problem: seen_problem,
            _stop: stop.drop_guard(),
        }
    }

    async fn program(&mut self) -> PathBuf {
        let found = timeout(Duration::from_secs(3600), self.program.wait_for(Option::is_some));
        let found = found
            .await
            .unwrap_or_else(|_| panic!("stayed {:?}", self.state.borrow()));
        found.unwrap().clone().unwrap()
    }

    async fn becomes_another_than(&mut self, path: &Path) {
        let another = self
            .program
            .wait_for(|found| found.as_deref().is_some_and(|found| found != path));
        let another = timeout(Duration::from_secs(3600), another).await.map(drop);
        another.unwrap_or_else(|_| panic!("stayed {}", path.display()));
    }

    async fn says(&mut self, text: &str) {
        let said = self.state.wait_for(|state| format!("{state:?}").contains(text));
        let said = timeout(Duration::from_secs(3600), said).await.map(drop);
        said.unwrap_or_else(|_| panic!("never said {text:?}, but {:?}", self.state.borrow()));
    }
}
