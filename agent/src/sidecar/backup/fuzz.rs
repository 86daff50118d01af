//! Properties of a backup, whatever the file says.

use super::Backup;

/// The document that a switch leaves.
pub(crate) fn backup(text: &str) {
    if let Ok(backup) = serde_json::from_str::<Backup>(text) {
        let kept = serde_json::to_string(&backup).expect("a backup can be written");
        let again = serde_json::from_str::<Backup>(&kept).and_then(|again| serde_json::to_string(&again));
        assert_eq!(again.ok(), Some(kept), "what is written is read again");
    }
}
