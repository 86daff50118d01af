//! Rights of a container, and what it is given.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use istio_vm_agent::config::ContainerConfig;

use crate::agent::{Agent, IMAGE, again, config};
use crate::dockerd::Dockerd;

/// Capabilities by their bits (capabilities(7), linux/capability.h).
const SETGID: u32 = 6;
const NET_RAW: u32 = 13;

#[tokio::test]
async fn container_has_no_more_rights_than_a_server_needs() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    let mut agent = Agent::start(config(&dockerd, "memory = '64m'\ncpus = 0.5\npids_limit = 77")).await;
    agent.shows(&["Running", "outdated: false"]).await;
    dockerd.until_served(3550).await;
    let has = |bit: u32| effective(&dockerd) & (1 << bit) != 0;
    assert!(!has(NET_RAW) && has(SETGID), "{:x}", effective(&dockerd));
    assert_eq!(status(&dockerd, "NoNewPrivs:"), "1");
    for (template, expected) in [
        ("{{.HostConfig.Memory}}", "67108864"),
        ("{{.HostConfig.NanoCpus}}", "500000000"),
        ("{{.HostConfig.PidsLimit}}", "77"),
        (
            "{{.HostConfig.LogConfig}}",
            "{json-file map[max-file:2 max-size:52428800]}",
        ),
    ] {
        assert_eq!(dockerd.inspect("web", template), expected, "{template}");
    }

    let mut agent = again(
        agent,
        config(&dockerd, "cap_add = ['NET_RAW']\nno_new_privileges = false"),
    )
    .await;
    agent.shows(&["Running", "successor: None"]).await;
    dockerd.until_served(3550).await;
    assert!(effective(&dockerd) & (1 << NET_RAW) != 0);
    assert_eq!(status(&dockerd, "NoNewPrivs:"), "0");
    agent.stop().await;
}

/// The keys of a container that has something of all, in files that `file` writes.
fn given(file: impl Fn(&str, &str) -> String) -> String {
    let (secret, variables, data) = (
        file("key", "hunter2"),
        file("app.env", "A=file\n"),
        file("data", "there"),
    );
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o644)).unwrap();
    format!(
        "env_files = [{variables:?}]\nsecrets = [{secret:?}]\nmounts = ['{data}:/data:ro']\ntmpfs = ['/tmp']\nuser = '4711'\n\
         read_only = true\nlabels = {{ team = 'shop' }}\nstop_signal = 'SIGKILL'\nulimits = {{ nofile = '100:200' }}\n"
    )
}

#[tokio::test]
async fn container_is_given_files_and_secrets_and_new_limits_while_it_runs() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let more = given(file);
    let mut agent = Agent::start(config(&dockerd, &more)).await;
    agent.shows(&["Running", "successor: None"]).await;
    dockerd.until_served(3550).await;
    let inside = |script: &str| {
        let output = dockerd.docker(&["exec", "web", "/busybox", "sh", "-c", script]);
        String::from_utf8(output.stdout).unwrap()
    };
    let script = "cat /run/secrets/key /data; echo -n \" $A $(/busybox id -u) \"; \
                  /busybox touch /tmp/x && echo -n tmp; /busybox touch /x || echo -n ' read-only'";
    assert_eq!(
        inside(&script.replace("cat", "/busybox cat")),
        "hunter2there file 4711 tmp read-only"
    );
    // By the engine's word and not by `ulimit` inside: runc's own runtime may raise a soft limit of an `exec` it races with.
    assert_eq!(
        dockerd.inspect("web", "{{json .HostConfig.Ulimits}}"),
        "[{\"Name\":\"nofile\",\"Hard\":200,\"Soft\":100}]"
    );
    let told = dockerd.inspect("web", "{{json .}}");
    assert!(
        !told.contains("hunter2") && told.contains("\"team\":\"shop\""),
        "{told}"
    );

    // A secret that has changed, and limits, need no other container.
    let (id, process) = (
        dockerd.inspect("web", "{{.Id}}"),
        dockerd.inspect("web", "{{.State.Pid}}"),
    );
    file("key", "hunter3");
    for (limits, memory) in [
        ("memory = '64m'\npids_limit = 9", "67108864"),
        ("memory = '256m'", "268435456"),
    ] {
        let mut next = again(agent, config(&dockerd, &format!("{more}{limits}"))).await;
        next.shows(&["Running", "successor: None"]).await;
        assert_eq!(dockerd.inspect("web", "{{.HostConfig.Memory}}"), memory);
        assert_eq!(
            dockerd.inspect("web", "{{.State.Pid}}"),
            process,
            "it was started again"
        );
        agent = next;
    }
    assert_eq!(inside("/busybox cat /run/secrets/key"), "hunter3");
    // Docker takes no limit away.
    let mut agent = again(agent, config(&dockerd, &more)).await;
    agent.shows(&["Running", "successor: None"]).await;
    assert_ne!(dockerd.inspect("web", "{{.Id}}"), id);
    assert_eq!(dockerd.inspect("web", "{{.HostConfig.Memory}}"), "0");
    agent.stop().await;
    let run = Path::new(&dockerd.socket()).with_file_name("run");
    assert!(!run.join("secrets").exists());
}

#[tokio::test]
async fn container_is_never_envoy_on_the_vms_own_network() {
    let dockerd = Dockerd::started(&[]).await;
    let host = |name: &str| {
        let text = format!(
            "name = 'web'\nimage = '{name}'\nnetwork = 'host'\nstop_timeout = '1s'\ndocker_socket = '{}'\n\
             command = ['/busybox', 'httpd', '-f', '-p', '8080', '-h', '/www']",
            dockerd.socket()
        );
        toml::from_str::<ContainerConfig>(&text).unwrap()
    };
    let users = "root:x:0:0::/:/busybox\nproxy:x:1337:0::/:/busybox\nmesh:x:1000:1337::/:/busybox\n";
    for (image, user) in [
        ("number:1", "1337"),
        ("group:1", "0:1337"),
        ("name:1", "proxy"),
        ("primary:1", "mesh"),
    ] {
        dockerd.import_as(image, users, &[&format!("USER {user}")]);
        let mut agent = Agent::start(host(image)).await;
        agent.shows(&["Failed", "would run as user", "1337"]).await;
        assert_eq!(dockerd.inspect("web", "{{.State.Status}}"), "created");
        agent.stop().await;
    }
    dockerd.import_as("root:1", users, &[]);
    let mut agent = Agent::start(host("root:1")).await;
    agent.shows(&["Running", "successor: None"]).await;
    dockerd.until_served(8080).await;
    assert_eq!(effective(&dockerd) & (1 << SETGID), 0, "it could become Envoy");
    agent.stop().await;
}

/// A line of the status of the container's process.
fn status(dockerd: &Dockerd, line: &str) -> String {
    let pid = dockerd.inspect("web", "{{.State.Pid}}");
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|it| it.strip_prefix(line)).unwrap();
    line.trim().to_owned()
}

fn effective(dockerd: &Dockerd) -> u64 {
    u64::from_str_radix(&status(dockerd, "CapEff:"), 16).unwrap()
}
