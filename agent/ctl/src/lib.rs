//! Moves a service of an Istio mesh from a VM to pods, call by call, in several clusters at once, and back.
//!
//! `init` writes the file that says what migrates, `migration` reads it, `objects` turns it into Kubernetes objects
//! and reads the position back from them, `cluster` is one API server, `names` finds addresses, `step` moves all
//! clusters to one position or none, `arrival` asks istiod who has it, `findings` says what forbids it, `gate` judges the pods by Prometheus,
//! `parity` by their answers; `report` is a run as a page and a picture; `verbs` are what the operator types, and
//! `interrupt` is what breaks them off. All state is on the objects: any machine with the file goes on, or takes back.

mod arrival;
mod cli;
mod cluster;
mod findings;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gate;
mod init;
mod interrupt;
mod migration;
mod names;
mod objects;
mod output;
mod parity;
mod report;
mod rights;
mod step;
mod verbs;

pub use cli::main;
