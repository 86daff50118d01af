//! A call of this VM, as Envoy sees it. Pure.

use std::net::IpAddr;

/// A call of this VM, as Envoy sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) host: &'a str,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) path: Option<&'a str>,
    /// Headers of the request, where they are told.
    pub(super) headers: &'a [(String, String)],
    /// Full name of the mesh's service that has the address.
    pub(super) service: Option<&'a str>,
}
