//! Properties of a status document, whoever answers on the socket.

use std::time::{Duration, SystemTime};

use super::Status;

/// An answer of the status socket.
pub(crate) fn document(text: &str) {
    let sections: Vec<_> = crate::app::parts(None)
        .iter()
        .flat_map(|part| part.sections())
        .collect();
    if let Ok(status) = serde_json::from_str::<Status>(text) {
        let told = status.to_text(&sections, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        assert!(told.starts_with("Health"));
        let again = serde_json::to_string(&status).expect("a status can be written");
        assert!(serde_json::from_str::<Status>(&again).is_ok_and(|again| again == status));
    }
}
