//! Ports of sshd: an operator locked out can't undo anything.

use std::collections::BTreeSet;
use std::path::Path;

use crate::host::{Host, Read};

const CONFIG: &str = "/etc/ssh/sshd_config";
/// The directory that Debian's and Red Hat's sshd_config include.
const INCLUDED: &str = "/etc/ssh/sshd_config.d";
const MAX_BYTES: usize = 1 << 20;

/// The ports that sshd_config(5) names, beside 22; none where there is no sshd. A file that can't be read names none: it
/// must not keep the rules out.
pub(super) fn ports(host: &Host) -> Vec<u16> {
    let names = host.names_in(Path::new(INCLUDED)).unwrap_or_default().into_iter();
    let included = names.filter(|name| name.ends_with(".conf"));
    let files = included
        .map(|name| format!("{INCLUDED}/{name}"))
        .chain([CONFIG.to_owned()]);
    let mut ports = BTreeSet::new();
    for file in files {
        match host.read_bytes(Path::new(&file), Read::max(MAX_BYTES).following_links()) {
            Ok(None) => {}
            Ok(Some(bytes)) => ports.extend(ports_in(&String::from_utf8_lossy(&bytes))),
            Err(error) => tracing::debug!("passed over the ports of sshd: {error}"),
        }
    }
    ports.into_iter().collect()
}

/// Ports that one file names, as often as it does.
pub(super) fn ports_in(text: &str) -> impl Iterator<Item = u16> {
    text.lines().filter_map(port)
}

/// `Port 2222`, `ListenAddress 10.0.0.1:2222`, `ListenAddress [::]:2222`; keywords are of any case, and `=` may part them.
fn port(line: &str) -> Option<u16> {
    let mut words = line
        .split(|c: char| c.is_ascii_whitespace() || c == '=' || c == '"')
        .filter(|word| !word.is_empty());
    let (keyword, value) = (words.next()?, words.next()?);
    match keyword.to_ascii_lowercase().as_str() {
        "port" => value.parse().ok(),
        "listenaddress" => {
            let (address, port) = value.rsplit_once(':')?;
            let is_whole = address.ends_with(']') || !address.contains(':');
            is_whole.then(|| port.parse().ok()).flatten()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    #[test]
    fn ports_are_those_of_sshd_config_and_what_it_includes() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        assert_eq!(ports(&host), [0; 0]);
        host.make_directory(Path::new(INCLUDED), 0o755, None).unwrap();
        let main = "# caf\u{e9}\n#Port 22\n port=2222\nListenAddress 10.0.0.1:2200\nListenAddress [::1]:2201\n\
                    ListenAddress fd00::2202\nListenAddress 10.0.0.2\nPort many\nPermitRootLogin no\n";
        host.write(Path::new(CONFIG), main, 0o644, None).unwrap();
        let more = format!("{INCLUDED}/port.conf");
        host.write(Path::new(&more), "Port \"2022\"\n", 0o644, None).unwrap();
        host.write(Path::new(&format!("{more}.bak")), "Port 1\n", 0o644, None)
            .unwrap();
        assert_eq!(ports(&host), [2022, 2200, 2201, 2222]);
    }
}
