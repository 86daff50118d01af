//! A bundle to a Membership: the same for every source.

use crate::config::{Config, ConfigError, check_name};
use crate::facts::Membership;

use super::addresses::Machine;
use super::bundle::{Bundle, told_together};
use super::root_certs;
use super::values::Values;

/// Checks the parts of a bundle against each other, this machine and the configuration. Any problem is an error, and all
/// of them are told; nothing is touched.
pub(super) fn assemble(bundle: &Bundle, config: &Config, machine: &Machine) -> Result<Membership, ConfigError> {
    let values = Values::of(bundle)?;
    let judged = Judged {
        bundle,
        values: &values,
        config,
        machine,
    };
    judged.membership().map_err(|_| judged.errors())
}

struct Judged<'a> {
    bundle: &'a Bundle,
    values: &'a Values<'a>,
    config: &'a Config,
    machine: &'a Machine,
}

impl Judged<'_> {
    /// The membership, or the first error.
    fn membership(&self) -> Result<Membership, ConfigError> {
        let Self {
            bundle, values, config, ..
        } = *self;
        values.is_heeded()?;
        values.metadata_is_sound()?;
        values.is_redirected()?;
        let discovery_address = values.discovery_address(config)?;
        let hosts = values.hosts(config, &discovery_address)?;
        let exclude_ports = values.exclude_ports()?;
        Ok(Membership {
            env: bundle.env.clone(),
            roots_pem: self.roots()?,
            token_file: bundle.token.clone(),
            spiffe_id: values.spiffe_id()?,
            cluster_id: values.metadata("ISTIO_META_CLUSTER_ID").unwrap_or_default().to_owned(),
            cluster_domain: config.network.cluster_domain().to_owned(),
            ca_address: values.ca_address(&discovery_address)?,
            node_name: node_name(config, self.machine)?,
            instance_ips: values.instance_ips(config, self.machine, &discovery_address, &hosts)?,
            inbound_ports: values.inbound_ports(config, &exclude_ports)?,
            exclude_ports,
            exclude_interfaces: values.exclude_interfaces()?,
            outbound: values.outbound()?,
            dns_capture: values.flag("ISTIO_META_DNS_CAPTURE")?,
            probe: values.probe()?,
            unheeded: values.unheeded(),
            hosts,
            discovery_address,
            proxy_config: values.proxy_config.clone(),
        })
    }

    /// All errors: each value is judged once more, whatever became of the others.
    fn errors(&self) -> ConfigError {
        let Self {
            values,
            config,
            machine,
            ..
        } = *self;
        let discovery = values.discovery_address(config);
        let of_address = |address: &String| match values.hosts(config, address) {
            Ok(hosts) => vec![
                values.ca_address(address).err(),
                values.instance_ips(config, machine, address, &hosts).err(),
            ],
            Err(error) => vec![values.ca_address(address).err(), Some(error)],
        };
        let excluded = values.exclude_ports();
        let inbound = |excluded: &Vec<u16>| values.inbound_ports(config, excluded).err();
        let mut errors = vec![
            values.is_heeded().err(),
            values.metadata_is_sound().err(),
            values.is_redirected().err(),
            values.spiffe_id().err(),
            self.roots().err(),
            node_name(config, machine).err(),
            excluded.as_ref().map_or(None, inbound),
            values.exclude_interfaces().err(),
            values.outbound().err(),
            values.flag("ISTIO_META_DNS_CAPTURE").err(),
            values.probe().err(),
            excluded.err(),
        ];
        errors.extend(discovery.as_ref().map(of_address).unwrap_or_default());
        errors.push(discovery.err());
        told_together(errors)
    }

    fn roots(&self) -> Result<String, ConfigError> {
        let Self { bundle, machine, .. } = self;
        root_certs::checked(&bundle.roots, machine.now).map_err(|error| bundle.origins.roots.error(error))
    }
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
