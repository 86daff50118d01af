//! Names of hosts, as configurations write them.

use std::net::{IpAddr, Ipv4Addr};

/// The longest name, and the longest part of one (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;
const LONGEST_LABEL: usize = 63;

/// True for a name that DNS could know: one word of one line in /etc/hosts, too. Underscores are in names that people use;
/// one that ends with a number is meant as an address (RFC 3696, section 2).
pub(crate) fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= LONGEST && name.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// True for the address of one machine, which may be this one.
pub(crate) fn is_of_a_machine(ip: IpAddr) -> bool {
    !(ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_name_has_labels_that_dns_could_know() {
        let long = "a".repeat(LONGEST_LABEL);
        let longest = [long.as_str(); 4].join(".");
        for name in [
            "istiod.istio-system.svc",
            "LB-1.example",
            "my_host",
            "1.2.3.4.example",
            "xn--bcher-kva",
            &long,
        ] {
            assert!(is_host_name(name), "{name}");
        }
        let too_long = format!("{long}a");
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a.-b",
            "bücher",
            "a b",
            "a:1",
            "1",
            "1.2.3",
            "256.0.0.1",
            "a\n",
            &too_long,
            &longest,
        ] {
            assert!(!is_host_name(name), "{name}");
        }
    }
}
