//! Fuzz target: the metadata of the instance, as it was kept.

use super::CachedMetadata;
use crate::config::Config;

/// Reads the attributes that the metadata server gave last, as they are kept.
pub(crate) fn instance_metadata(text: &str) {
    if let Ok(kept) = serde_json::from_str::<CachedMetadata>(text) {
        let _ = Config::from_attributes(&kept.attributes);
        let written = serde_json::to_string(&kept).expect("attributes can be written");
        let again: CachedMetadata = serde_json::from_str(&written).expect("what is written is read again");
        assert!(again.attributes == kept.attributes && again.machine == kept.machine);
    }
}
