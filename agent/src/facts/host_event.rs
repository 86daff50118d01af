//! Events of the host that the agent reacts to, by the code that their lines in the log have.

mod table;

/// An event of the host. Each line of the log about one has its code in the field `code`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostEvent {
    /// The address that peers call is another one.
    AddressChanged,
    /// An address that peers don't call came.
    AddressAdded,
    /// An address that peers don't call went.
    AddressRemoved,
    /// The address that peers call is on no interface.
    AddressMissing,
    /// An interface went down.
    LinkDown,
    /// An interface came up.
    LinkUp,
    /// There is no default route any more.
    RouteLost,
    /// There is a default route again.
    RouteBack,
    /// The VM's name servers are others.
    ResolversChanged,
    /// Somebody set the wall clock.
    ClockStepped,
    /// The machine slept.
    Resumed,
    /// The application's container, or dockerd, ended.
    ContainerDown,
    /// Somebody took out, or changed, the agent's rules.
    RulesRepaired,
    /// Somebody took the agent's lines out of /etc/hosts.
    HostsRepaired,
    /// The state directory's or the run directory's file system has no room.
    DiskFull,
    /// The VM's programs wait for memory.
    MemoryPressure,
    /// The agent is about to have all descriptors that it may have.
    DescriptorsShort,
    /// The certificate ended while the VM was away.
    CertificateExpired,
    /// The mesh's roots are others.
    RootsChanged,
    /// The disk is a copy of another machine's.
    MachineChanged,
    /// The cloud takes the VM away.
    Preempted,
    /// The cloud is about to work on the VM's host.
    Maintenance,
}

/// The documentation of an event.
#[derive(Clone, Copy, Debug)]
pub struct Documented {
    /// The event.
    pub kind: HostEvent,
    /// The code; it never changes.
    pub code: &'static str,
    /// The event for people, with what may cause it.
    pub event: &'static str,
    /// The agent's reaction.
    pub reaction: &'static str,
    /// Time from the event to the end of the reaction.
    pub time: &'static str,
}

impl HostEvent {
    /// The documentation of all events.
    pub fn all() -> &'static [Documented] {
        &table::TABLE
    }

    /// The code in the log.
    pub fn code(self) -> &'static str {
        let known = table::TABLE.iter().find(|known| known.kind == self);
        known.map_or("", |known| known.code)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn events_are_all_documented_once_each_with_a_code_of_its_own() {
        assert!(
            HostEvent::all()
                .iter()
                .map(|row| row.kind as usize)
                .eq(0..=HostEvent::Maintenance as usize)
        );
        let codes: BTreeSet<_> = HostEvent::all().iter().map(|row| row.code).collect();
        assert_eq!(codes.len(), HostEvent::all().len());
    }
}
