//! The page of a VM: its own metrics beside those of servers on loopback.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::future::{BoxFuture, FutureExt, ready};
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{MetricsPart, pages};
use crate::config::Config;
use crate::control_plane::fixtures::membership;
use crate::part::{Answer, Channels, Page, Part, Shared};
use crate::supervise::Scope;

pub(super) fn channels() -> Channels {
    Channels::new(membership(), &Config::default(), Shared::default())
}

/// A server on loopback with this answer to whatever it is asked.
async fn server(kind: &'static str, body: String) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().fallback(async move || ([(CONTENT_TYPE, kind)], body.clone()));
    let mut task = JoinSet::new();
    task.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (port, task)
}

fn page() -> Page {
    let refresh = Box::new(|_| ready(()).boxed());
    pages(vec![MetricsPart.metrics()], refresh).remove(0)
}

/// An answer to a scraper that accepts this.
fn asked(page: &Page, channels: &Channels, accept: &str) -> BoxFuture<'static, Answer> {
    let request = Request::get("/metrics").header(ACCEPT, accept).body(()).unwrap();
    page.answer(Scope::detached().0, channels.clone(), request.into_parts().0)
}

/// The page's text and content type for a scraper that accepts this.
async fn scraped(channels: &Channels, accept: &str) -> (String, String) {
    let answer = asked(&page(), channels, accept).await;
    let kind = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (String::from_utf8(body.into()).unwrap(), kind)
}

fn member_with(targets: &[u16]) -> Channels {
    let channels = channels();
    let targets: Vec<_> = targets.iter().map(|port| json!({ "port": port.to_string() })).collect();
    let variable = json!({ "targets": targets }).to_string();
    channels.membership.send_modify(|membership| {
        let env = &mut Arc::make_mut(membership).env;
        env.insert("ISTIO_PROMETHEUS_ANNOTATIONS".to_owned(), variable);
        env.insert("PILOT_AGENT_MERGE_ENVOY_STATS".to_owned(), "false".to_owned());
    });
    channels
}

#[tokio::test]
async fn page_is_in_the_format_that_is_asked_for_whatever_the_application_speaks() {
    let open = "# TYPE orders counter\norders_total 3\n# EOF\n".to_owned();
    let (port, _server) = server("application/openmetrics-text; version=1.0.0", open).await;
    let channels = member_with(&[port]);
    let (text, kind) = scraped(&channels, "text/plain").await;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert!(
        text.ends_with("# TYPE orders_total counter\norders_total 3\n"),
        "{text}"
    );
    assert!(text.contains("istio_agent_scrapes_total 1"), "{text}");
    assert!(
        text.contains("istio_vm_agent_scrape_source_up{type=\"application\"} 1"),
        "{text}"
    );
    let (text, kind) = scraped(&channels, "application/openmetrics-text;version=1.0.0").await;
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    assert!(
        text.ends_with("# TYPE orders counter\norders_total 3\n# EOF\n"),
        "{text}"
    );
    assert_eq!(text.matches("# EOF").count(), 1);
}

#[tokio::test]
async fn source_that_fails_is_told_and_costs_the_others_nothing() {
    let (good, _good) = server("text/plain; version=0.0.4", "good 1\n".to_owned()).await;
    let (protobuf, _protobuf) = server("application/vnd.google.protobuf", String::new()).await;
    let (long, _long) = server("text/plain", "long 1\n".repeat(1 << 20)).await;
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for bad in [protobuf, long, closed] {
        let channels = member_with(&[bad, good]);
        let (text, _) = scraped(&channels, "text/plain").await;
        assert!(text.ends_with("\ngood 1\n") && !text.contains("long 1"), "{text}");
        assert!(
            text.contains("istio_agent_scrape_failures_total{type=\"application\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("istio_vm_agent_scrape_source_up{type=\"application\"} 0"),
            "{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn source_that_says_nothing_is_waited_for_no_longer_than_a_scrape_has() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channels = member_with(&[silent.local_addr().unwrap().port()]);
    let began = Instant::now();
    let (text, _) = scraped(&channels, "text/plain").await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(
        text.contains("istio_vm_agent_scrape_source_up{type=\"application\"} 0"),
        "{text}"
    );
}

/// The sound line in the middle of such as Prometheus refuses a page for, and such as tell of the agent and of Envoy.
#[tokio::test]
async fn application_costs_nobody_the_page_and_tells_of_nobody_else() {
    let hostile = "# TYPE istio_vm_agent_ready gauge\nistio_vm_agent_ready 1\nenvoy_server_live 0\na{b:c=\"1\"} 1\n\
                   a{b=\"1\",b=\"2\"} 1\n# UNIT a seconds\nsound 1\na 1 NaN\na{__name__=\"istio_build\"} 1\n<html>\n";
    let (port, _server) = server("text/plain", hostile.to_owned()).await;
    let channels = member_with(&[port]);
    for accept in ["text/plain", "application/openmetrics-text;version=1.0.0"] {
        let (text, _) = scraped(&channels, accept).await;
        let theirs = text.rsplit("whole, 0 for one that is not.\n").next().unwrap();
        let theirs: Vec<&str> = theirs
            .lines()
            .filter(|line| !line.contains("istio_vm_agent_scrape_source_up"))
            .collect();
        let end = theirs.iter().position(|line| *line == "# EOF").unwrap_or(theirs.len());
        assert_eq!(theirs[..end], ["sound 1"], "{text}");
    }
    let (text, _) = scraped(&channels, "text/plain").await;
    let dropped = "istio_vm_agent_scrape_samples_dropped_total{type=\"application\"} 21.0";
    assert!(text.contains(dropped), "{text}");
    let missing = channels.missing_metrics.borrow().clone().unwrap().reason;
    let told =
        format!("7 samples of http://localhost:{port}/metrics are left out of the page of metrics: line 2: its name");
    assert!(missing.starts_with(&told), "{missing}");
}

fn without_sources() -> Channels {
    let channels = member_with(&[]);
    channels.membership.send_modify(|membership| {
        let off = r#"{"scrape":"false"}"#.to_owned();
        Arc::make_mut(membership)
            .env
            .insert("ISTIO_PROMETHEUS_ANNOTATIONS".to_owned(), off);
    });
    channels
}

#[tokio::test(start_paused = true)]
async fn page_of_each_format_serves_all_who_ask_within_two_seconds() {
    let (channels, page) = (without_sources(), page());
    let made = || channels.counts.scrapes.total.get();
    for _ in 0..3 {
        for accept in ["text/plain", "application/openmetrics-text;version=1.0.0"] {
            asked(&page, &channels, accept).await;
        }
    }
    assert_eq!(made(), 2);
    tokio::time::advance(Duration::from_secs(3)).await;
    asked(&page, &channels, "text/plain").await;
    assert_eq!(made(), 3);
}

#[tokio::test(start_paused = true)]
async fn page_is_made_to_its_end_though_whoever_asked_for_it_went_away() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channels = member_with(&[silent.local_addr().unwrap().port()]);
    let page = page();
    for _ in 0..10 {
        let patience = Duration::from_millis(100);
        let asker = tokio::time::timeout(patience, asked(&page, &channels, "text/plain"));
        assert!(asker.await.is_err());
    }
    assert!(asked(&page, &channels, "text/plain").await.status().is_success());
    assert_eq!(channels.counts.scrapes.total.get(), 1);
}
