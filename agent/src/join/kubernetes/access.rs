//! The configured way to the API server.

use anyhow::{Context, Error};

use crate::config::{Config, ConfigError, KubernetesConfig, Place};
use crate::google::Metadata;
use crate::host::Host;
use crate::kube::kubeconfig::{self, Unusable};
use crate::kube::{Access, Credential, read, token};
use crate::web::Trust;

/// Reads what doesn't change: the CA, the kubeconfig.
pub(super) fn open(config: &KubernetesConfig, whole: &Config, host: &Host) -> Result<Access, ConfigError> {
    let wrong = |key: &str, error: Error| ConfigError::key(key, format!("{error:#}"));
    if let Some(path) = &config.kubeconfig {
        let text = read(path, host).map_err(|error| wrong("join.kubernetes.kubeconfig", error))?;
        return kubeconfig::parse(&text, path, config.context.as_deref(), host).map_err(|error| match error {
            Unusable::NoCurrentContext => {
                ConfigError::new(path, format!("{error}: name one in join.kubernetes.context"))
            }
            Unusable::Wrong { at, problem } => {
                let (line, column) = at.unzip();
                let name = path.display().to_string();
                ConfigError::about(Place { name, line, column }, problem)
            }
        });
    }
    let trust = match &config.ca_file {
        None => Trust::System,
        Some(path) => Trust::Roots {
            pem: read(path, host).map_err(|error| wrong("join.kubernetes.ca_file", error))?,
            place: path.display().to_string(),
        },
    };
    let credential = if config.google {
        Credential::Google(Metadata::of_this_vm(host).map_err(|error| wrong("join.kubernetes.google", error))?)
    } else {
        let key = "join.kubernetes.token_file";
        let path = config.token_file.clone().context("is missing");
        let path = path.map_err(|error| wrong(key, error))?;
        // A VM that has joined serves from what it knows, while whatever keeps the token fresh may not be up yet.
        if !host.exists(&whole.paths.membership()) {
            token(&path, host).map_err(|error| wrong(key, error))?;
        }
        Credential::TokenFile {
            key: key.to_owned(),
            path,
            host: host.clone(),
        }
    };
    let server = config.server.as_deref().unwrap_or_default();
    Ok(Access {
        server: server.trim_end_matches('/').to_owned(),
        trust,
        credential,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::JoinConfig;
    use crate::host::System;

    #[test]
    fn vm_that_has_joined_may_start_before_its_token_is_there() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let text = "[join.kubernetes]\nserver = 'https://a'\ntoken_file = '/token'\nnamespace = 'shop'\nworkload_group = 'catalog'";
        let whole = Config::parse(Path::new("c.toml"), text).unwrap();
        let JoinConfig::Kubernetes(config) = &whole.join else {
            panic!("{text}")
        };
        let error = open(config, &whole, &host).unwrap_err().to_string();
        assert!(
            error.starts_with("join.kubernetes.token_file: /token is missing: put"),
            "{error}"
        );
        host.make_directory(&whole.paths.state, 0o700, None).unwrap();
        host.write(&whole.paths.membership(), "{}", 0o600, None).unwrap();
        open(config, &whole, &host).unwrap();
    }

    #[test]
    fn kubeconfig_without_a_current_context_names_the_key_that_chooses_one() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let text = "[join.kubernetes]\nkubeconfig = '/config'\nnamespace = 'shop'\nworkload_group = 'catalog'";
        let whole = Config::parse(Path::new("c.toml"), text).unwrap();
        let JoinConfig::Kubernetes(config) = &whole.join else {
            panic!("{text}")
        };
        let error = open(config, &whole, &host).unwrap_err().to_string();
        assert!(
            error.starts_with("join.kubernetes.kubeconfig: /config is missing: put"),
            "{error}"
        );
        host.write(Path::new("/config"), "{}", 0o600, None).unwrap();
        let error = open(config, &whole, &host).unwrap_err().to_string();
        assert_eq!(
            error,
            "/config: has no current-context: name one in join.kubernetes.context"
        );
        host.write(Path::new("/config"), "a: b\ncurrent-context: c", 0o600, None)
            .unwrap();
        let error = open(config, &whole, &host).unwrap_err().to_string();
        assert_eq!(error, "/config:2:18: has no context \"c\": it has no context at all");
    }
}
