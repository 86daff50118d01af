//! The resolvers of this machine. Pure.

use std::net::IpAddr;

/// More than any resolver library asks; a longer list is not one that a person made.
const MOST: usize = 16;

/// The `nameserver`s of a resolv.conf, each once, in order; a line that names none is passed over, as the C
/// library does.
pub(super) fn nameservers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // Without the interface of a link-local address, which a destination on the wire doesn't have.
        let address = words.next().and_then(|word| word.split('%').next()?.parse().ok());
        if let Some(address) = address
            && !servers.contains(&address)
            && servers.len() < MOST
        {
            servers.push(address);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_once_and_nothing_else() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 169.254.169.254\n  nameserver\tfe80::1%eth0 # x\n\
                    nameserver 169.254.169.254\nnameserver nonsense\nnameserver\n";
        let expected: Vec<IpAddr> = vec!["169.254.169.254".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(nameservers(text), expected);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "(nameserver |\n|\\PC){0,60}") {
            assert!(nameservers(&text).len() <= MOST);
        }
    }
}
