//! Lists of ports, as cluster.env has them.

use std::collections::BTreeSet;

use crate::facts::number;

/// Ports that istioctl writes to ISTIO_LOCAL_EXCLUDE_PORTS: ssh and the mesh's own stay reachable.
pub(super) const DEFAULT_EXCLUDED: [u16; 4] = [22, 15090, 15021, 15020];

/// Ports between commas, in their order, each once; nothing is no port.
pub(super) fn parse(list: &str) -> Result<Vec<u16>, String> {
    let (mut ports, mut known) = (Vec::new(), BTreeSet::new());
    for item in list.split(',').map(str::trim).filter(|_| !list.trim().is_empty()) {
        let port = number::port(item)
            .ok_or_else(|| format!("{item:?} is not a port from 1 to 65535: write ports with commas between"))?;
        if known.insert(port) {
            ports.push(port);
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_lists_keep_their_order_and_name_what_is_no_port() {
        assert_eq!(parse("8080, 22,8080"), Ok(vec![8080, 22]));
        assert_eq!(parse(" "), Ok(vec![]));
        for (list, wrong) in [
            ("1,,2", "\"\""),
            ("1,0", "\"0\""),
            ("65536", "\"65536\""),
            ("+80", "\"+80\""),
            ("080", "\"080\""),
            ("80:90", "\"80:90\""),
        ] {
            assert!(parse(list).unwrap_err().starts_with(wrong), "{list}");
        }
    }
}
