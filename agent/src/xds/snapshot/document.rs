//! The file's format: a line of JSON that says of which format, machine and member it is, the resources, and a SHA-256 of
//! all before. Pure but for the machine's mark.
//!
//! The resources are protobuf: a `ResourcesOfType` for each type, as field 1 of a message. Later versions may add fields to either.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use bytes::Bytes;
use istio_api::frame::{Fields, Frame, MAX_PARTS, count_parts, resource_name};
use istio_api::nds::NAME_TABLE;
use prost::Message;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::facts::Membership;
use crate::host::{Host, Machine};

/// Version of the format: the one that this agent writes, and the only one that it reads.
const VERSION: u32 = 1;
/// Longest file, in bytes: as much as the largest response of istiod's, some 20,000 clusters of 3 kB. A larger mesh is
/// not kept.
pub(in crate::xds) const MAX_BYTES: usize = 64 << 20;
/// Field number of a type's resources in the file.
const TYPES: u32 = 1;

/// Error of a configuration that is more than a file may have.
#[derive(Debug, thiserror::Error)]
#[error("it has more than {MAX_BYTES} bytes or {MAX_PARTS} resources")]
pub(super) struct TooLarge;

/// Names and bytes of a type's resources.
pub(in crate::xds) type Resources = BTreeMap<String, Bytes>;

/// Resources that Envoy accepted, by type: the `Resource` messages of delta xDS as they came, and the name table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::xds) struct Snapshot(pub(in crate::xds) BTreeMap<String, Resources>);

/// The member of a mesh whose configuration it is. Addresses of the VM and of istiod may change, and so may all but one
/// of the roots.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::xds) struct Member {
    machine: Machine,
    spiffe_id: String,
    node_name: String,
    cluster_id: String,
    /// SHA-256 of each root certificate of the mesh, in hexadecimal.
    roots: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Format {
    version: u32,
}

#[derive(Deserialize, Serialize)]
struct Header {
    version: u32,
    #[serde(flatten)]
    member: Member,
}

/// All resources of a type.
#[derive(Clone, PartialEq, Message)]
struct ResourcesOfType {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    resources: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Body {
    #[prost(message, repeated, tag = "1")]
    types: Vec<ResourcesOfType>,
}

impl Member {
    /// The VM as a member of the mesh.
    pub(super) fn of(host: &Host, membership: &Membership) -> Self {
        let roots = CertificateDer::pem_slice_iter(membership.roots_pem.as_bytes()).filter_map(Result::ok);
        Self {
            machine: host.machine(),
            spiffe_id: membership.spiffe_id.to_string(),
            node_name: membership.node_name.clone(),
            cluster_id: membership.cluster_id.clone(),
            roots: roots.map(|root| hex::encode(digest(&SHA256, &root))).collect(),
        }
    }

    /// Fails when a snapshot of this member is of no use `here`.
    fn expect_same(&self, here: &Self) -> Result<()> {
        ensure!(
            !here.machine.is_another_than(&self.machine),
            "it is of another machine, of whose disk this one's is a copy"
        );
        let who = |member: &Self| format!("{} {} {}", member.spiffe_id, member.node_name, member.cluster_id);
        ensure!(
            who(self) == who(here),
            "it is of {}, and this VM is {}",
            who(self),
            who(here)
        );
        ensure!(
            self.roots == here.roots || !self.roots.is_disjoint(&here.roots),
            "it is of a mesh with other roots"
        );
        Ok(())
    }
}

impl Snapshot {
    /// Reads a file; resources are slices of it.
    pub(in crate::xds) fn parse(file: Bytes, here: &Member) -> Result<Self> {
        let line = file.iter().position(|byte| *byte == b'\n');
        let line = line.context("it is damaged: it has no first line")?;
        let header = file.slice(..line);
        let format: Format = serde_json::from_slice(&header).context("it is damaged: its first line is no header")?;
        ensure!(
            format.version == VERSION,
            "it is of version {}, this agent reads {VERSION}",
            format.version
        );
        let rest = file.slice(line + 1..);
        let end = rest
            .len()
            .checked_sub(SHA256_OUTPUT_LEN)
            .context("it is damaged: it is cut short")?;
        let hashed = digest(&SHA256, &file.slice(..line + 1 + end));
        ensure!(
            hashed.as_ref() == &*rest.slice(end..),
            "it is damaged: its checksum is another"
        );
        let header: Header = serde_json::from_slice(&header).context("it is damaged: its first line is no header")?;
        header.member.expect_same(here)?;
        Self::decode(rest.slice(..end)).context("it is damaged")
    }

    /// Reads the part of the file that has the resources.
    pub(in crate::xds) fn decode(body: Bytes) -> Result<Self> {
        let mut types: BTreeMap<String, Resources> = BTreeMap::new();
        let mut parts = count_parts(&body)?;
        for field in Fields(body) {
            let (TYPES, kept) = field? else { continue };
            parts += count_parts(&kept)?;
            ensure!(parts <= MAX_PARTS, "it has more than {MAX_PARTS} resources");
            let ResourcesOfType { type_url, resources } = ResourcesOfType::decode(kept)?;
            let of_type = types.entry(type_url).or_default();
            for resource in resources {
                of_type.insert(resource_name(&resource)?, resource);
            }
        }
        Ok(Self(types))
    }

    /// The name table, as istiod's response had it; without resources when none is kept.
    pub(in crate::xds) fn name_table(&self) -> Frame {
        let tables = self.0.get(NAME_TABLE).into_iter().flat_map(BTreeMap::values);
        Frame::of_resources(NAME_TABLE, "", tables.cloned().collect(), Vec::new())
    }

    /// Writes the file of this member.
    ///
    /// # Errors
    /// When it is larger than any that is read.
    pub(super) fn encode(&self, member: &Member) -> Result<Vec<u8>> {
        let header = Header {
            version: VERSION,
            member: member.clone(),
        };
        let mut file = serde_json::to_vec(&header)?;
        file.push(b'\n');
        self.encode_body(&mut file)?;
        file.extend_from_slice(digest(&SHA256, &file).as_ref());
        // Its own field, and its type's name.
        let parts: usize = self.0.values().map(|resources| resources.len() + 2).sum();
        ensure!(file.len() <= MAX_BYTES && parts <= MAX_PARTS, TooLarge);
        Ok(file)
    }

    /// Writes the part of the file that has the resources, behind what is there.
    pub(in crate::xds) fn encode_body(&self, file: &mut Vec<u8>) -> Result<()> {
        let kept = |(type_url, resources): (&String, &Resources)| ResourcesOfType {
            type_url: type_url.clone(),
            resources: resources.values().cloned().collect(),
        };
        let body = Body {
            types: self.0.iter().map(kept).collect(),
        };
        file.reserve_exact(body.encoded_len() + SHA256_OUTPUT_LEN);
        Ok(body.encode(file)?)
    }
}

#[cfg(test)]
mod tests;
