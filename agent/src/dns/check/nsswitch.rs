//! nsswitch.conf(5): programs that ask for names without a DNS query, which nothing can capture.

use std::path::Path;

use crate::host::{Host, Read};
use crate::part::{Finding, Level, Subject};

const PATH: &str = "/etc/nsswitch.conf";
const MAX_BYTES: usize = 64 << 10;
/// systemd's module speaks to systemd-resolved by a socket of its own (nss-resolve(8)), and resolved asks the servers of
/// its links: neither query is for an address that resolv.conf names.
const RESOLVE: &str = "resolve";

pub(super) fn finding(subject: Subject, host: &Host) -> Finding {
    match host.read_bytes(Path::new(PATH), Read::max(MAX_BYTES).following_links()) {
        Ok(bytes) => judge(subject, &String::from_utf8_lossy(&bytes.unwrap_or_default())),
        Err(error) => subject.skipped(error.to_string()),
    }
}

/// True where programs ask systemd-resolved past DNS.
pub(in crate::dns) fn is_passed_by(host: &Host) -> bool {
    finding(Subject::new("IVA702", "nsswitch"), host).level == Level::Warning
}

pub(in crate::dns) fn judge(subject: Subject, text: &str) -> Finding {
    let Some(line) = text.lines().find_map(|line| line.trim_start().strip_prefix("hosts:")) else {
        return subject.ok(format!("{PATH} leaves names to DNS"));
    };
    let services: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
    match services.iter().position(|service| *service == RESOLVE) {
        None => subject.ok(format!("names come by: {}", services.join(" "))),
        Some(at) if services[..at].contains(&"dns") => subject.ok(format!("DNS comes before {RESOLVE}")),
        Some(_) => subject.warning(
            "programs ask systemd-resolved past DNS (nss-resolve), so they never learn the mesh's names",
            format!("sed -i -E '/^hosts:/{{s/ resolve( \\[[^]]*\\])*//;/ dns/!s/$/ dns/}}' {PATH}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::host::System;

    const SUBJECT: Subject = Subject::new("IVA702", "nsswitch");

    #[test]
    fn module_of_systemd_resolved_is_named_and_the_fix_takes_it_out() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let file = root.path().join("etc/nsswitch.conf");
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let before = "passwd: files\nhosts:          files mymachines resolve [!UNAVAIL=return] myhostname dns # x\n";
        for text in [
            before,
            "hosts: files resolve\n",
            "hosts: resolve [!UNAVAIL=return] files\n",
        ] {
            std::fs::write(&file, text).unwrap();
            let found = finding(SUBJECT, &host);
            assert_eq!(found.level, Level::Warning, "{text}");
            let fix = found.fix.unwrap().replace(PATH, &file.display().to_string());
            assert!(Command::new("sh").args(["-c", &fix]).status().unwrap().success());
            assert_eq!(finding(SUBJECT, &host).level, Level::Ok, "{fix}");
            assert!(std::fs::read_to_string(&file).unwrap().contains(" dns"), "{text}");
        }
    }

    #[test]
    fn names_that_come_by_dns_are_fine() {
        for text in [
            "",
            "hosts: files dns\n",
            "hosts: files dns resolve\n",
            "#hosts: resolve\nhosts: files dns\n",
        ] {
            assert_eq!(judge(SUBJECT, text).level, Level::Ok, "{text}");
        }
    }
}
