//! The application's probe as a part.

use std::time::SystemTime;

use anyhow::Result;
use futures_util::future::BoxFuture;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::counted::Counted;
use super::metrics::METRICS;
use super::probe;
use super::together::{self, Kind, Witness};
use crate::facts::{LastProbe, Membership, ProbeState, named};
use crate::part::{
    Answer, Audience, Changes, Channels, CheckContext, Code, Context, Effect, Finding, Metric, Page, Part, Plan,
    Problems, Question, SHORT, Section, Site, State, Subject, Task, ago, changes_of, text,
};

/// Probes the application.
#[derive(Debug)]
pub struct ProbePart;

/// The application by its probes, and what it answered to the last one.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Probed {
    #[serde(flatten)]
    state: ProbeState,
    last: Option<LastProbe>,
}

const SECTION: State<Probed> = State {
    key: "probe",
    title: "Probe",
    live: |channels| Probed {
        state: channels.probe.borrow().clone(),
        last: channels.counts.probe.last.borrow().clone(),
    },
    offline: |_| Probed {
        state: ProbeState::Unknown,
        last: None,
    },
    lines: |probed, now| vec![line(probed, now)],
};

impl Part for ProbePart {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let channels = &context.channels;
        let witnesses = witnesses(&context.site, channels);
        let (workloads, publish) = (channels.workloads.clone(), channels.probe.clone());
        let (host, file) = (context.site.host.clone(), context.site.config.paths.counted());
        // Without a witness, too: the next agent may have one of an application that it adds.
        Some(Task::new(SHORT, async |scope| {
            let counted = Counted::read(host, file).await;
            together::run(scope, witnesses, workloads, publish, counted).await
        }))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    /// Istio has these for Kubernetes' probes, which can't speak mTLS; so does a load balancer in front of a VM.
    fn pages(&self) -> Vec<Page> {
        vec![Page::of_facts(
            "/app-health/",
            |_| Audience::Everyone,
            |channels, request| app_health(request.uri.path(), &channels.probe.borrow()),
        )]
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        let pending = channels.workloads.iter().map(|it| changes_of(&it.pending));
        pending.chain([changes_of(&channels.probe)]).collect()
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let state = context.channels.probe.borrow();
        let code = match *state {
            ProbeState::Unhealthy { .. } => Code::ProbeFailing,
            _ => Code::ProbePending,
        };
        let channels = &context.channels;
        let added = channels.workloads.iter().filter_map(|it| {
            let why = unwell(it.pending.borrow().as_ref()?).to_owned();
            let words =
                format!("it was added and has not been well yet; until it is, the VM is as well as the others: {why}");
            Some(named(channels.name_of(it), &words))
        });
        Problems::default()
            .amiss(code, problem(&state))
            .amiss(Code::ProbePending, added)
    }

    fn plan<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Result<Plan>> {
        Box::pin(async {
            let chosen = site.config.health.choose(membership.probe.as_ref());
            let refused = chosen.and_then(|(_, refused)| refused);
            Ok(refused.into_iter().fold(Plan::default(), |plan, reason| {
                plan.effect(
                    Effect::LeavesAlone,
                    format!("the application's probe, which is not asked: {reason}"),
                )
            }))
        })
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        let finding = |site: &Site, membership: &Membership| [finding(site, membership)];
        vec![Question::look_of_member(PROBE, context, finding)]
    }
}

/// The probe of the VM as a whole, those of its applications, and where neither asks a container the HEALTHCHECK of its
/// image.
fn witnesses(site: &Site, channels: &Channels) -> Vec<Witness> {
    let theirs = channels.membership().probe.clone();
    let workloads = || site.config.workloads.iter().zip(channels.workloads.iter());
    let containers = workloads().filter_map(|(workload, own)| {
        let container = workload.container.as_ref()?;
        Some((container.published().to_vec(), own.container.subscribe()))
    });
    let containers: Vec<_> = containers.collect();
    let probe = |probe, refused, liveness| {
        let options = probe::Options {
            probe,
            refused,
            unit: site.units.agent.clone(),
            resumes: false,
            counts: channels.counts.probe.clone(),
        };
        let facts = probe::Facts {
            membership: channels.membership.subscribe(),
            envoy: channels.envoy.subscribe(),
            liveness,
            containers: containers.clone(),
        };
        Kind::Probe(Box::new(options), facts)
    };
    // Those with a probe of their own speak by that.
    let others = workloads().filter(|(workload, _)| workload.probe.is_none());
    let lives = others.map(|(_, own)| own.liveness.subscribe()).collect();
    let of_the_vm = site
        .config
        .health
        .choose(theirs.as_ref())
        .map(|(asked, refused)| Witness {
            name: None,
            gone: CancellationToken::new(),
            own: None,
            kind: probe(asked, refused, lives),
        });
    let is_asked = of_the_vm.is_some();
    let of_each = workloads().filter_map(|(workload, own)| {
        let kind = match (&workload.probe, &workload.container) {
            (Some(asked), _) => probe(asked.0.clone(), None, vec![own.liveness.subscribe()]),
            (None, Some(_)) if !is_asked => Kind::Healthcheck(own.container.subscribe()),
            (None, _) => return None,
        };
        Some(Witness {
            name: channels.name_of(own).map(str::to_owned),
            kind,
            own: Some(own.clone()),
            gone: own.gone.clone(),
        })
    });
    of_the_vm.into_iter().chain(of_each).collect()
}

const PROBE: Subject = Subject::new("IVA804", "probe");

/// A probe that is not asked keeps the application from ever being taken for healthy.
fn finding(site: &Site, membership: &Membership) -> Finding {
    match site.config.health.choose(membership.probe.as_ref()) {
        None if site.config.workloads.iter().any(|it| it.probe.is_some()) => {
            PROBE.ok("asks the applications by the probes of [[workload]]")
        }
        None => PROBE.ok(
            "none is configured: the application is healthy while this VM is in the mesh, or by its image's HEALTHCHECK",
        ),
        Some((_, Some(reason))) => PROBE.failed(
            reason,
            "give a probe in [health.probe], or write health.allow_remote_exec = true",
        ),
        Some((probe, None)) => match probe.port() {
            Some(port) => PROBE.ok(format!("asks the application at port {port} every {:?}", probe.period)),
            None => PROBE.ok(format!("runs a command every {:?}", probe.period)),
        },
    }
}

/// The application's health as its last probes have it, at `/app-health/NAME/livez`, `readyz` and `startupz`. Nobody has
/// the application asked once more.
fn app_health(path: &str, state: &ProbeState) -> Answer {
    let mut names = path.trim_start_matches("/app-health/").split('/');
    let is_known = matches!(
        (names.next(), names.next(), names.next()),
        (Some(name), Some("livez" | "readyz" | "startupz"), None) if !name.is_empty()
    );
    match state {
        _ if !is_known => text(
            StatusCode::BAD_REQUEST,
            "there are /app-health/NAME/livez, readyz and startupz",
        ),
        ProbeState::NotConfigured => text(StatusCode::NOT_FOUND, "the application has no probe"),
        ProbeState::Healthy => text(StatusCode::OK, "healthy"),
        // Why is root's to know.
        ProbeState::Unknown | ProbeState::Unhealthy { .. } => text(StatusCode::SERVICE_UNAVAILABLE, "not healthy"),
    }
}

fn problem(state: &ProbeState) -> Option<String> {
    match state {
        ProbeState::NotConfigured | ProbeState::Healthy => None,
        ProbeState::Unknown => Some("the application has not been judged yet: the mesh sends it nothing".to_owned()),
        ProbeState::Unhealthy { reason } => Some(format!(
            "the application fails its health probe, so the mesh sends it nothing: {reason}"
        )),
    }
}

fn unwell(state: &ProbeState) -> &str {
    match state {
        ProbeState::Unhealthy { reason } => reason,
        _ => "it has not been judged yet",
    }
}

fn line(Probed { state, last }: &Probed, now: SystemTime) -> String {
    let last = last.as_ref().map(|LastProbe { at, failure }| {
        let outcome = if failure.is_none() { "succeeded" } else { "failed" };
        format!("; the last probe {outcome} {}", ago(*at, now))
    });
    let state = match state {
        ProbeState::NotConfigured => "none configured".to_owned(),
        ProbeState::Unknown => "no result yet".to_owned(),
        ProbeState::Healthy => "healthy".to_owned(),
        ProbeState::Unhealthy { reason } => format!("UNHEALTHY: {reason}"),
    };
    state + &last.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::control_plane::fixtures::membership;
    use crate::host::{Host, System};
    use crate::part::{Shared, Units};

    #[test]
    fn application_can_be_added_by_its_probe_and_by_its_healthcheck() {
        let text = "[join]\ndirectory = { path = '/b' }\n[[workload]]\nname = 'web'\n[workload.container]\nname = 'web'\nimage = 'web'\n\
                    [[workload]]\nname = 'cache'\nprobe = { tcp = { port = 6379 } }\n";
        let site = Site {
            host: Host::new("/nowhere", System),
            config: toml::from_str::<Config>(text).unwrap(),
            units: Units::default(),
        };
        let channels = Channels::new(membership(), &site.config, Shared::default());
        let asked = witnesses(&site, &channels);
        let own = asked.iter().map(|it| it.own.as_ref().map(|own| own.name.as_str()));
        assert_eq!(own.collect::<Vec<_>>(), [Some("web"), Some("cache")]);
    }

    #[test]
    fn health_of_the_application_is_told_without_a_reason_at_istios_paths() {
        let reason = "answers NOT_SERVING".to_owned();
        for (path, state, status) in [
            ("/app-health/catalog/readyz", ProbeState::Healthy, 200),
            ("/app-health/catalog/livez", ProbeState::Unknown, 503),
            ("/app-health/catalog/startupz", ProbeState::Unhealthy { reason }, 503),
            ("/app-health/catalog/readyz", ProbeState::NotConfigured, 404),
            ("/app-health/catalog", ProbeState::Healthy, 400),
            ("/app-health//readyz", ProbeState::Healthy, 400),
            ("/app-health/catalog/readyz/x", ProbeState::Healthy, 400),
        ] {
            assert_eq!(app_health(path, &state).status(), status, "{path}");
        }
    }

    #[test]
    fn last_probe_is_told_with_its_age_and_its_outcome() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let said = |failure: Option<&str>| {
            let last = Some(LastProbe {
                at: now - Duration::from_secs(12),
                failure: failure.map(str::to_owned),
            });
            let state = ProbeState::Healthy;
            line(&Probed { state, last }, now)
        };
        assert_eq!(said(None), "healthy; the last probe succeeded 12s ago");
        assert_eq!(said(Some("refused")), "healthy; the last probe failed 12s ago");
        // As an agent of before writes it.
        let before: Probed = serde_json::from_str(r#"{"state":"unknown"}"#).unwrap();
        assert_eq!(line(&before, now), "no result yet");
    }

    #[test]
    fn unhealthy_application_is_told_with_its_reason() {
        let reason = "answers NOT_SERVING".to_owned();
        let told = problem(&ProbeState::Unhealthy { reason }).unwrap();
        assert!(told.contains("health probe") && told.ends_with("NOT_SERVING"), "{told}");
        assert_eq!(problem(&ProbeState::Healthy), None);
        assert_eq!(problem(&ProbeState::NotConfigured), None);
    }
}
