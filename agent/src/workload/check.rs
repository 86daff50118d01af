//! Questions of `check` about the application: dockerd, the container's image, its ports beside those of the mesh, and
//! whether anything listens there.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::engine::{Engine, NotOurs, Setup, SwarmNode};
use super::offline;
use super::options::Options;
use super::ports::{Disagreement, disagreement};
use super::{env_file, secrets};
use crate::config::{Config, Network};
use crate::docker::Registries;
use crate::facts::Membership;
use crate::host::{Host, Read, network};
use crate::part::{CheckContext, Finding, Member, Question, Site, Subject};

const DOCKER: Subject = Subject::new("IVA801", "docker");
const IMAGE: Subject = Subject::new("IVA802", "image");
const PORTS: Subject = Subject::new("IVA803", "container ports");
const APPLICATION: Subject = Subject::new("IVA805", "application");
const FILES: Subject = Subject::new("IVA807", "container files");
/// Said where nothing is to be asked.
const NONE: &str = "no container is configured";
/// Time that a port of this VM is given to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn questions(context: &CheckContext) -> Vec<Question> {
    let containers = Options::of_each(&context.site.host, &context.site.config, None);
    let same = containers.clone();
    vec![
        Question::new(DOCKER, async move { [docker(&containers).await] }),
        Question::new(IMAGE, async move {
            match same.is_empty() {
                true => vec![IMAGE.skipped(NONE)],
                false => join_all(same.iter().map(image)).await,
            }
        }),
        Question::of_member(PORTS, context, |Member { site, membership, .. }| async move {
            [ports(&exposed(&site.config).await, &site.config, &membership)]
        }),
        Question::of_member(
            APPLICATION,
            context,
            |member| async move { [application(member).await] },
        ),
        Question::look(FILES, context, files),
    ]
}

/// A finding for each file of variables, secret and login that is of no use, behind the place of its key.
fn files(site: &Site) -> Vec<Finding> {
    let Site { host, config, .. } = site;
    let (mut read, mut findings) = (0, Vec::new());
    for (index, workload) in config.workloads.iter().enumerate() {
        let Some(container) = &workload.container else { continue };
        let variables = container.env_files.iter();
        let variables = variables.map(|path| ("env_files", path, env_file::read(host, path).map(drop)));
        let secrets = container.secrets.iter();
        let secrets = secrets.map(|path| ("secrets", path, secrets::read(host, path).map(drop)));
        let login = container.registry_config.iter();
        let login = login.map(|path| {
            let registries = Registries::new(host, Some(path));
            ("registry_config", path, registries.expect_readable())
        });
        for (key, path, found) in variables.chain(secrets).chain(login) {
            read += 1;
            let Err(error) = found else { continue };
            let exposure = (key != "env_files").then(|| exposure_fix(host, path)).flatten();
            let mend = || "mend the file that it names, or take it out of that key".to_owned();
            let key = format!("{}.container.{key}", config.workloads.table(index));
            let problem = format!("{}: {error:#}", config.places.named(&key));
            findings.push(FILES.failed(problem, exposure.unwrap_or_else(mend)));
        }
    }
    match (read, findings.is_empty()) {
        (0, _) => vec![FILES.skipped("no container is given a file of variables, a secret or a login")],
        (_, true) => vec![FILES.ok("those of variables, secrets and logins can be read")],
        _ => findings,
    }
}

/// Remedy for a secret that others may open.
fn exposure_fix(host: &Host, path: &Path) -> Option<String> {
    let opened = host.open(path, Read::max(0).following_links()).ok()??;
    opened.exposure().map(|_| format!("chmod 0600 {}", path.display()))
}

async fn docker(containers: &[Options]) -> Finding {
    let Some(Options { config: first, .. }) = containers.first() else {
        return DOCKER.skipped(NONE);
    };
    let asked = async {
        for options in containers {
            offline::expect_own(options).await?;
        }
        offline::setup(first).await
    };
    match asked.await {
        Ok(setup) => {
            let mut containers = containers.iter();
            let is_bridged = containers.any(|options| options.config.network == Network::Bridge);
            judge(&first.docker_socket, setup, is_bridged)
        }
        Err(error) => {
            let fix = match error.downcast_ref::<NotOurs>() {
                Some(NotOurs { name, .. }) => {
                    format!("`docker rm -f {name}`, if nobody needs it; else another workload.container.name")
                }
                None => "have dockerd answer at workload.container.docker_socket: `systemctl start docker`, then `docker info`"
                    .to_owned(),
            };
            DOCKER.failed(format!("{error:#}"), fix)
        }
    }
}

fn judge(socket: &str, setup: Setup, is_bridged: bool) -> Finding {
    const STOPS: &str = "a restart of dockerd stops the container";
    const LIVE_RESTORE: &str =
        "put \"live-restore\": true into /etc/docker/daemon.json, then `systemctl reload docker`";
    if let Some((problem, remedy)) = setup.obstacle(is_bridged) {
        return DOCKER.failed(problem, remedy);
    }
    match (setup.swarm, setup.has_live_restore) {
        (None, true) => DOCKER.ok(format!("answers at {socket}")),
        (None, false) => DOCKER.warning(STOPS, LIVE_RESTORE),
        (Some(node), false) => DOCKER.warning(
            format!("{STOPS}, and with live-restore dockerd would not start on a node of a swarm"),
            format!("{}, and only then {LIVE_RESTORE}", leave(node)),
        ),
        (Some(node), true) => DOCKER.failed(
            "live-restore is set on a node of a swarm: dockerd will not start again with both",
            format!(
                "put \"live-restore\": false into /etc/docker/daemon.json, then `systemctl reload docker`; or {}",
                leave(node)
            ),
        ),
    }
}

/// Command by which a node leaves its swarm.
fn leave(node: SwarmNode) -> &'static str {
    match node {
        SwarmNode::Worker => "`docker swarm leave`",
        SwarmNode::Manager => {
            "`docker node demote` this node from another manager, then `docker swarm leave` (the only manager ends the \
             swarm with `docker swarm leave --force`)"
        }
    }
}

async fn image(options: &Options) -> Finding {
    let container = &options.config;
    let image = &container.image;
    let Ok(engine) = Engine::connect(&container.docker_socket).await else {
        return IMAGE.skipped(format!("dockerd does not answer: see {}", DOCKER.code));
    };
    let asked = async {
        match engine.has_image(image).await? {
            true => anyhow::Ok(true),
            false => engine
                .has_in_registry(image, &options.registries())
                .await
                .map(|()| false),
        }
    };
    match asked.await {
        Ok(true) => IMAGE.ok(format!("{image} is here")),
        Ok(false) => IMAGE.ok(format!("{image} is not here yet, and its registry has it")),
        Err(error) => IMAGE.failed(
            format!("{image} can't be had: {error:#}"),
            format!(
                "`docker pull {image}`, and do what that says; a registry's login is workload.container.registry_config"
            ),
        ),
    }
}

/// The ports that the image of each application's container says it listens on; none where it isn't here, or says nothing.
pub(super) async fn exposed(config: &Config) -> BTreeMap<String, Vec<u16>> {
    let mut exposed = BTreeMap::new();
    for workload in config.workloads.iter() {
        let Some(container) = &workload.container else { continue };
        let asked = async {
            Engine::connect(&container.docker_socket)
                .await?
                .exposed_ports(&container.image)
                .await
        };
        exposed.insert(workload.name.clone(), asked.await.unwrap_or_default());
    }
    exposed
}

fn ports(exposed: &BTreeMap<String, Vec<u16>>, config: &Config, membership: &Membership) -> Finding {
    let mut networks = config
        .workloads
        .containers()
        .map(|container| container.network)
        .peekable();
    if networks.peek().is_none() {
        return PORTS.skipped(NONE);
    }
    if networks.all(|network| network == Network::Host) {
        return PORTS.ok("the container is on the VM's own network and has all of its ports");
    }
    let exposed = |name: &str| exposed.get(name).cloned().unwrap_or_default();
    match disagreement(config, exposed, membership) {
        Some(Disagreement { text, fix }) => PORTS.warning(text, fix),
        None => {
            let shown: Vec<String> = config.workloads.published().map(ToString::to_string).collect();
            PORTS.ok(format!("published: {}", shown.join(", ")))
        }
    }
}

/// The finding whether anything listens on the WorkloadGroup's ports. A container of the agent's is started by it.
async fn application(Member { site, membership, .. }: Member) -> Finding {
    let mut workloads = site.config.workloads.iter();
    if workloads.any(|it| it.container.is_some() || it.service.is_some()) {
        return APPLICATION.skipped("the agent starts the application by itself");
    }
    let Some(ports) = membership.inbound_ports.as_deref().filter(|ports| !ports.is_empty()) else {
        return APPLICATION.skipped("the WorkloadGroup names no ports");
    };
    let (mut silent, mut hidden) = (Vec::new(), Vec::new());
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut own = membership.instance_ips.clone();
    own.retain(|ip| network::is_own(*ip));
    // One that the cloud maps is on no interface: where Envoy will call is not known.
    if own.is_empty() {
        own.extend(loopback);
    }
    for port in ports {
        if !listens(&own, *port).await {
            match listens(&loopback, *port).await {
                true => hidden.push(port.to_string()),
                false => silent.push(port.to_string()),
            }
        }
    }
    match (silent.is_empty(), hidden.is_empty()) {
        (true, true) => APPLICATION.ok("listens on the WorkloadGroup's ports"),
        (true, false) => APPLICATION.warning(
            format!(
                "it listens on port {} of loopback alone, and Envoy calls it at this VM's own address",
                hidden.join(", ")
            ),
            "have it listen on all addresses, or on this VM's; fine where a Sidecar's defaultEndpoint is on 127.0.0.1",
        ),
        (false, _) => APPLICATION.warning(
            format!("nothing listens on port {} of the WorkloadGroup", silent.join(", ")),
            "start the application, or put the ports that it listens on into the WorkloadGroup",
        ),
    }
}

/// True when a port takes connections at one of these addresses.
async fn listens(addresses: &[IpAddr], port: u16) -> bool {
    for ip in addresses {
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(SocketAddr::new(*ip, port)));
        if matches!(connected.await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::ContainerConfig;
    use crate::docker::fake::Docker;
    use crate::host::System;
    use crate::part::{Level, Units};
    use crate::workload::tests::{container as theirs, options};

    fn container(socket: &str, ports: &str) -> ContainerConfig {
        toml::from_str(&format!(
            "name = 'web'\nimage = 'web:1'\ndocker_socket = '{socket}'\nports = [{ports}]\n"
        ))
        .unwrap()
    }

    #[test]
    fn file_that_no_container_could_be_given_is_named_with_its_key() {
        let root = tempfile::tempdir().unwrap();
        let found = |keys: &str| {
            let text = format!(
                "[join]\ndirectory = {{ path = '/b' }}\n[workload.container]\nname = 'web'\nimage = 'web:1'\n{keys}\n"
            );
            files(&Site {
                host: Host::new(root.path(), System),
                config: Config::parse(Path::new("/c"), &text).unwrap(),
                units: Units::default(),
            })
        };
        std::fs::write(root.path().join("web.env"), "A=1\nno variable\n").unwrap();
        std::fs::write(root.path().join("key"), "secret").unwrap();
        std::fs::set_permissions(root.path().join("key"), PermissionsExt::from_mode(0o644)).unwrap();
        let told = found("env_files = ['/none.env', '/web.env']\nsecrets = ['/key']\nregistry_config = '/none.json'");
        let details: Vec<&str> = told.iter().map(|finding| finding.detail.as_str()).collect();
        assert_eq!(
            details[0],
            "/c:6:1: workload.container.env_files: /none.env is not there"
        );
        assert_eq!(
            details[3],
            "/c:8:1: workload.container.registry_config: /none.json is not there"
        );
        assert!(details[1].contains("/web.env:2: is no NAME=value"), "{details:?}");
        assert!(
            details[2].contains("/key: others may open it (mode 0644): chmod 0600"),
            "{details:?}"
        );
        std::fs::set_permissions(root.path().join("key"), PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(found("secrets = ['/key']")[0].level, Level::Ok);
        assert_eq!(found("")[0].level, Level::Skipped);
    }

    #[test]
    fn docker_is_judged_by_how_it_is_set_up() {
        let setup = |is_rootless, swarm, has_live_restore| Setup {
            is_rootless,
            has_bridge: true,
            swarm,
            has_live_restore,
        };
        let (worker, manager) = (Some(SwarmNode::Worker), Some(SwarmNode::Manager));
        for (setup, level, words) in [
            (setup(false, None, true), Level::Ok, ""),
            (
                setup(false, None, false),
                Level::Warning,
                "put \"live-restore\": true into",
            ),
            (
                setup(false, worker, false),
                Level::Warning,
                "`docker swarm leave`, and only then put",
            ),
            (setup(false, worker, true), Level::Failed, "; or `docker swarm leave`"),
            (
                setup(false, manager, false),
                Level::Warning,
                "`docker swarm leave --force`",
            ),
            (
                setup(false, manager, true),
                Level::Failed,
                "put \"live-restore\": false into",
            ),
            (setup(true, None, true), Level::Failed, "one that runs as root"),
        ] {
            let found = judge("/s", setup, true);
            assert_eq!(found.level, level, "{found:?}");
            assert!(found.fix.as_deref().unwrap_or_default().contains(words), "{found:?}");
        }
        let bridgeless = Setup {
            has_bridge: false,
            ..setup(false, None, true)
        };
        let found = judge("/s", bridgeless, true);
        assert!(found.level == Level::Failed && found.fix.unwrap().contains("workload.container.network = \"host\""));
        assert_eq!(judge("/s", bridgeless, false).level, Level::Ok);
    }

    #[tokio::test]
    async fn application_on_loopback_alone_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = async |ip: &str, port| {
            let site = Site {
                host: Host::new(Path::new("/none"), System),
                config: Config::default(),
                units: Units::default(),
            };
            let membership = Membership {
                inbound_ports: Some(vec![port]),
                instance_ips: vec![ip.parse().unwrap()],
                ..crate::control_plane::fixtures::membership()
            };
            let member = Member {
                site: site.into(),
                membership: membership.into(),
                tokens: None,
            };
            application(member).await
        };
        assert_eq!(told("127.0.0.1", port).await.level, Level::Ok);
        // Another address that no packet leaves the VM for.
        let found = told("127.0.0.2", port).await;
        assert!(
            found.detail.contains(&format!("on port {port} of loopback alone")),
            "{found:?}"
        );
        drop(listener);
        let found = told("127.0.0.2", port).await;
        assert!(found.detail.starts_with("nothing listens on port"), "{found:?}");
    }

    #[tokio::test]
    async fn docker_without_a_bridge_is_told_so() {
        let docker = Docker::started();
        let options = [options(&container(&docker.socket().display().to_string(), ""))];
        let told = async || super::docker(&options).await.detail;
        assert!(!told().await.contains("no bridge"));
        docker.edit(|engine| engine.is_bridgeless = true);
        assert!(told().await.contains("no bridge"));
    }

    #[tokio::test]
    async fn container_of_others_is_removed_and_dockerd_left_alone() {
        let docker = Docker::started();
        docker.edit(|engine| engine.containers.push(theirs("web", &[])));
        let options = options(&container(&docker.socket().display().to_string(), ""));
        let found = super::docker(&[options]).await;
        let fix = found.fix.as_deref().unwrap_or_default();
        assert!(
            fix.contains("docker rm -f web") && !fix.contains("systemctl"),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn image_that_is_neither_here_nor_in_its_registry_is_named() {
        let docker = Docker::started();
        let options = options(&container(&docker.socket().display().to_string(), ""));
        let found = image(&options).await;
        assert!(
            found.level == Level::Failed && found.detail.starts_with("web:1 can't be had"),
            "{found:?}"
        );
        docker.edit(|engine| engine.images.insert("web:1".to_owned()));
        assert_eq!(image(&options).await.level, Level::Ok);
    }

    #[tokio::test]
    async fn image_is_not_asked_for_where_no_dockerd_answers() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock").display().to_string();
        let found = image(&options(&container(&socket, ""))).await;
        assert_eq!((found.level, found.fix), (Level::Skipped, None), "{}", found.detail);
    }
}
