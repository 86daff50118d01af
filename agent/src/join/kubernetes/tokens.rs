//! Istiod's tokens: a TokenRequest for the service account of the WorkloadGroup at every need. None is kept.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Result, anyhow};

use super::group_ref::GroupRef;
use super::refusal::explained;
use crate::control_plane::token::{AUDIENCE, Claims, Token, TokenSource};
use crate::facts::kubernetes_name::is_kubernetes_name;
use crate::kube::{Api, Failure, Kind, Resource, WorkloadGroup};

#[derive(Debug)]
pub(super) struct Tokens {
    api: Arc<Api>,
    group_ref: GroupRef,
    service_account: Mutex<Option<String>>,
}

impl Tokens {
    pub(super) fn new(api: Arc<Api>, group_ref: GroupRef) -> Self {
        Self {
            api,
            group_ref,
            service_account: Mutex::new(None),
        }
    }

    /// Learns the service account whose tokens they are.
    pub(super) fn learn(&self, group: &WorkloadGroup) {
        *self.service_account.lock().unwrap_or_else(PoisonError::into_inner) = Some(group.service_account().to_owned());
    }

    async fn request(&self) -> Result<Token> {
        let explain = |failure: Failure| explained(failure, self.group_ref.keys);
        let known = self
            .service_account
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let account = match known {
            Some(account) => account,
            None => {
                let GroupRef {
                    namespace,
                    workload_group,
                    ..
                } = &self.group_ref;
                let group = Resource::new(Kind::WorkloadGroup, namespace, workload_group);
                self.learn(&self.api.get(&group).await.map_err(explain)?);
                self.service_account
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
                    .unwrap_or_default()
            }
        };
        if !is_kubernetes_name(&account) {
            return Err(anyhow!(
                "workloadgroup {}/{}: spec.template.serviceAccount: {account:?} is no name in Kubernetes",
                self.group_ref.namespace,
                self.group_ref.workload_group
            ));
        }
        let resource = Resource::new(Kind::Token, &self.group_ref.namespace, &account);
        let token = self.api.token(&resource, AUDIENCE).await.map_err(explain)?;
        Token::new(&format!("{resource}"), &token)
    }
}

impl TokenSource for Tokens {
    fn place(&self) -> String {
        format!("the API server {}", self.api.server())
    }

    fn credential_end(&self) -> Option<(String, SystemTime)> {
        let credential = self.api.credential();
        let bearer = credential.unrenewed()?;
        let end = Claims::parse(bearer.expose()).ok()?.expires?;
        Some((credential.name(), end))
    }

    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Token>> + Send + '_>> {
        Box::pin(self.request())
    }
}
