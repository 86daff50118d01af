//! Properties of names on a command line, whatever they are.

use super::names::{Name, Port, ServiceName, Subject};

/// Any of them.
pub(crate) fn names(text: &str) {
    if let Ok(name) = text.parse::<Name>() {
        assert!(name.to_string() == text && (1..=63).contains(&text.len()));
    }
    if let Ok(port) = text.parse::<Port>() {
        assert!(port.port != 0 && port.target != 0);
        let _ = port.is_grpc();
    }
    let _ = text.parse::<ServiceName>();
    for subject in [Subject::google(text), Subject::service_account(text)]
        .into_iter()
        .flatten()
    {
        assert!(subject.object().is_object());
    }
}
