//! Documents to Membership: the same for every source they may come from.

use crate::config::{Config, ConfigError};
use crate::facts::Membership;

use super::addresses::Machine;
use super::bundle::Bundle;
use super::document::Document;
use super::signed::Signed;
use super::{root_certs, token};

/// All that a source gives, unparsed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Documents {
    pub(super) cluster_env: Document,
    pub(super) mesh_yaml: Document,
    pub(super) root_cert: Document,
    pub(super) hosts: Document,
    pub(super) token: Option<Document>,
    /// Where the configuration wants it.
    pub(super) signed: Option<Signed>,
}

impl Documents {
    /// All but the token, by their names in a bundle.
    pub(super) fn by_name(&self) -> [(&'static str, &Document); 4] {
        [
            ("cluster.env", &self.cluster_env),
            ("hosts", &self.hosts),
            ("mesh.yaml", &self.mesh_yaml),
            ("root-cert.pem", &self.root_cert),
        ]
    }
}

/// Parses and checks the documents, against each other too. Any problem is an error; nothing is touched.
pub(super) fn assemble(documents: &Documents, config: &Config, machine: &Machine) -> Result<Membership, ConfigError> {
    let bundle = Bundle::parse(documents)?;
    let spiffe_id = bundle.spiffe_id()?;
    root_certs::check(&documents.root_cert.text, machine.now).map_err(|error| documents.root_cert.error(error))?;
    if let Some(document) = &documents.token {
        token::check(&document.text).map_err(|error| document.error(error))?;
    }
    let discovery_address = bundle.discovery_address(config)?;
    let ca_address = bundle.ca_address(&discovery_address)?;
    let hosts = bundle.hosts(config, &discovery_address)?;
    let instance_ips = bundle.instance_ips(config, machine, &discovery_address, &hosts)?;
    Ok(Membership {
        env: bundle.env.values(),
        roots_pem: documents.root_cert.text.clone(),
        hosts,
        token_file: documents.token.as_ref().map(|token| token.path.clone()),
        spiffe_id,
        cluster_id: bundle.metadata("ISTIO_META_CLUSTER_ID").unwrap_or_default().to_owned(),
        ca_address,
        node_name: node_name(config, machine)?,
        instance_ips,
        inbound_ports: bundle.inbound_ports()?,
        exclude_ports: bundle.exclude_ports()?,
        dns_capture: bundle.flag("ISTIO_META_DNS_CAPTURE")?,
        probe: bundle.probe()?,
        discovery_address,
        proxy_config: bundle.proxy_config,
    })
}

/// It becomes a part of the node id, where `~` and blanks would end it.
fn node_name(config: &Config, machine: &Machine) -> Result<String, ConfigError> {
    let name = config.network.name.as_deref().unwrap_or_else(|| machine.short_name());
    let valid = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if name.is_empty() || !valid {
        let problem = format!("{name:?} can't be the VM's name in the mesh: letters, digits, '.', '-' and '_' only");
        return Err(ConfigError::new("network.name".as_ref(), problem));
    }
    Ok(name.to_owned())
}
