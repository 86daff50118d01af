//! The causes that `explain` tells apart. Their names are for programs and docs/explain.md, which has a row for each.

use serde::{Serialize, Serializer};

/// Declares each cause once, by its variant and its name.
macro_rules! causes {
    ($($variant:ident => $name:literal,)*) => {
        /// Why a call fails.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum Cause { $($variant,)* }

        impl Cause {
            /// All of them, in the order in which a call meets them.
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)*];

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

causes! {
    AgentDown => "agent-down",
    UnknownName => "unknown-name",
    HostsFile => "hosts-file",
    DnsNotCaptured => "dns-not-captured",
    ForeignResolver => "foreign-resolver",
    DnsDown => "dns-down",
    RulesFailed => "rules-failed",
    RulesMissing => "rules-missing",
    RulesDiffer => "rules-differ",
    OwnAddress => "own-address",
    ExcludedAddress => "excluded-address",
    ExcludedPort => "excluded-port",
    ExcludedOwner => "excluded-owner",
    ExcludedInterface => "excluded-interface",
    NotIncluded => "not-included",
    PortNotCaptured => "port-not-captured",
    PastEnvoy => "past-envoy",
    Firewall => "firewall",
    EnvoyDown => "envoy-down",
    EnvoyUnconfigured => "envoy-unconfigured",
    EnvoyDraining => "envoy-draining",
    Nack => "nack",
    WrongPort => "wrong-port",
    NoListener => "no-listener",
    RegistryOnly => "registry-only",
    RouteMissing => "route-missing",
    NoVirtualHost => "no-virtual-host",
    NoRoute => "no-route",
    DirectResponse => "direct-response",
    Redirect => "redirect",
    FaultAbort => "fault-abort",
    FaultDelay => "fault-delay",
    NoCluster => "no-cluster",
    PlaintextToMtls => "plaintext-to-mtls",
    MtlsToPlaintext => "mtls-to-plaintext",
    CertificateMissing => "certificate-missing",
    CertificateExpired => "certificate-expired",
    Clock => "clock",
    CircuitOpen => "circuit-open",
    NoEndpoint => "no-endpoint",
    EndpointsUnhealthy => "endpoints-unhealthy",
    Ejected => "ejected",
    Unreachable => "unreachable",
    PeerCertificate => "peer-certificate",
    StrictPlaintext => "strict-plaintext",
    RbacDenied => "rbac-denied",
    UnknownPort => "unknown-port",
    ContainerDown => "container-down",
    NotListening => "not-listening",
    LoopbackOnly => "loopback-only",
    ProbeFailing => "probe-failing",
    NotListed => "not-listed",
    Timeout => "timeout",
    RateLimited => "rate-limited",
    ExternalAuthorization => "external-authorization",
    PeerReset => "peer-reset",
    CallerGone => "caller-gone",
    ApplicationError => "application-error",
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
