//! Names that the kernel and Docker have for a container's parts.

use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::config::nearest::did_you_mean;
use crate::facts::number::whole;

/// Linux' capabilities (capabilities(7)), and Docker's name for all of them.
const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];
/// The highest number of a signal (signal(7): SIGRTMAX), and how many there are from SIGRTMIN on.
const LAST_SIGNAL: u8 = 64;
const REAL_TIME: u8 = 30;
/// The highest number of a user that Docker takes (moby/sys, user.go).
const LAST_USER: u32 = i32::MAX as u32;

/// The name that Docker has for a capability: `cap_net_raw` is `NET_RAW`.
pub(super) fn capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

/// The reason for which `name` is none of a capability.
pub(super) fn problem_of_capability(name: &str) -> Option<String> {
    let plain = capability(name);
    let hint = did_you_mean(&plain, CAPABILITIES);
    (!CAPABILITIES.contains(&plain.as_str()))
        .then(|| format!("{name:?} is no capability, such as \"NET_RAW\", or \"ALL\"{hint}"))
}

/// True for a signal as Docker takes it: by its number, or by its name with or without SIG.
pub(super) fn is_signal(signal: &str) -> bool {
    let name = signal.strip_prefix("SIG").unwrap_or(signal);
    let is_real_time = |from: &str, sign: char| match name.strip_prefix(from) {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix(sign)
            .and_then(whole)
            .is_some_and(|number: u8| number <= REAL_TIME),
        None => false,
    };
    whole(signal).is_some_and(|number: u8| (1..=LAST_SIGNAL).contains(&number))
        || Signal::from_str(&format!("SIG{name}")).is_ok()
        || is_real_time("RTMIN", '+')
        || is_real_time("RTMAX", '-')
}

/// True for `USER[:GROUP]`, each by number or by the name that the image's files have for it.
pub(super) fn is_user(user: &str) -> bool {
    let is_name = |name: &str| match name.bytes().all(|byte| byte.is_ascii_digit()) {
        true => whole(name).is_some_and(|number: u32| number <= LAST_USER),
        false => !name.starts_with(['+', '-']) && !name.contains(|c: char| c.is_whitespace() || ":/,\0".contains(c)),
    };
    match user.split_once(':') {
        Some((user, group)) => is_name(user) && is_name(group),
        None => is_name(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_signals_and_users_are_docker_s() {
        for signal in ["SIGTERM", "KILL", "9", "64", "SIGRTMIN", "SIGRTMIN+3", "RTMAX-30"] {
            assert!(is_signal(signal), "{signal}");
        }
        for signal in [
            "",
            "SIG",
            "SIGFOO",
            "sigterm",
            "0",
            "65",
            "+9",
            "09",
            "SIGRTMIN-1",
            "SIGRTMAX-31",
            "９",
        ] {
            assert!(!is_signal(signal), "{signal}");
        }
        for user in ["0", "www-data", "1000:1000", "2147483647", "_apt:nogroup"] {
            assert!(is_user(user), "{user}");
        }
        for user in ["", ":", "1:", "a:b:c", "a b", "-1", "+1000", "01000", "2147483648"] {
            assert!(!is_user(user), "{user}");
        }
        assert!(problem_of_capability("cap_net_raw").is_none());
        assert!(
            problem_of_capability("NET_RWA")
                .unwrap()
                .contains("did you mean \"NET_RAW\"?")
        );
    }
}
