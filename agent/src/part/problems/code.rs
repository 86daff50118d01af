//! The kinds of problems, by which programs and the manual know them.

/// Kind of a problem. The order is that of causes: an earlier one may be why there is a later one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Code {
    /// No agent answers.
    AgentDown,
    /// The VM leaves the mesh.
    Leaving,
    /// The join source doesn't answer, or is followed no more.
    JoinSource,
    /// The VM's clock is before the certificate's time.
    Clock,
    /// istiod can't be reached.
    IstiodUnreachable,
    /// There is no certificate yet.
    CertificateMissing,
    /// The certificate is over.
    CertificateExpired,
    /// The certificate is not renewed in time.
    CertificateRenewal,
    /// Envoy's stream to the agent is not open, by which istiod is asked.
    EnvoyStream,
    /// istiod was not asked yet.
    IstiodPending,
    /// Envoy is not started: it waits, or its program is fetched.
    EnvoyWaiting,
    /// Envoy ended, or is stuck.
    EnvoyDown,
    /// Envoy refused a configuration of istiod's that only Istio's build of Envoy takes.
    EnvoyExtensions,
    /// Envoy refused a configuration of istiod's.
    EnvoyRefused,
    /// Envoy has no configuration yet.
    EnvoyUnconfigured,
    /// Envoy is being drained.
    EnvoyDraining,
    /// There is no name table yet.
    NamesMissing,
    /// The rules can't be put in.
    RulesFailed,
    /// The rules are out, as the operator wants while Envoy is down.
    RulesOpen,
    /// The rules wait for Envoy.
    RulesWaiting,
    /// Another program's firewall drops what calls need.
    FirewallClosed,
    /// The container can't run.
    ContainerFailed,
    /// The container is not started yet.
    ContainerWaiting,
    /// The container runs and serves nobody: it is paused, or its HEALTHCHECK fails.
    ContainerUnwell,
    /// The application's systemd service doesn't run.
    ServiceFailed,
    /// The application's systemd service is not started yet.
    ServiceWaiting,
    /// Places that name ports of the application don't agree.
    PortsDisagree,
    /// The application fails its probe.
    ProbeFailing,
    /// The application was not judged yet.
    ProbePending,
    /// Another Envoy is wanted and does not get ready.
    EnvoySuccessor,
    /// The configured Envoy is not here or never serves, and an earlier one does.
    EnvoyEarlier,
    /// Another container is wanted, and the one before it runs.
    ContainerSuccessor,
    /// Envoy's configuration is not kept for a start without istiod.
    Snapshot,
    /// istiod's names are not in /etc/hosts.
    HostsFile,
    /// The application is open to other containers on its bridge.
    BridgeOpen,
    /// Somebody has a port on which containers' queries come.
    DnsPort,
    /// The page of metrics lacks something of the application or of Envoy.
    MetricsMissing,
    /// A configuration was refused, and the one before it serves.
    ReloadRefused,
    /// An upgrade of the package was taken back, and the version before it serves.
    UpgradeRolledBack,
}

impl Code {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AgentDown,
        Self::Leaving,
        Self::JoinSource,
        Self::Clock,
        Self::IstiodUnreachable,
        Self::CertificateMissing,
        Self::CertificateExpired,
        Self::CertificateRenewal,
        Self::EnvoyStream,
        Self::IstiodPending,
        Self::EnvoyWaiting,
        Self::EnvoyDown,
        Self::EnvoyExtensions,
        Self::EnvoyRefused,
        Self::EnvoyUnconfigured,
        Self::EnvoyDraining,
        Self::NamesMissing,
        Self::RulesFailed,
        Self::RulesOpen,
        Self::RulesWaiting,
        Self::FirewallClosed,
        Self::ContainerFailed,
        Self::ContainerWaiting,
        Self::ContainerUnwell,
        Self::ServiceFailed,
        Self::ServiceWaiting,
        Self::PortsDisagree,
        Self::ProbeFailing,
        Self::ProbePending,
        Self::EnvoySuccessor,
        Self::EnvoyEarlier,
        Self::ContainerSuccessor,
        Self::Snapshot,
        Self::HostsFile,
        Self::BridgeOpen,
        Self::DnsPort,
        Self::MetricsMissing,
        Self::ReloadRefused,
        Self::UpgradeRolledBack,
    ];

    /// The code in documents; it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentDown => "agent-down",
            Self::Leaving => "leaving",
            Self::JoinSource => "join-source",
            Self::Clock => "clock",
            Self::IstiodUnreachable => "istiod-unreachable",
            Self::CertificateMissing => "certificate-missing",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateRenewal => "certificate-renewal",
            Self::IstiodPending => "istiod-pending",
            Self::EnvoyWaiting => "envoy-waiting",
            Self::EnvoyDown => "envoy-down",
            Self::EnvoyUnconfigured => "envoy-unconfigured",
            Self::EnvoyDraining => "envoy-draining",
            Self::EnvoyStream => "envoy-stream",
            Self::NamesMissing => "names-missing",
            Self::RulesFailed => "rules-failed",
            Self::RulesOpen => "rules-open",
            Self::RulesWaiting => "rules-waiting",
            Self::FirewallClosed => "firewall-closed",
            Self::ContainerFailed => "container-failed",
            Self::ContainerWaiting => "container-waiting",
            Self::ContainerUnwell => "container-unwell",
            Self::ServiceFailed => "service-failed",
            Self::ServiceWaiting => "service-waiting",
            Self::PortsDisagree => "ports-disagree",
            Self::ProbeFailing => "probe-failing",
            Self::ProbePending => "probe-pending",
            Self::EnvoyExtensions => "envoy-extensions",
            Self::EnvoyRefused => "envoy-refused",
            Self::EnvoySuccessor => "envoy-successor",
            Self::EnvoyEarlier => "envoy-earlier",
            Self::ContainerSuccessor => "container-successor",
            Self::Snapshot => "snapshot",
            Self::HostsFile => "hosts-file",
            Self::BridgeOpen => "bridge-open",
            Self::DnsPort => "dns-port",
            Self::MetricsMissing => "metrics-missing",
            Self::ReloadRefused => "reload-refused",
            Self::UpgradeRolledBack => "upgrade-rolled-back",
        }
    }

    /// The first thing to do about it.
    #[expect(clippy::too_many_lines, reason = "a line a code")]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::AgentDown => {
                "`istio-vm-agent check` says what keeps it from serving, `journalctl -u istio-vm-agent` how it ended; then \
                 `systemctl start istio-vm-agent`"
            }
            Self::JoinSource => "`istio-vm-agent check` asks the source, as the agent does, and names what it lacks",
            Self::Clock => {
                "`timedatectl set-ntp true` has the VM's clock set, `timedatectl` says whether it is synchronized"
            }
            Self::IstiodUnreachable => {
                "`istio-vm-agent check` tries each control plane: route, port 15012, name, roots"
            }
            Self::CertificateMissing | Self::CertificateExpired | Self::CertificateRenewal => {
                "`istio-vm-agent check` asks the CA, and names what is wrong with the token"
            }
            Self::IstiodPending
            | Self::EnvoyWaiting
            | Self::RulesWaiting
            | Self::ContainerWaiting
            | Self::ServiceWaiting => "wait: it goes on by itself once what it waits for is there",
            Self::EnvoyDown => {
                "`journalctl -u istio-vm-agent TARGET=envoy` has Envoy's last words; one that ended is started again by \
                 itself"
            }
            Self::EnvoyUnconfigured => {
                "wait for istiod's first push; `istioctl proxy-status` shows whether it makes one"
            }
            Self::Leaving | Self::EnvoyDraining => "wait: the agent leaves the mesh",
            Self::EnvoyStream => {
                "`journalctl -u istio-vm-agent TARGET=envoy` says why Envoy does not connect, within a minute"
            }
            Self::NamesMissing => "wait for istiod's first push; with dns_capture = false no names are wanted",
            Self::RulesFailed => "`istio-vm-agent check` tries the rules; `istio-vm-agent plan` shows them",
            Self::RulesOpen => "mend Envoy; [intercept] on_envoy_down chooses what becomes of traffic until then",
            Self::FirewallClosed => "run the command that the line ends with; `check --only IVA602` looks again",
            Self::ContainerFailed => {
                "`istio-vm-agent check` asks dockerd and the registry; of a container that ended `docker logs` has the last words"
            }
            Self::ContainerUnwell => "do what the line says; `docker inspect` has the HEALTHCHECK's last words",
            Self::ServiceFailed => {
                "`istio-vm-agent check --only IVA806` looks at the unit; the `journalctl` of the line has the service's last words"
            }
            Self::PortsDisagree => {
                "have both places that the line names say the same; `istio-vm-agent check` compares them"
            }
            Self::ProbeFailing => "look at the application: the probe's own words are above",
            Self::ProbePending => "wait for the probe's first results",
            Self::EnvoyExtensions => {
                "have envoy.image name Istio's proxyv2 of istiod's release, or switch those filters off in istiod \
                 (README, Troubleshooting); then `systemctl reload istio-vm-agent`"
            }
            Self::EnvoyRefused => {
                "mend the Istio resource that the refusal names; where it can't bind, end the program that has the port \
                 (`ss -tlnp`), then `istio-vm-agent reload`"
            }
            Self::EnvoySuccessor => "mend what the line names, then `systemctl reload istio-vm-agent`",
            Self::EnvoyEarlier => {
                "mend the [envoy] source that the line names, then `systemctl reload istio-vm-agent`; one that can't be fetched is \
                 tried again by itself"
            }
            Self::ContainerSuccessor => {
                "mend what the line names, then `systemctl reload istio-vm-agent`; calls go to the one before meanwhile"
            }
            Self::Snapshot => "mend what the line names; a start without istiod has no configuration meanwhile",
            Self::HostsFile => "`istio-vm-agent check --only IVA704` prints what makes /etc/hosts writable",
            Self::BridgeOpen => "`istio-vm-agent check --only IVA606` prints what closes it",
            Self::DnsPort => "end what has it (`ss -lntup sport = :15053`), then `systemctl restart istio-vm-agent`",
            Self::MetricsMissing => "mend what the line names; Prometheus has the rest of the page meanwhile",
            Self::ReloadRefused => {
                "mend the configuration (`istio-vm-agent config validate` names all of it), then `systemctl reload istio-vm-agent`"
            }
            Self::UpgradeRolledBack => "install a version that serves: `apt install istio-vm-agent=VERSION`",
        }
    }

    /// The code of that name; `None` for one of another version of the agent.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// True when a problem of this kind is in what the application does, and not in what the agent does for it.
    pub fn is_the_applications(self) -> bool {
        matches!(
            self,
            Self::ContainerFailed
                | Self::ContainerUnwell
                | Self::ServiceFailed
                | Self::PortsDisagree
                | Self::ProbeFailing
                | Self::ProbePending
        )
    }

    /// True when a problem of this kind, though it may keep no VM from serving, is the cause of one of that kind.
    pub(super) fn explains(self, effect: Self) -> bool {
        let effects: &[Self] = match self {
            Self::IstiodUnreachable => &[
                Self::CertificateMissing,
                Self::CertificateExpired,
                Self::CertificateRenewal,
                Self::EnvoyUnconfigured,
                Self::NamesMissing,
            ],
            Self::EnvoyStream => &[Self::IstiodPending, Self::NamesMissing],
            Self::EnvoyExtensions | Self::EnvoyRefused => &[Self::EnvoyUnconfigured],
            Self::EnvoyWaiting | Self::EnvoyDown | Self::EnvoyUnconfigured => &[
                Self::RulesWaiting,
                Self::RulesOpen,
                Self::ContainerWaiting,
                Self::ServiceWaiting,
            ],
            _ => &[],
        };
        effects.contains(&effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_all_listed_once_and_found_by_their_names() {
        assert!(Code::ALL.is_sorted_by(|one, next| one < next));
        for code in Code::ALL {
            assert_eq!(Code::named(code.name()), Some(*code));
        }
        assert_eq!(Code::named("of-tomorrow"), None);
        assert_eq!(Code::ALL.last(), Some(&Code::UpgradeRolledBack));
    }

    #[test]
    fn manual_has_every_code() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/man/istio-vm-agent.8");
        let manual = std::fs::read_to_string(path).unwrap();
        for code in Code::ALL {
            let item = format!("\n.It Li {}\n", code.name());
            assert!(manual.contains(&item), "the manual has no {}", code.name());
        }
    }

    #[test]
    fn no_cause_is_explained_by_its_own_effect() {
        for cause in Code::ALL {
            for effect in Code::ALL {
                assert!(
                    !(cause.explains(*effect) && effect <= cause),
                    "{cause:?} and {effect:?} go round"
                );
            }
        }
    }
}
