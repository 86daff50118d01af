//! Ports and ids that Istio fixes (istio.io "Ports used by Istio"; istio/pkg/config/constants).

/// Envoy's outbound listener (virtualOutbound).
pub const OUTBOUND: u16 = 15001;
/// Envoy's inbound listener (virtualInbound).
pub const INBOUND: u16 = 15006;
/// Envoy's listener for the published ports of a container on a bridge; ours, a number that Istio leaves free.
pub const CONTAINER: u16 = 15007;
/// HBONE; never redirected.
pub const HBONE: u16 = 15008;
/// The agent: readiness.
pub const STATUS: u16 = 15020;
/// Envoy: readiness, forwarded to the agent.
pub const READINESS: u16 = 15021;
/// The agent: DNS.
pub const DNS: u16 = 15053;
/// Envoy: metrics.
pub const ENVOY_METRICS: u16 = 15090;
/// sshd's, which is never redirected, so that nobody is locked out.
pub const SSH: u16 = 22;
/// User id of Envoy, `istio-proxy`.
pub const PROXY_UID: u32 = 1337;
/// Group id of Envoy and of the agent: what leaves with it is never redirected to Envoy.
pub const PROXY_GID: u32 = 1337;
/// Source address of what Envoy, and our probes, send to the application: never redirected again.
pub const INBOUND_PASSTHROUGH: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 6);

/// The mesh's own ports on the VM, which no application has.
const OWN: [u16; 7] = [OUTBOUND, INBOUND, CONTAINER, STATUS, READINESS, DNS, ENVOY_METRICS];

/// Checks that `port` is none of the mesh's own; the error says what to do.
pub(crate) fn check_free(port: u16) -> Result<(), String> {
    match port {
        0 => Err("port 0 is none: a port is from 1 to 65535".to_owned()),
        port if OWN.contains(&port) => Err(format!(
            "port {port} is the mesh's own on this VM (as are {}): take another one",
            OWN.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
        )),
        _ => Ok(()),
    }
}
