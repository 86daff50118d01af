//! Properties of names on a command line, whatever they are.

use super::elsewhere::Gateway;
use super::names::{Name, Port, ServiceName, Subject};
use super::policy::{Caller, EgressHost};

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
    let _ = text.parse::<Caller>();
    if let Ok(gateway) = text.parse::<Gateway>() {
        assert!(gateway.to_string().parse() == Ok(gateway));
    }
    if let Ok(host) = text.parse::<EgressHost>() {
        assert!(host.to_string() == text);
    }
    for subject in [Subject::google(text), Subject::service_account(text)]
        .into_iter()
        .flatten()
    {
        assert!(subject.object().is_object());
    }
}
