//! The machine's identity, for documents that belong to it: a clone of its disk is another one.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use super::{Host, Read};

/// Set when the system was installed, or at the first boot of an image.
const MACHINE_ID: &str = "/etc/machine-id";
/// The hypervisor's name for the VM, which stays another one's when a disk is copied with its machine-id.
const FIRMWARE_ID: &str = "/sys/class/dmi/id/product_uuid";
/// Each is a line of at most 37 bytes.
const MAX_BYTES: usize = 4 << 10;
/// The agent's, for sd_id128_get_machine_app_specific(3): neither id is to be known outside of its machine.
const APPLICATION: [u8; 16] = [
    0x6f, 0x1c, 0x0e, 0x5a, 0x93, 0x2d, 0x4b, 0x7c, 0x8a, 0x41, 0x5e, 0xd7, 0x02, 0xb9, 0x6e, 0x33,
];

/// Marks of a machine, hashed; each is absent where it isn't known.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Machine {
    /// Mark of its machine-id: what `systemd-id128 machine-id --app-specific=…` prints.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Mark of its firmware's UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    firmware: Option<String>,
}

impl Machine {
    /// Tells whether a document with the mark `of` was made on another machine. What one of the two doesn't know tells
    /// nothing.
    pub fn is_another_than(&self, of: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        differ(&self.id, &of.id) || differ(&self.firmware, &of.firmware)
    }

    /// Tells whether this mark has what `of` lacks.
    pub fn knows_more_than(&self, of: &Self) -> bool {
        let more = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_none();
        more(&self.id, &of.id) || more(&self.firmware, &of.firmware)
    }
}

impl Host {
    /// Marks of the machine.
    pub fn machine(&self) -> Machine {
        Machine {
            id: self.machine_id().as_ref().map(hashed),
            firmware: self.id(FIRMWARE_ID).map(in_either_order).as_ref().map(hashed),
        }
    }

    /// `None` also before the first boot has come so far, and where it is of this boot only: then systemd has mounted
    /// it there.
    fn machine_id(&self) -> Option<[u8; 16]> {
        let path = Path::new(MACHINE_ID);
        let device = |path: &Path| Some(self.meta(path).ok()??.dev());
        let is_lasting = device(path) == path.parent().and_then(device);
        is_lasting.then(|| self.id(MACHINE_ID)).flatten()
    }

    fn id(&self, path: &str) -> Option<[u8; 16]> {
        let text = self
            .read(Path::new(path), Read::max(MAX_BYTES).following_links())
            .ok()
            .flatten()?;
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
        // Nobody's: firmware without an id says so.
        let is_given = number != 0 && number != u128::MAX;
        is_given.then(|| number.to_be_bytes())
    }
}

/// Normalizes a UUID whose first three fields are in either byte order: which one Linux shows depends on the version
/// of SMBIOS, and that on the hypervisor's.
fn in_either_order(mut id: [u8; 16]) -> [u8; 16] {
    for field in [0..4, 4..6, 6..8] {
        if let Some(field) = id.get_mut(field) {
            let reversed: Vec<u8> = field.iter().rev().copied().collect();
            if reversed.as_slice() < &*field {
                field.copy_from_slice(&reversed);
            }
        }
    }
    id
}

/// Hashes an id as sd_id128_get_machine_app_specific(3) does: a UUID of version 4 out of HMAC-SHA256.
fn hashed(id: &[u8; 16]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, id), &APPLICATION);
    let bytes = tag.as_ref().iter().take(16).enumerate();
    let uuid: Vec<u8> = bytes
        .map(|(index, byte)| match index {
            6 => byte & 0x0f | 0x40,
            8 => byte & 0x3f | 0x80,
            _ => *byte,
        })
        .collect();
    hex::encode(uuid)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::host::System;

    /// Gives a host this machine-id, as another machine has it.
    pub(crate) fn set_machine_id(host: &Host, id: &str) {
        host.make_directory(Path::new("/etc"), 0o755, None).unwrap();
        host.write(Path::new(MACHINE_ID), id, 0o444, None).unwrap();
    }

    fn set_firmware(host: &Host, id: &str) {
        let path = Path::new(FIRMWARE_ID);
        host.make_directory(path.parent().unwrap(), 0o755, None).unwrap();
        host.write(path, id, 0o400, None).unwrap();
    }

    pub(crate) const ONE: &str = "0123456789abcdef0123456789abcdef\n";
    pub(crate) const OTHER: &str = "fedcba9876543210fedcba9876543210\n";

    #[test]
    fn machine_clone_is_known_by_either_mark_and_the_same_machine_by_none() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        assert_eq!(host.machine(), Machine::default());
        set_machine_id(&host, ONE);
        let installed = host.machine();
        set_firmware(&host, "03000200-0400-0500-0006-000700080009\n");
        let first = host.machine();
        assert!(first.knows_more_than(&installed) && !installed.knows_more_than(&first));
        assert!(!first.is_another_than(&installed) && !first.is_another_than(&Machine::default()));
        // The same UUID, as another SMBIOS has it.
        set_firmware(&host, "00020003-0004-0005-0006-000700080009\n");
        assert_eq!(host.machine(), first);

        set_firmware(&host, "13000200-0400-0500-0006-000700080009\n");
        assert!(host.machine().is_another_than(&first), "the whole disk was copied");
        set_firmware(&host, "00000000-0000-0000-0000-000000000000\n");
        set_machine_id(&host, OTHER);
        assert!(host.machine().is_another_than(&first), "the image was booted anew");
        for unknown in ["", "uninitialized\n", "00000000000000000000000000000000\n"] {
            set_machine_id(&host, unknown);
            assert_eq!(host.machine(), Machine::default(), "{unknown:?}");
        }
    }

    #[test]
    fn machine_mark_is_the_one_that_systemd_makes() {
        // `systemd-id128 machine-id --app-specific=6f1c0e5a-932d-4b7c-8a41-5ed702b96e33` of the first id.
        let id = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes();
        assert_eq!(hashed(&id), "3bda43f716f8414c9bf46c57280126d6");
    }
}
