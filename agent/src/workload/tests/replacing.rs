//! Another container in the place of one that runs.

use super::*;

/// A dockerd with a container of another specification, which runs, and the image of the next one.
fn with_former() -> Docker {
    let docker = Docker::started();
    docker.edit(|engine| {
        engine.images.insert(IMAGE.to_owned());
        engine.containers.push(ours("web", "old"));
    });
    docker
}

#[tokio::test(start_paused = true)]
async fn calls_move_to_the_next_container_before_the_former_ends() {
    let docker = with_former();
    docker.edit(|engine| engine.health.insert("web-next".to_owned(), "starting"));
    let mut agent = Agent::start(config(&docker, ""));
    let state = agent.shows("it is not well yet").await;
    assert!(format!("{state:?}").contains("172.17.0.2"), "{state:?}");
    until_calls(&docker, 2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(docker.calls(), ["create web-next", "start web-next"]);
    // It serves meanwhile, and is kept going.
    docker.edit(|engine| engine.containers[0].running = false);
    until_calls(&docker, 3).await;
    assert_eq!(docker.calls()[2..], ["start web"]);
    docker.edit(|engine| engine.health.insert("web-next".to_owned(), "healthy"));
    agent.shows("172.17.0.3").await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(docker.calls().len(), 3, "the former ended before calls could move");
    agent.called_at.send_replace("172.17.0.3".parse().ok());
    let told = tokio::time::Instant::now();
    agent.shows("successor: None").await;
    assert!(told.elapsed() >= Duration::from_secs(1), "{:?}", told.elapsed());
    assert_eq!(
        docker.calls()[3..],
        ["stop web t=7", "remove web", "rename web-next web"]
    );
}

#[tokio::test(start_paused = true)]
async fn envoy_that_never_says_where_it_calls_keeps_no_former_container() {
    let docker = with_former();
    let mut agent = Agent::start(config(&docker, ""));
    agent.shows("172.17.0.3").await;
    agent.shows("successor: None").await;
    assert_eq!(
        docker.calls()[2..],
        ["stop web t=7", "remove web", "rename web-next web"]
    );
}

#[tokio::test(start_paused = true)]
async fn container_that_is_never_well_is_rolled_back_and_not_tried_again() {
    for (end, reason) in [
        (None, "HEALTHCHECK has not succeeded"),
        (Some(3), "it exited with status 3"),
    ] {
        let docker = with_former();
        docker.edit(|engine| engine.health.insert("web-next".to_owned(), "starting"));
        let mut agent = Agent::start(config(&docker, "startup_timeout = '90s'"));
        until_calls(&docker, 2).await;
        if let Some(status) = end {
            docker.edit(|engine| {
                let next = engine.containers.last_mut().unwrap();
                (next.running, next.status) = (false, status);
            });
        }
        let state = format!("{:?}", agent.shows("rolled back").await);
        assert!(state.contains("Running") && state.contains(reason), "{state}");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(docker.calls()[2..], ["stop web-next t=7", "remove web-next"]);
        // The former one is kept going all the same.
        docker.edit(|engine| engine.containers[0].running = false);
        agent.shows("Failed").await;
        agent.shows("restarts: 1").await;
        assert_eq!(docker.calls()[4..], ["start web"]);
    }
}

#[tokio::test(start_paused = true)]
async fn callers_leave_before_a_container_that_nothing_can_run_beside() {
    let docker = with_former();
    let mut agent = Agent::start_early(config(&docker, "rollout = 'recreate'"));
    agent
        .xds
        .send_modify(|xds| xds.listed_in = ["outbound|3550||web".to_owned()].into());
    agent.envoy.send_replace(ready_envoy());
    agent.intercept.send_replace(active());
    agent.shows("Leaving").await;
    assert_eq!(docker.calls(), ["create web-next"]);
    agent.xds.send_modify(|xds| xds.listed_in.clear());
    agent.shows("successor: None").await;
    let calls = ["stop web t=7", "start web-next", "remove web", "rename web-next web"];
    assert_eq!(docker.calls()[1..], calls);
}

#[tokio::test(start_paused = true)]
async fn container_that_ends_while_its_callers_leave_is_replaced_at_once() {
    for probe_finds_it_dead in [false, true] {
        let docker = with_former();
        let mut agent = Agent::start_early(config(&docker, "rollout = 'recreate'"));
        agent
            .xds
            .send_modify(|xds| xds.listed_in = ["outbound|3550||web".to_owned()].into());
        agent.envoy.send_replace(ready_envoy());
        agent.intercept.send_replace(active());
        agent.shows("Leaving").await;
        let left = tokio::time::Instant::now();
        match probe_finds_it_dead {
            false => docker.edit(|engine| engine.containers[0].running = false),
            true => drop(agent.liveness.send_replace(LivenessState::Failed {
                reason: "no answer within 1s".to_owned(),
            })),
        }
        until_calls(&docker, 3).await;
        assert_eq!(docker.calls()[1..], ["stop web t=7", "start web-next"]);
        // istiod has taken the VM out by now at the earliest; the clock of the test is that of the waits.
        assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn former_container_is_started_again_when_the_next_one_is_never_well() {
    let docker = with_former();
    docker.edit(|engine| engine.health.insert("web-next".to_owned(), "unhealthy"));
    let mut agent = Agent::start(config(&docker, "rollout = 'recreate'"));
    agent.shows("rolled back").await;
    let calls = [
        "stop web t=7",
        "start web-next",
        "stop web-next t=7",
        "start web",
        "rename web-next web-rejected",
    ];
    assert_eq!(docker.calls()[1..], calls);
}

#[tokio::test(start_paused = true)]
async fn specification_whose_try_costs_calls_is_tried_by_no_later_agent() {
    let docker = with_former();
    let config = config(&docker, "rollout = 'recreate'");
    docker.edit(|engine| {
        let rejected = ours("web-rejected", &spec::hash(&config));
        engine.containers.push(Container {
            running: false,
            ..rejected
        });
        // The agent restarts it, as after a boot.
        engine.containers[0].running = false;
    });
    let planned = plan(&[options(&config)]).await.unwrap();
    assert_eq!(planned.changes, []);
    let mut agent = Agent::start(config.clone());
    let state = format!("{:?}", agent.shows("rolled back").await);
    assert!(state.contains("docker rm web-rejected"), "{state}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(docker.calls(), ["start web"]);

    // Where there is none to go back to, it is better than nothing.
    docker.edit(|engine| engine.containers.remove(0));
    agent.shows("successor: None").await;
    assert_eq!(
        docker.calls()[1..],
        [
            "stop web-rejected t=7",
            "remove web-rejected",
            "create web",
            "start web"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn former_container_stays_until_the_next_one_has_been_well_for_a_while() {
    for is_called in [false, true] {
        let docker = with_former();
        docker.edit(|engine| engine.health.insert("web-next".to_owned(), "healthy"));
        let mut agent = Agent::start(config(&docker, ""));
        match is_called {
            true => drop(agent.shows("172.17.0.3").await),
            false => {
                until_calls(&docker, 2).await;
                tokio::time::sleep(Duration::from_millis(1500)).await;
            }
        }
        docker.edit(|engine| engine.containers[1].running = false);
        let state = format!("{:?}", agent.shows("rolled back").await);
        assert!(state.contains("172.17.0.2"), "{state}");
        assert_eq!(docker.calls()[2..], ["stop web-next t=7", "remove web-next"]);
    }
}

#[tokio::test(start_paused = true)]
async fn look_that_fails_says_nothing_against_the_next_container() {
    let docker = with_former();
    docker.edit(|engine| engine.health.insert("web-next".to_owned(), "starting"));
    let mut agent = Agent::start(config(&docker, ""));
    until_calls(&docker, 2).await;
    docker.edit(|engine| engine.failing_looks = 1);
    while docker.edit(|engine| engine.failing_looks) > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    docker.edit(|engine| engine.health.insert("web-next".to_owned(), "healthy"));
    agent.shows("successor: None").await;
    assert_eq!(
        docker.calls()[2..],
        ["stop web t=7", "remove web", "rename web-next web"]
    );
}

#[tokio::test(start_paused = true)]
async fn former_container_serves_and_is_kept_going_during_a_pull() {
    let docker = with_former();
    docker.edit(|engine| {
        engine.images.clear();
        engine.pull_waits = true;
    });
    let mut agent = Agent::start(config(&docker, ""));
    let state = agent.shows("pulling").await;
    assert!(format!("{state:?}").starts_with("Running"), "{state:?}");
    docker.edit(|engine| engine.containers[0].running = false);
    until_calls(&docker, 1).await;
    assert_eq!(docker.calls(), ["start web"]);
    docker.edit(|engine| engine.pull_waits = false);
    agent.shows("successor: None").await;
    assert!(docker.calls().contains(&"rename web-next web".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn former_container_is_watched_while_the_next_one_is_pulled_or_judged() {
    for pulls in [true, false] {
        let docker = with_former();
        docker.edit(|engine| {
            engine.pull_waits = pulls;
            engine.health.insert("web-next".to_owned(), "starting");
            if pulls {
                engine.images.clear();
            }
        });
        let mut agent = Agent::start(config(&docker, ""));
        let (lacks, begun) = match pulls {
            true => ("pulling", 0),
            false => ("it is not well yet", 2),
        };
        agent.shows(lacks).await;
        until_calls(&docker, begun).await;
        docker.edit(|engine| engine.health.insert("web".to_owned(), "unhealthy"));
        let state = format!("{:?}", agent.shows("HEALTHCHECK of its image fails").await);
        assert!(state.contains(lacks), "{state}");
        agent.liveness.send_replace(LivenessState::Failed {
            reason: "the liveness probe fails: no answer within 1s".to_owned(),
        });
        agent.shows("restarts: 1").await;
        assert_eq!(docker.calls()[begun..], ["stop web t=7", "start web"]);
    }
}

async fn until_calls(docker: &Docker, number: usize) {
    while docker.calls().len() < number {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn replacement_that_was_cut_short_is_ended_by_the_next_agent() {
    for former in [true, false] {
        let docker = with_former();
        let config = config(&docker, "");
        docker.edit(|engine| {
            engine.containers.push(ours("web-next", &spec::hash(&config)));
            engine.containers.retain(|container| former || container.name != "web");
        });
        let mut agent = Agent::start(config);
        agent.shows("successor: None").await;
        let calls = docker.calls().into_iter().filter(|call| call != "start web-next");
        let ended = ["stop web t=7", "remove web", "rename web-next web"];
        assert_eq!(calls.collect::<Vec<_>>(), ended[if former { 0 } else { 2 }..]);
    }
}
