//! The events of the host as they are documented: docs/host-events.md is made of this.

use super::{Documented, HostEvent};

/// Every event, in the order of the enum.
pub(super) const TABLE: [Documented; 22] = [
    Documented {
        kind: HostEvent::AddressChanged,
        code: "address-changed",
        event: "The address that peers call is another one: DHCP, another network, another interface's route",
        reaction: "istiod is told that the VM at the old address is unhealthy; another Envoy, with the new address, takes \
                 over and registers it. Where the old address could say no last word, istiod finds its stream dead and takes \
                 it out within a minute, until when a WorkloadGroup without a probe has callers sent there",
        time: "0.9 s; 4.6 s when it moves a second time within 5 s",
    },
    Documented {
        kind: HostEvent::AddressAdded,
        code: "address-added",
        event: "An address that peers don't call comes",
        reaction: "None: peers call the first address, by the route to istiod",
        time: "told within 0.1 s",
    },
    Documented {
        kind: HostEvent::AddressRemoved,
        code: "address-removed",
        event: "An address that peers don't call goes",
        reaction: "None; a stream to istiod from it is opened anew from another address",
        time: "told within 0.3 s",
    },
    Documented {
        kind: HostEvent::AddressMissing,
        code: "address-missing",
        event: "The address that peers call is on no interface, and no other one can take its place; or it is fixed by \
                 `network.address`",
        reaction: "The last membership serves on; it is looked for again at every change of the network",
        time: "told within 0.2 s",
    },
    Documented {
        kind: HostEvent::LinkDown,
        code: "link-down",
        event: "An interface goes down, or loses its carrier",
        reaction: "istiod is tried over what is left; Envoy, rules and container stay",
        time: "told within 0.2 s",
    },
    Documented {
        kind: HostEvent::LinkUp,
        code: "link-up",
        event: "An interface comes up",
        reaction: "istiod is connected to again, and the VM's address determined again",
        time: "1.0 s until calls are answered",
    },
    Documented {
        kind: HostEvent::RouteLost,
        code: "route-lost",
        event: "The default route goes",
        reaction: "None: what is reached by other routes is served on",
        time: "told within 0.2 s",
    },
    Documented {
        kind: HostEvent::RouteBack,
        code: "route-back",
        event: "A default route comes back",
        reaction: "The VM's address is determined again",
        time: "told within 0.3 s",
    },
    Documented {
        kind: HostEvent::ResolversChanged,
        code: "resolvers-changed",
        event: "/etc/resolv.conf is replaced: by DHCP, systemd-resolved, a VPN, a person",
        reaction: "The rules capture queries to the new servers; what the mesh doesn't know is asked there from the next \
                 query on",
        time: "up to 5 s",
    },
    Documented {
        kind: HostEvent::ClockStepped,
        code: "clock-stepped",
        event: "The wall clock is set, by a second or a month, forward or back",
        reaction: "The certificate is judged by the new time, and renewed when that is due or it isn't valid",
        time: "told as soon as the kernel tells of it (a timer with `TFD_TIMER_CANCEL_ON_SET`), and by a look every 5 s where it doesn't",
    },
    Documented {
        kind: HostEvent::Resumed,
        code: "resumed",
        event: "The machine wakes from a suspension, of a second or a day",
        reaction: "The certificate is judged by the wall clock and renewed when due; the stream to istiod, which may have \
                 ended long ago, is opened anew",
        time: "told as soon as the kernel tells of it (a timer with `TFD_TIMER_CANCEL_ON_SET`), and by a look every 5 s where it doesn't",
    },
    Documented {
        kind: HostEvent::ContainerDown,
        code: "container-down",
        event: "The application's container ends; dockerd is restarted, killed or upgraded",
        reaction: "Without live-restore the container is started again as soon as dockerd answers; with it the container \
                 serves on, and is found again",
        time: "100 ms after dockerd answers",
    },
    Documented {
        kind: HostEvent::RulesRepaired,
        code: "rules-repaired",
        event: "firewalld or ufw is reloaded, `nft flush ruleset`, `iptables -F`",
        reaction: "A second table, which nobody else can change, drops what would pass Envoy; the rules are put back",
        time: "0.1 s with nf_tables, up to 5 s with iptables-legacy",
    },
    Documented {
        kind: HostEvent::HostsRepaired,
        code: "hosts-repaired",
        event: "/etc/hosts is replaced",
        reaction: "The agent's block is put back; the agent itself finds istiod without",
        time: "0.1 s, then once a second",
    },
    Documented {
        kind: HostEvent::DiskFull,
        code: "disk-full",
        event: "The file system of `paths.state` or `paths.run` has less than 16 MB left",
        reaction: "A certificate serves from memory; the last snapshot and membership stay as they are on the disk; each write \
                 is tried again",
        time: "told within 10 s",
    },
    Documented {
        kind: HostEvent::MemoryPressure,
        code: "memory-pressure",
        event: "All programs of the VM wait for memory a tenth of the time (PSI)",
        reaction: "Told, because what follows looks like a slow network. An agent that the kernel kills is started again and \
                 adopts all",
        time: "told within 10 s",
    },
    Documented {
        kind: HostEvent::DescriptorsShort,
        code: "descriptors-short",
        event: "The agent has nine tenths of the descriptors that it may have",
        reaction: "Told; whoever comes waits in the listeners' queues, and those who have a place are served on",
        time: "told within 10 s",
    },
    Documented {
        kind: HostEvent::CertificateExpired,
        code: "certificate-expired",
        event: "The certificate ended while the VM was off",
        reaction: "Another one is asked for, with a token",
        time: "at the start",
    },
    Documented {
        kind: HostEvent::RootsChanged,
        code: "roots-changed",
        event: "The mesh's roots were replaced, also while the VM was off",
        reaction: "Those of the bundle, of the CA's last answer and of the stored identity are trusted together; a certificate \
                 of the old ones is renewed",
        time: "at once",
    },
    Documented {
        kind: HostEvent::MachineChanged,
        code: "machine-changed",
        event: "/etc/machine-id, or the firmware's UUID, is another one: the disk is a clone",
        reaction: "The other machine's key, certificate, membership and snapshot are left alone: this VM joins with its own",
        time: "at the start",
    },
    Documented {
        kind: HostEvent::Preempted,
        code: "preempted",
        event: "Google takes a Spot VM away (`instance/preempted`)",
        reaction: "The VM leaves the mesh as on SIGTERM, in haste 12 s after the notice, and stays out: the agent ends with 75, \
                   and the units that go with it are stopped",
        time: "3.3 s until the VM is out, at most 25 s",
    },
    Documented {
        kind: HostEvent::Maintenance,
        code: "maintenance",
        event: "Google is about to migrate the VM, or to stop it (`instance/maintenance-event`)",
        reaction: "Told. A migration freezes the VM for less than a second; a stop comes as a shutdown, on which the VM leaves",
        time: "told within 0.1 s",
    },
];
