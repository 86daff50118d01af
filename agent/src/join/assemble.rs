//! A bundle to a Membership: the same for every source.

use crate::config::{Config, ConfigError, check_name};
use crate::facts::Membership;

use super::addresses::Machine;
use super::bundle::Bundle;
use super::root_certs;
use super::values::Values;

/// Checks the parts of a bundle against each other, this machine and the configuration. Any problem is an error; nothing
/// is touched.
pub(super) fn assemble(bundle: &Bundle, config: &Config, machine: &Machine) -> Result<Membership, ConfigError> {
    let values = Values::of(bundle)?;
    let spiffe_id = values.spiffe_id()?;
    let roots_pem =
        root_certs::checked(&bundle.roots, machine.now).map_err(|error| bundle.origins.roots.error(error))?;
    let discovery_address = values.discovery_address(config)?;
    let ca_address = values.ca_address(&discovery_address)?;
    let hosts = values.hosts(config, &discovery_address)?;
    let instance_ips = values.instance_ips(config, machine, &discovery_address, &hosts)?;
    let exclude_ports = values.exclude_ports()?;
    values.metadata_is_sound()?;
    values.is_redirected()?;
    Ok(Membership {
        env: bundle.env.clone(),
        roots_pem,
        hosts,
        token_file: bundle.token.clone(),
        spiffe_id,
        cluster_id: values.metadata("ISTIO_META_CLUSTER_ID").unwrap_or_default().to_owned(),
        ca_address,
        node_name: node_name(config, machine)?,
        instance_ips,
        inbound_ports: values.inbound_ports(config, &exclude_ports)?,
        exclude_ports,
        outbound: values.outbound()?,
        dns_capture: values.flag("ISTIO_META_DNS_CAPTURE")?,
        probe: values.probe()?,
        discovery_address,
        proxy_config: values.proxy_config,
    })
}

/// The VM's name in the mesh.
fn node_name(config: &Config, machine: &Machine) -> Result<String, ConfigError> {
    let name = config.network.name.as_deref().unwrap_or_else(|| machine.short_name());
    check_name(name).map_err(|problem| {
        let problem = format!("{name:?}, the VM's own name, {problem}: write another one there");
        ConfigError::key("network.name", problem)
    })?;
    Ok(name.to_owned())
}
