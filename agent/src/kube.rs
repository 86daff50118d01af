//! A small client of Kubernetes' API: objects by name, their changes, and tokens. Bounded in time and size.
//!
//! Knows no key of the configuration. A refusal is data ([`Refusal`]): what it means for whoever asked, and what to
//! correct, is theirs to say.

pub(crate) mod access;
mod api;
pub(crate) mod bearer;
mod exec;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod kubeconfig;
mod objects;
pub(crate) mod refusal;
pub(crate) mod resource;
mod typed;
pub(crate) mod yaml;

pub(crate) use access::{Access, Credential, Method, read, token};
pub(crate) use api::{Api, Failure};
pub(crate) use bearer::NoBearer;
pub(crate) use objects::{ConfigMap, Service, WorkloadGroup};
pub(crate) use refusal::Refusal;
pub(crate) use resource::{Kind, Resource};
