//! Addresses that peers in a mesh can call.

use std::net::{IpAddr, Ipv4Addr};

/// Checks that other hosts can call `ip`; the error says why they can't, and what to write.
pub(crate) fn check(ip: IpAddr) -> Result<(), String> {
    let kind = match ip.to_canonical() {
        ip if ip.is_loopback() => "a loopback address: each caller would call itself",
        ip if ip.is_unspecified() => "no address at all",
        ip if ip.is_multicast() => "a multicast address",
        IpAddr::V4(ip) if ip == Ipv4Addr::BROADCAST => "the broadcast address",
        IpAddr::V4(ip) if ip.octets()[0] == 0 => "an address of \"this network\"",
        IpAddr::V4(ip) if ip.is_link_local() => "a link-local address",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => "a link-local address",
        // ::/96, of which Envoy calls the application from ::6.
        IpAddr::V6(ip) if ip.to_ipv4().is_some() => "a reserved address",
        canonical if canonical != ip => "an IPv4 address in the form of IPv6, which peers don't know it by",
        _ => return Ok(()),
    };
    Err(format!(
        "is {kind}; write the address of this VM that peers call, such as \"10.200.0.3\", or leave it out for that of \
         the route to the control plane"
    ))
}

/// True for an address that a cloud may map to one of the VM's own, so that no interface need have it.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(ip.is_private() || ip.is_documentation() || is_shared) && check(ip.into()).is_ok()
        }
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000 && ip.segments()[..2] != [0x2001, 0xdb8],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_of_calls_to_the_application_is_no_address_of_the_vm() {
        assert!(check("::6".parse().unwrap()).is_err());
        assert!(check("fd00::6".parse().unwrap()).is_ok());
    }

    #[test]
    fn addresses_that_a_cloud_maps_are_told_from_those_of_a_network() {
        for (ip, public) in [
            ("34.1.2.3", true),
            ("2600:1900::1", true),
            ("10.0.0.3", false),
            ("100.64.0.1", false),
            ("192.0.2.7", false),
            ("2001:db8::1", false),
            ("fd00::1", false),
            ("::ffff:10.0.0.3", false),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
    }
}
