//! Another container in the place of one that runs.

use istio_vm_agent::config::ContainerConfig;
use istio_vm_agent::workload::Options;

use crate::agent::{Agent, IMAGE, config, options};
use crate::dockerd::Dockerd;

#[tokio::test]
async fn another_container_runs_beside_the_former_until_it_is_well() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    let unpublished = |extra: &str| Options {
        publishes: false,
        ..options(config(&dockerd, extra))
    };
    let mut agent = Agent::start_as(unpublished("")).await;
    agent.shows(&["Running", "172.17.0.2"]).await;
    let first = dockerd.inspect("web", "{{.Id}}");
    drop(agent);

    // Nothing of this namespace is reached from here: what can be asked is the image's HEALTHCHECK.
    let check = "HEALTHCHECK --interval=100ms CMD [\"/busybox\", \"test\", \"-e\", \"/www/well\"]";
    dockerd.import_as("127.0.0.1:1/next:1", "", &[check]);
    let next = "image = '127.0.0.1:1/next:1'\nports = []\n";
    let next = |extra: &str| {
        let config = config(&dockerd, extra);
        let own: ContainerConfig = toml::from_str(&format!("name = 'web'\n{next}")).unwrap();
        Options {
            publishes: false,
            ..options(ContainerConfig {
                image: own.image,
                ports: own.ports,
                ..config
            })
        }
    };
    let mut agent = Agent::start_as(next("startup_timeout = '1s'")).await;
    agent
        .shows(&["Running", &first[..12], "rolled back", "HEALTHCHECK"])
        .await;
    assert_eq!(dockerd.containers(), "web");
    assert_eq!(dockerd.inspect("web", "{{.Id}}"), first);
    drop(agent);

    let mut agent = Agent::start_as(next("")).await;
    agent.shows(&["Running", &first[..12], "it is not well yet"]).await;
    dockerd
        .until_container("web-next", |dockerd| {
            dockerd
                .docker(&["exec", "web-next", "/busybox", "touch", "/www/well"])
                .status
                .success()
        })
        .await;
    agent.shows(&["172.17.0.3", "successor: None"]).await;
    assert_eq!(dockerd.containers(), "web");
    assert_ne!(dockerd.inspect("web", "{{.Id}}"), first);
    agent.stop().await;
}
