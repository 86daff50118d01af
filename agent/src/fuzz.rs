//! Every parser of bytes that others make, for a fuzzer to feed: `tests/fuzz` does, and the test below replays its
//! corpora. Built for these two only.
//!
//! An entry point lives beside its parser, in its feature's `fuzz`. Each asserts more than that nothing panics, where
//! something cheap holds whatever the bytes: what is written is read again, an answer is the query's, a line stays a line.

use std::sync::LazyLock;

use serde::Serialize;
use serde::de::DeserializeOwned;

use Target::{Bytes, Text};

use crate::facts::Membership;
use crate::{
    cli, config, control_plane, dns, docker, envoy, google, host, hosts, identity, intercept, join, kube, manifests,
    metrics, oci, sidecar, status, upgrade, web, workload, xds,
};

/// A parser of foreign input, and what must hold whatever it is. Several documents of one input have a NUL between them.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Takes it as it comes.
    Bytes(fn(&[u8])),
    /// Takes text: what is none is refused where it is read.
    Text(fn(&str)),
}

impl Target {
    /// Parses `input`; panics when something doesn't hold.
    pub fn feed(self, input: &[u8]) {
        match self {
            Bytes(parse) => parse(input),
            Text(parse) => parse(&String::from_utf8_lossy(input)),
        }
    }
}

/// Every target, by the name of its folder below tests/fuzz/corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("access_log", Text(cli::fuzz::access_log)),
    ("bundle", Text(join::fuzz::bundle)),
    ("bundle_signature", Text(join::fuzz::bundle_signature)),
    ("ca_answer", Text(identity::fuzz::ca_answer)),
    ("cluster_env", Text(join::fuzz::cluster_env)),
    ("command_output", Text(command_output)),
    ("config_attributes", Text(config::fuzz::attributes)),
    ("config_toml", Text(config::fuzz::toml)),
    ("conntrack", Text(cli::fuzz::connections)),
    ("container_env_file", Text(workload::fuzz::env_file)),
    ("container_user", Text(workload::fuzz::container_user)),
    ("control_plane_address", Text(control_plane::fuzz::address)),
    ("dns_framing", Bytes(dns::fuzz::framing)),
    ("dns_plain_query", Bytes(dns::fuzz::plain_query)),
    ("dns_printed_reply", Bytes(dns::fuzz::printed_reply)),
    ("dns_query", Bytes(dns::fuzz::query)),
    ("dns_reply", Bytes(dns::fuzz::reply)),
    ("dns_table", Text(dns::fuzz::table)),
    ("docker_config", Text(docker::fuzz::config_file)),
    ("docker_helper", Text(docker::fuzz::helper)),
    ("envoy_archive", Bytes(envoy::fuzz::archive)),
    ("envoy_dump", Text(cli::fuzz::envoy_dump)),
    ("envoy_fields", Text(cli::fuzz::envoy_fields)),
    ("envoy_layer", Bytes(envoy::fuzz::layer)),
    ("envoy_output", Bytes(envoy::fuzz::output)),
    ("envoy_record", Text(envoy::fuzz::record)),
    ("envoy_server_info", Text(envoy::fuzz::server_info)),
    ("envoy_stats", Text(envoy::fuzz::stats)),
    ("foreign_rules", Text(intercept::fuzz::foreign_rules)),
    ("gke_cluster", Text(join::fuzz::gke_cluster)),
    ("gke_refusal", Text(join::fuzz::gke_refusal)),
    ("google_access_token", Text(google::fuzz::access_token)),
    ("google_attributes", Text(google::fuzz::attributes)),
    ("hosts_block", Text(hosts::fuzz::block)),
    ("hosts_lines", Text(join::fuzz::hosts_lines)),
    ("hosts_list", Text(hosts::fuzz::list)),
    ("http_clock", Text(web::fuzz::clock)),
    ("https_header", Text(join::fuzz::header)),
    ("identity_document", Text(identity::fuzz::document)),
    ("image_reference", Text(docker::fuzz::image)),
    ("inbound_record", Text(intercept::fuzz::inbound_record)),
    ("instance_metadata", Text(cli::fuzz::instance_metadata)),
    ("iptables_save", Text(intercept::fuzz::iptables_save)),
    ("istiod_version", Text(control_plane::fuzz::version)),
    ("journal_line", Text(cli::fuzz::journal_line)),
    ("jwt", Text(control_plane::fuzz::jwt)),
    ("kubeconfig", Text(kube::fuzz::kubeconfig)),
    ("kubernetes_credential", Text(kube::fuzz::credential)),
    ("kubernetes_duration", Text(join::fuzz::duration)),
    ("kubernetes_objects", Text(join::fuzz::objects)),
    ("kubernetes_refusal", Text(join::fuzz::refusal)),
    ("manifests_names", Text(manifests::fuzz::names)),
    ("membership_cache", Text(join::fuzz::membership_cache)),
    ("mesh_yaml", Text(join::fuzz::mesh_yaml)),
    ("metrics_annotations", Text(metrics::fuzz::annotations)),
    ("metrics_exposition", Text(metrics::fuzz::exposition)),
    ("netlink_packet", Bytes(host::fuzz::netlink_packet)),
    ("newest_signature", Text(join::fuzz::newest_signature)),
    ("nft_list", Text(intercept::fuzz::nft_list)),
    ("nsswitch_conf", Text(dns::fuzz::nsswitch_conf)),
    ("oci_challenge", Text(oci::fuzz::challenge)),
    ("oci_manifest", Text(oci::fuzz::manifest)),
    ("oci_reference", Text(oci::fuzz::reference)),
    ("oci_token", Text(oci::fuzz::token)),
    ("proc_net_tcp", Text(host::fuzz::proc_net_tcp)),
    ("process_stat", Text(host::fuzz::process_stat)),
    ("proxy_tables", Text(cli::fuzz::proxy_tables)),
    ("resolv_conf", Text(host::fuzz::resolv_conf)),
    ("root_certs", Text(join::fuzz::root_certs)),
    ("rules", Text(intercept::fuzz::rules)),
    ("sds_exchange", Bytes(identity::fuzz::exchange)),
    ("sds_name", Text(identity::fuzz::secret_name)),
    ("secrets_in_text", Text(cli::fuzz::secrets_in_text)),
    ("service_unit", Text(workload::fuzz::service_unit)),
    ("sidecar_backup", Text(sidecar::fuzz::backup)),
    ("sidecar_flags", Text(sidecar::fuzz::flags)),
    ("sidecar_hosts_lines", Text(sidecar::fuzz::hosts_lines)),
    ("sidecar_settings", Text(sidecar::fuzz::settings)),
    ("spiffe_id", Text(identity::fuzz::spiffe_id)),
    ("sshd_config", Text(intercept::fuzz::sshd_config)),
    ("status", Text(status::fuzz::document)),
    ("token", Text(join::fuzz::token)),
    ("upgrade_record", Text(upgrade::fuzz::record)),
    ("upgrade_unit", Text(upgrade::fuzz::unit)),
    ("xds_frame", Bytes(xds::fuzz::frame)),
    ("xds_names", Bytes(xds::fuzz::names)),
    ("xds_place", Bytes(xds::fuzz::place)),
    ("xds_session", Bytes(xds::fuzz::session)),
    ("xds_snapshot", Bytes(xds::fuzz::snapshot)),
];

/// Who the VM is where a target needs to know: what istioctl wrote for one of a real mesh.
pub(crate) static MEMBERSHIP: LazyLock<Membership> = LazyLock::new(join::fuzz::membership);

/// Reads a document of our own: what is written of it is read again as the same.
pub(crate) fn is_kept<T: DeserializeOwned + PartialEq + Serialize>(text: &str) {
    if let Ok(document) = serde_json::from_str::<T>(text) {
        let written = serde_json::to_string(&document).expect("what is read can be written");
        assert!(serde_json::from_str::<T>(&written).is_ok_and(|again| again == document));
    }
}

/// Reads a text as output of systemctl, Envoy, nft and iptables.
fn command_output(text: &str) {
    let host = host::fuzz::machine(text);
    let property = host.unit_property("istio.service", "ActiveState");
    assert!(property.is_ok_and(|value| value.trim() == value));
    let _ = sidecar::find(&host);
    if let Ok(version) = envoy::version(&host, "/envoy".as_ref()) {
        assert!(version.starts_with(|first: char| first.is_ascii_digit()));
    }
    intercept::fuzz::answers(&host);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsString;
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::{Path, PathBuf};

    use super::TARGETS;

    /// Prefix of the targets of istio-vm-ctl, which has a test of its own.
    const OF_CTL: &str = "ctl_";

    fn entries(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn corpora() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus")
    }

    #[test]
    fn every_corpus_is_parsed_as_when_it_was_found() {
        let mut broken = Vec::new();
        for (name, target) in TARGETS {
            for path in entries(&corpora().join(name)) {
                let input = fs::read(&path).unwrap();
                if catch_unwind(|| target.feed(&input)).is_err() {
                    broken.push(path);
                }
            }
        }
        assert!(broken.is_empty(), "{broken:#?}");
    }

    #[test]
    fn every_target_has_a_corpus_and_every_corpus_a_target() {
        let folders = entries(&corpora()).into_iter();
        let folders = folders.map(|path| path.file_name().unwrap().to_owned());
        let is_own = |name: &OsString| !name.to_string_lossy().starts_with(OF_CTL);
        let folders: BTreeSet<_> = folders.filter(is_own).collect();
        let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
        assert_eq!(folders, targets);
        assert_eq!(targets.len(), TARGETS.len());
    }
}
