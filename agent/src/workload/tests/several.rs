//! Containers of several applications.

use super::*;
use crate::config::Config;
use crate::part::WorkloadChannels;
use crate::workload::part::run_each;

fn two(docker: &Docker) -> Config {
    let socket = docker.socket();
    let container = |name: &str| {
        format!(
            "[[workload]]\nname = '{name}'\n[workload.container]\nname = '{name}'\nimage = '{IMAGE}'\n\
             stop_timeout = '7s'\ndocker_socket = {socket:?}\n"
        )
    };
    let text = format!(
        "[join]\ndirectory = {{ path = '/b' }}\n{}{}",
        container("web"),
        container("cache")
    );
    Config::parse(std::path::Path::new("c.toml"), &text).unwrap()
}

/// Starts both behind an Envoy that is ready.
fn start(config: &Config, scope: Scope) -> ([WorkloadChannels; 2], watch::Receiver<bool>) {
    let envoy = watch::Sender::new(ready_envoy());
    let xds = watch::Sender::new(XdsState::default());
    let channels = ["web", "cache"].map(WorkloadChannels::named);
    let options = Options::of_each(&Host::system(), config, None);
    let containers = options.into_iter().zip(&channels).map(|(options, own)| {
        let inputs = Inputs {
            envoy: envoy.subscribe(),
            intercept: None,
            xds: xds.subscribe(),
            liveness: own.liveness.subscribe(),
            called_at: None,
        };
        let options = Options {
            paths: PathsConfig {
                run: "/nowhere".into(),
                ..PathsConfig::default()
            },
            ..options
        };
        (options, inputs, own.clone())
    });
    let task = run_each(scope, containers.collect());
    let (end, ended) = watch::channel(false);
    Scope::detached().0.spawn(async move {
        task.await.unwrap();
        drop((envoy, xds));
        end.send_replace(true);
    });
    (channels, ended)
}

async fn becomes(channels: &WorkloadChannels, wanted: impl Fn(&ContainerState) -> bool) {
    let mut state = channels.container.subscribe();
    let seen = tokio::time::timeout(Duration::from_secs(600), state.wait_for(wanted)).await;
    seen.unwrap_or_else(|_| panic!("{:?}", channels.container.borrow()))
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn containers_leave_each_other_alone_and_each_ends_by_itself() {
    let docker = Docker::started();
    let config = two(&docker);
    docker.edit(|engine| {
        engine.images.insert(IMAGE.to_owned());
        engine.containers.extend([ours("former", "old")]);
    });
    let (scope, drain) = Scope::detached();
    let ([web, cache], mut ended) = start(&config, scope);
    let runs = |state: &ContainerState| matches!(state, ContainerState::Running { .. });
    becomes(&web, runs).await;
    becomes(&cache, runs).await;
    let of = |name: &str| {
        docker
            .calls()
            .into_iter()
            .filter(|call| call.contains(&format!(" {name}")))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("former"), ["stop former t=7", "remove former"]);

    let before = of("web");
    cache.gone.cancel();
    becomes(&cache, |state| *state == ContainerState::NotConfigured).await;
    assert!(
        of("cache").ends_with(&["stop cache t=7".to_owned(), "remove cache".to_owned()]),
        "{:?}",
        of("cache")
    );
    assert!(runs(&web.container.borrow()));
    assert_eq!(of("web"), before);

    drain.cancel();
    ended.wait_for(|ended| *ended).await.unwrap();
    assert!(
        of("web").ends_with(&["stop web t=7".to_owned(), "remove web".to_owned()]),
        "{:?}",
        of("web")
    );
}

#[tokio::test]
async fn containers_of_all_applications_are_planned() {
    let docker = Docker::started();
    let config = two(&docker);
    let options = Options::of_each(&Host::system(), &config, None);
    let right = spec::hash(&options[0].config);
    docker.edit(|engine| engine.containers.extend([ours("web", &right), ours("former", "old")]));
    let planned = plan(&options).await.unwrap();
    let words = planned.words(crate::part::Effect::Removes);
    assert_eq!(words, ["the container former (000000000000)"]);
    let diff = &planned.changes[0].diff;
    assert!(
        diff.contains("+ container cache from") && !diff.contains("container web"),
        "{diff}"
    );
}
