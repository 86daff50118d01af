//! The machine itself: rights, user, clock, disk, limits, and Istio's own agent.

use std::path::Path;

use nix::unistd::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

use crate::cli::root;
use crate::config::{EnvoySource, PathsConfig, ports};
use crate::host::{Host, Invocation, Read, blocking};
use crate::part::{CheckContext, Finding, Question, Site, Subject};
use crate::sidecar;

const PRIVILEGES: Subject = Subject::new("IVA101", "privileges");
pub(super) const CLOCK: Subject = Subject::new("IVA102", "clock");
const DISK: Subject = Subject::new("IVA105", "disk");
const LIMITS: Subject = Subject::new("IVA106", "limits");
const SIDECAR: Subject = Subject::new("IVA109", "istio-sidecar");
const USER: Subject = Subject::new("IVA110", "user");
const DIRECTORIES: Subject = Subject::new("IVA112", "directories");

/// Subjects that a switch from Istio's own agent puts right by itself.
pub(super) const THEIRS: [Subject; 2] = [SIDECAR, USER];
/// Remedy for a clock that is wrong.
pub(super) const SET_THE_CLOCK: &str = "timedatectl set-ntp true, with systemd-timesyncd or chrony installed";
/// LimitNOFILE= of the units.
const OPEN_FILES: u64 = 1 << 20;
/// Certificates, cached membership and room for their successors, in bytes.
const STATE_BYTES: u64 = 16 << 20;
/// Sockets, Envoy's bootstrap and the name table of a large mesh, in bytes.
const RUN_BYTES: u64 = 4 << 20;
/// Istio's Envoy, unpacked beside its archive, in bytes.
const ENVOY_BYTES: u64 = 512 << 20;

const PASSWD: &str = "/etc/passwd";
/// Longest /etc/passwd that is read, in bytes.
const MAX_PASSWD: usize = 4 << 20;

/// Questions that need no configuration.
pub(super) fn questions(host: &Host) -> Vec<Question> {
    let look = |subject: Subject, look: fn(&Host) -> Finding| {
        let host = host.clone();
        Question::new(subject, async move {
            let found = blocking(move || Ok(look(&host))).await;
            [found.unwrap_or_else(|error| subject.skipped(format!("{error:#}")))]
        })
    };
    vec![
        look(PRIVILEGES, |_| privileges()),
        look(LIMITS, limits),
        look(SIDECAR, sidecar),
        look(USER, user),
    ]
}

pub(super) fn questions_of_site(context: &CheckContext) -> Vec<Question> {
    vec![
        Question::look(DISK, context, |site| [disk(site)]),
        Question::look(DIRECTORIES, context, |site| {
            [directories(&site.host, &site.config.paths)]
        }),
        Question::look(SIDECAR, context, interrupted_switch),
    ]
}

fn privileges() -> Finding {
    let wanted = CapabilitySet::NET_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN;
    match capabilities(None) {
        Ok(sets) if sets.effective.contains(wanted) => PRIVILEGES.ok("all needed capabilities are there"),
        Ok(sets) => {
            let missing = wanted.difference(sets.effective);
            let names: Vec<String> = missing.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
            let fix = match geteuid().is_root() {
                true => format!(
                    "give root those: a unit by CapabilityBoundingSet={0}, a container by `docker run --cap-add={1}`",
                    names.join(" "),
                    names.join(" --cap-add=")
                ),
                false => format!("run as root: {}", root::command()),
            };
            PRIVILEGES.failed(format!("missing {}", names.join(", ")), fix)
        }
        Err(error) => PRIVILEGES.skipped(format!("failed to read this process's capabilities: {error}")),
    }
}

/// A finding unless the kernel takes the clock for synchronized, by systemd's word.
pub(super) async fn synchronized(host: Host) -> Vec<Finding> {
    let call = Invocation::new(["timedatectl", "show", "--property=NTPSynchronized", "--value"]);
    let said = blocking(move || Ok(host.run(&call)?)).await;
    let finding = match said.as_deref().map(str::trim) {
        Ok("yes") => CLOCK.ok("is synchronized"),
        Ok("no") => CLOCK.warning(
            "nothing synchronizes it: certificates and tokens are refused once it is wrong",
            SET_THE_CLOCK,
        ),
        Ok(_) | Err(_) => CLOCK.skipped("no server has told the time, and no systemd whether it is synchronized"),
    };
    vec![finding]
}

fn limits(host: &Host) -> Finding {
    const NR_OPEN: &str = "/proc/sys/fs/nr_open";
    let text = host.read(Path::new(NR_OPEN), Read::max(64).following_links());
    match text.ok().flatten().and_then(|text| text.trim().parse::<u64>().ok()) {
        None => LIMITS.skipped(format!("{NR_OPEN} can't be read")),
        Some(most) if most < OPEN_FILES => LIMITS.warning(
            format!("a process may have {most} files open: Envoy has two for each connection"),
            format!("sysctl -w fs.nr_open={OPEN_FILES}, and the same in /etc/sysctl.d"),
        ),
        Some(_) => LIMITS.ok(format!("a process may have {OPEN_FILES} files open")),
    }
}

fn disk(site: &Site) -> Finding {
    let PathsConfig { state, run } = &site.config.paths;
    let wanted = match site.config.envoy.source() {
        EnvoySource::Binary(_) => STATE_BYTES,
        EnvoySource::Image { .. } | EnvoySource::Url { .. } => STATE_BYTES + ENVOY_BYTES,
    };
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let mut rooms = Vec::new();
    for (path, wanted) in [(state, wanted), (run, RUN_BYTES)] {
        match site.host.free_bytes(path) {
            Ok(free) if free < wanted => {
                let lacks = format!(
                    "{} has {} free, and {} are needed",
                    path.display(),
                    mebibytes(free),
                    mebibytes(wanted)
                );
                let fix = format!(
                    "make room in the file system of {} (`df {0}`, `df -i {0}`)",
                    path.display()
                );
                return DISK.failed(lacks, fix);
            }
            Ok(free) => rooms.push(format!("{} has {} free", path.display(), mebibytes(free))),
            Err(error) => return DISK.skipped(error.to_string()),
        }
    }
    DISK.ok(rooms.join(", "))
}

fn directories(host: &Host, paths: &PathsConfig) -> Finding {
    for (key, path) in [("paths.state", &paths.state), ("paths.run", &paths.run)] {
        let there = path
            .ancestors()
            .find_map(|path| Some((path, host.target_meta(path).ok()??)));
        let Some((there, meta)) = there else { continue };
        let fix = format!(
            "make {} a directory that root can write, or write another one into {key}",
            there.display()
        );
        if !meta.is_dir() {
            return DIRECTORIES.failed(format!("{key}: {} is no directory", there.display()), fix);
        }
        if let Err(error) = host.expect_writable(there) {
            return DIRECTORIES.failed(format!("{key} can't be written: {error}"), fix);
        }
    }
    DIRECTORIES.ok(format!(
        "{} and {} can be written",
        paths.state.display(),
        paths.run.display()
    ))
}

/// The user that Envoy's unit runs as, and that the rules let pass by its number.
fn user(host: &Host) -> Finding {
    let (uid, gid) = (ports::PROXY_UID, ports::PROXY_GID);
    let other = sidecar::entry(host, "passwd", &uid.to_string()).ok().flatten();
    let other = other
        .as_deref()
        .and_then(|line| line.split(':').next())
        .unwrap_or_default();
    match sidecar::ids(host) {
        Ok(Some(ids)) if ids == (uid, gid) => {
            group(host).unwrap_or_else(|| USER.ok(format!("{} is number {uid}, user and group", sidecar::USER)))
        }
        Ok(Some((is, _))) => USER.failed(
            format!(
                "{} is number {is}, and what is not {uid}'s is sent to Envoy, Envoy's own calls too",
                sidecar::USER
            ),
            format!("groupmod -g {gid} {0}; usermod -u {uid} -g {gid} {0}", sidecar::USER),
        ),
        Ok(None) if !other.is_empty() => USER.failed(
            format!("number {uid} is the user {other}, whose traffic would go past the mesh, and Envoy needs it"),
            format!("usermod -u ANOTHER {other}, then reinstall the package istio-vm-agent"),
        ),
        Ok(None) => USER.warning(
            format!("there is no user {}, which the units run Envoy as", sidecar::USER),
            "reinstall the package istio-vm-agent",
        ),
        Err(error) => USER.skipped(format!("{error:#}")),
    }
}

/// A finding where the group that the units run with is amiss, or another has its number or the user's.
fn group(host: &Host) -> Option<Finding> {
    const NAME: &str = sidecar::USER;
    let gid = ports::PROXY_GID.to_string();
    let entry = |key: &str| sidecar::entry(host, "group", key).ok().flatten();
    let Some(line) = entry(NAME) else {
        let other = entry(&gid).and_then(|line| Some(line.split(':').next()?.to_owned()));
        let renumber = other
            .map(|other| format!("groupmod -g ANOTHER {other} && "))
            .unwrap_or_default();
        return Some(USER.failed(
            format!("there is no group {NAME}, which the units run with"),
            format!("{renumber}groupadd --system --gid {gid} {NAME}"),
        ));
    };
    let mut fields = line.split(':').skip(2);
    let (number, members) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    if number != gid {
        return Some(USER.failed(
            format!("the group {NAME} is number {number}: the units can't take {gid}, whose calls the rules let pass"),
            format!("groupmod -g {gid} {NAME}"),
        ));
    }
    let users = host.read(Path::new(PASSWD), Read::max(MAX_PASSWD).following_links());
    let users = users.ok().flatten().unwrap_or_default();
    let second = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let second = second.filter(|fields| fields[0] != NAME && fields.get(2) == Some(&gid.as_str()));
    if let Some(second) = second.map(|fields| fields[0].to_owned()).next() {
        return Some(USER.failed(
            format!("{second} is number {gid}, too: its traffic goes past the mesh, and it has Envoy's rights"),
            format!("usermod -u ANOTHER {second}"),
        ));
    }
    let member = members
        .split(',')
        .find(|member| !member.is_empty() && *member != NAME)?;
    Some(USER.warning(
        format!("the group {NAME} has the members {members}: what they send as that group goes past the mesh"),
        format!("gpasswd --delete {member} {NAME}"),
    ))
}

/// Istio's own agent, when it is on this VM.
fn sidecar(host: &Host) -> Finding {
    match sidecar::find(host) {
        Err(error) => SIDECAR.warning(
            format!("failed to look for it: {error}"),
            "ask `systemctl status istio`",
        ),
        Ok(None) => SIDECAR.ok("Istio's own agent is not on this VM"),
        Ok(Some(found)) => match found.activity() {
            Some(activity) => SIDECAR.failed(format!("Istio's own agent {activity}"), found.remedy()),
            None => SIDECAR.ok("Istio's own agent is installed, and is not active"),
        },
    }
}

/// A switch from it that nobody has brought to an end.
fn interrupted_switch(site: &Site) -> Option<Finding> {
    match sidecar::is_interrupted(&site.host, &site.config.paths.sidecar_backup()) {
        Ok(false) => None,
        Ok(true) => Some(SIDECAR.failed(
            "the switch from Istio's own agent was interrupted",
            "go on with `istio-vm-agent import --switch`, or go back with `istio-vm-agent import --undo`",
        )),
        Err(error) => Some(SIDECAR.warning(
            format!("{error:#}"),
            "mend that file, or remove it: then `istio-vm-agent import --undo` has nothing to give back",
        )),
    }
}

#[cfg(test)]
mod tests;
