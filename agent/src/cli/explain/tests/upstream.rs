//! Endpoints that no connection comes about to.

use super::*;

/// One connection has timed out, and another is on its way.
pub(super) fn swallowed(world: &mut World) {
    for (stat, value) in [
        ("cx_connect_fail", "1"),
        ("cx_total", "2"),
        ("cx_active", "1"),
        ("rq_total", "0"),
    ] {
        world.stat(stat, value);
    }
}

#[test]
fn endpoint_that_refuses_is_told_so_where_the_log_says_it() {
    let told = |reason: Option<&str>| {
        let mut world = World::asked("cartservice:7070");
        world.stat("cx_connect_fail", "4");
        world.stat("cx_total", "4");
        world.stat("cx_active", "0");
        let line = |reason: &str| {
            format!(
                r#"[2026-11-26T18:00:00.1Z] "POST /a HTTP/2" 503 UF {reason} - "-" 0 0 12 - "-" "x" "id" "cartservice:7070" "10.200.0.4:7070" outbound|7070||cartservice - 10.96.186.61:7070 10.200.0.3:40000 - default"#
            )
        };
        world.state.question.error = reason.map(|reason| access_log::last_error(&line(reason)).unwrap());
        world.explained().decision().unwrap().remedy.clone().unwrap()
    };
    let refused =
        "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}";
    assert!(told(Some(refused)).starts_with("a machine is there and refuses the port"));
    let late = told(Some("upstream_reset_before_response_started{connection_timeout}"));
    assert!(late.contains("firewall") && !late.contains("--last-error"), "{late}");
    assert!(told(None).contains("`istio-vm-agent explain --last-error`"));
}

#[test]
fn certificate_is_asked_about_with_mtls_alone() {
    let told = |endpoint: &str| {
        let mut world = World::asked("cartservice:7070");
        world.stat("cx_connect_fail", "4");
        world.stat("cx_total", "4");
        world.stat("cx_active", "0");
        if endpoint == "plaintext" {
            world
                .cluster()
                .as_object_mut()
                .unwrap()
                .remove("transport_socket_matches");
            world.cluster().as_object_mut().unwrap().remove("transport_socket");
        }
        world.explained().decision().unwrap().remedy.clone().unwrap()
    };
    assert!(told("mTLS").contains("certificate"));
    assert!(!told("plaintext").contains("certificate"));
}
