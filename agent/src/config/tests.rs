pub(crate) mod judged;

use super::*;
use std::time::Duration;

use crate::facts::{Probe, ProbeKind};

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("c.toml"), text).map_err(|error| error.to_string())
}

const MINIMAL: &str = "[join]\ndirectory = { path = \"/b\" }\n";

#[test]
fn minimal_file_has_all_defaults() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.intercept.backend, Backend::Auto);
    assert_eq!(config.intercept.on_envoy_down.inbound, FailPolicy::Closed);
    assert_eq!(config.paths, PathsConfig::default());
}

#[test]
fn documented_keys_are_read() {
    let text = r#"
        [join]
        directory = { path = "/b" }
        [control_plane]
        addresses = ["istiod-a.example:15012"]
        [network]
        address = "10.200.0.3"
        [identity]
        key = "rsa-2048"
        ttl = "12h"
        [intercept]
        backend = "nftables"
        on_envoy_down = { inbound = "closed", outbound = "open" }
        [envoy]
        admin_port = 15000
        drain = "20s"
        [workload.container]
        name = "productcatalogservice"
        image = "registry.example/p@sha256:0000000000000000000000000000000000000000000000000000000000000000"
        ports = ["3550:3551"]
        [health.probe]
        grpc = { port = 3550 }
        period = "2s"
    "#;
    let config = parse(text).unwrap();
    let container = config.workloads.containers().next().unwrap().clone();
    assert_eq!(
        container.ports,
        [PortMapping {
            host: 3550,
            container: 3551
        }]
    );
    let probe = config.health.probe.unwrap().0;
    assert_eq!(
        probe.kind,
        ProbeKind::Grpc {
            port: 3550,
            service: String::new()
        }
    );
    assert_eq!(probe.period, Duration::from_secs(2));
    assert_eq!(config.intercept.on_envoy_down.outbound, FailPolicy::Open);
}

#[test]
fn errors_name_the_file_the_line_and_the_key() {
    let cases = [
        (
            "[join]\ndirectory = { path = \"/b\" }\n[envoy]\nbinery = \"/x\"",
            &["c.toml:4:1: envoy.binery: ", "did you mean \"binary\""][..],
        ),
        (
            "[join]\ndirectory = { path = \"b\" }",
            &["c.toml", "join.directory.path", "absolute"],
        ),
        (
            "[join.gke]\nproject = \"shop\"\nendpiont = \"dns\"\n",
            &["c.toml:3:1: join.gke.endpiont: ", "did you mean \"endpoint\""],
        ),
        ("[join]\n", &["c.toml:1:1: join: names no source", "directory = {"]),
        ("", &["c.toml", "join: names no source"]),
        (
            "[join]\ndirectory = { path = \"/b\" }\n[envoy]\nlog_level = \"loud\"",
            &["envoy.log_level", "loud", "warning"],
        ),
        (
            "[join]\ndirectory = { path = \"/b\" }\n[control_plane]\naddresses = [\"istiod\"]",
            &["control_plane.addresses", "istiod"],
        ),
        (
            "[join]\ndirectory = { path = \"/b\" }\n[control_plane]\naddresses = [\"a:1\", \"b:1\", \"A:1\"]",
            &["control_plane.addresses", "\"A:1\" is there twice"],
        ),
        (
            "[join]\ndirectory = { path = \"/b\" }\n[workload.container]\nname = \"p\"\nimage = \"i\"\nports = [\"3550\"]",
            &["c.toml:6:", ": workload.container.ports: ", "3550"],
        ),
        (
            "[join]\ndirectory = { path = \"/b\" }\n[workload.container]\nname = \"p\"\nimage = \"i\"",
            &["workload.container.name", "\"p\""],
        ),
        (
            "[join]\ndirectory = { path = \"/b\" }\n[health.probe]\nperiod = \"1s\"",
            &["c.toml:3:1: health.probe: ", "exactly one of grpc"],
        ),
    ];
    for (text, wanted) in cases {
        let error = parse(text).unwrap_err();
        for word in wanted {
            assert!(error.contains(word), "{word:?} is missing in {error:?}");
        }
    }
}

#[test]
fn envoy_comes_from_one_place_and_pinned() {
    let digest = "ab".repeat(32);
    let parsed = |keys: &str| parse(&format!("{MINIMAL}[envoy]\n{keys}"));
    let source = |keys: &str| parsed(keys).unwrap().envoy.source();
    assert_eq!(source(""), EnvoySource::Binary("/usr/local/bin/envoy".into()));
    assert_eq!(source("binary = '/e'"), EnvoySource::Binary("/e".into()));
    let reference = format!("docker.io/istio/proxyv2:1.2@sha256:{digest}");
    let wanted = EnvoySource::Image {
        reference: reference.clone(),
        sha256: digest.clone(),
        registry_config: Some("/config.json".into()),
        ca_file: Some("/ca.pem".into()),
    };
    assert_eq!(
        source(&format!(
            "image = '{reference}'\nregistry_config = '/config.json'\nca_file = '/ca.pem'"
        )),
        wanted
    );
    let wanted = EnvoySource::Url {
        url: "https://h/envoy".to_owned(),
        sha256: digest.clone(),
        ca_file: Some("/ca.pem".into()),
    };
    let keys = format!(
        "url = 'https://h/envoy'\nsha256 = '{}'\nca_file = '/ca.pem'",
        digest.to_uppercase()
    );
    assert_eq!(source(&keys), wanted);

    for (keys, wanted) in [
        (
            "image = 'istio/proxyv2:1.30'".to_owned(),
            "must end with the image's digest",
        ),
        (
            format!("image = 'p@sha256:{}'", &digest[1..]),
            "must end with the image's digest",
        ),
        ("url = 'https://h/envoy'".to_owned(), "envoy.sha256 is missing"),
        ("url = 'https://h/envoy'\nsha256 = 'beef'".to_owned(), "64 hexadecimal"),
        (format!("url = 'http://h/envoy'\nsha256 = '{digest}'"), "must be https"),
        (
            format!("url = 'https://me:secret@h/envoy'\nsha256 = '{digest}'"),
            "without a user name",
        ),
        (format!("sha256 = '{digest}'"), "no envoy.url"),
        ("ca_file = '/ca.pem'".to_owned(), "no envoy.url"),
        (format!("binary = '/e'\nimage = '{reference}'"), "only one of them"),
        ("binary = 'e'".to_owned(), "absolute path"),
    ] {
        let error = parsed(&keys).unwrap_err();
        assert!(
            error.contains(wanted) && error.starts_with("c.toml:") && error.contains(": envoy."),
            "{keys}: {error}"
        );
    }
}

#[test]
fn file_that_is_too_long_is_refused() {
    let text = format!("{MINIMAL}#{}", "x".repeat(MAX_BYTES));
    assert!(parse(&text).unwrap_err().contains("bytes long"));
}

const EXAMPLE: &str = include_str!("../../../config.example.toml");

#[test]
fn example_is_the_defaults() {
    let example = parse(EXAMPLE).unwrap();
    let minimal = parse("[join]\ndirectory = { path = \"/etc/istio-vm-agent/bundle\" }\n").unwrap();
    assert_eq!(example, minimal);
}

/// The table that the example shows as another source, on its own.
fn alternative(table: &str) -> String {
    let lines = EXAMPLE.lines().skip_while(|line| *line != format!("##[{table}]"));
    let lines = lines.take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| Some(format!("{}\n", line.strip_prefix("##")?)))
        .collect()
}

#[test]
fn other_sources_of_the_example_are_read_and_what_they_show_as_a_default_is_one() {
    let JoinConfig::Https(https) = parse(&alternative("join.https")).unwrap().join else {
        panic!("another source")
    };
    let minimal = parse(&format!("[join.https]\nurl = {:?}", https.url)).unwrap().join;
    let without_files = HttpsConfig {
        ca_file: None,
        header_file: None,
        public_key: None,
        ..https
    };
    assert_eq!(minimal, JoinConfig::Https(without_files));
}

#[test]
fn example_of_a_gke_cluster_shows_its_defaults() {
    let JoinConfig::Gke(gke) = parse(&alternative("join.gke")).unwrap().join else {
        panic!("another source")
    };
    let minimal = "[join.gke]\nproject = 'shop'\nlocation = 'europe-west1'\ncluster = 'boutique'\n\
                   namespace = 'onlineboutique'\nworkload_group = 'productcatalog'";
    let minimal = parse(minimal).unwrap().join;
    assert_eq!(minimal, JoinConfig::Gke(Box::new(GkeConfig { ingress: None, ..*gke })));
}

#[test]
fn example_of_a_service_shows_its_defaults() {
    let example = parse(&format!("{MINIMAL}{}", alternative("workload.service"))).unwrap();
    let minimal = format!("{MINIMAL}[workload.service]\nunit = 'productcatalog.service'");
    assert_eq!(example.workloads, parse(&minimal).unwrap().workloads);
}

#[test]
fn workload_is_one_thing_and_a_service_has_a_name_of_its_own() {
    let error = |keys: &str| parse(&format!("{MINIMAL}{keys}")).unwrap_err();
    let both = "[workload.service]\nunit = 'a.service'\n[workload.container]\nname = 'web'\nimage = 'web:1'";
    assert!(error(both).contains("remove one of them"), "{}", error(both));
    for unit in [
        "a",
        "a.timer",
        "a@.service",
        ".service",
        "-a.service",
        "a b.service",
        "istio-vm-agent-dns.service",
    ] {
        let error = error(&format!("[workload.service]\nunit = '{unit}'"));
        assert!(error.contains("workload.service.unit"), "{unit}: {error}");
    }
    for unit in ["a.service", "a@1.service", "a_b-c.service"] {
        parse(&format!("{MINIMAL}[workload.service]\nunit = '{unit}'")).unwrap();
    }
}

#[test]
fn life_is_probed_of_an_application_that_the_agent_runs_and_three_times() {
    let probe = "[health.liveness_probe]\ntcp = { port = 7 }\n";
    let error = parse(&format!("{MINIMAL}{probe}")).unwrap_err();
    assert!(
        error.contains("health.liveness_probe") && error.contains("[workload.service]"),
        "{error}"
    );
    let config = parse(&format!("{MINIMAL}{probe}[workload.service]\nunit = 'a.service'\n")).unwrap();
    assert_eq!(config.health.liveness_probe.unwrap().0.failure_threshold, 3);
}

/// The example with every key that it comments out.
fn uncommented() -> String {
    EXAMPLE
        .lines()
        // "#key = …" and "#[table]" are settings, "# Words" are not, "##key" is an alternative.
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with([' ', '#']) => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn every_key_that_the_example_comments_out_is_one() {
    let config = parse(&uncommented()).unwrap();
    assert!(
        config.workloads.containers().next().is_some() && config.health.probe.is_some() && config.envoy.drain.is_some()
    );
    // What is shown as a default is the default.
    assert_eq!(config.paths, PathsConfig::default());
    assert_eq!(config.identity, IdentityConfig::default());
    assert_eq!(config.intercept, InterceptConfig::default());
    assert_eq!(config.log, LogConfig::default());
}

#[test]
fn command_that_others_chose_is_asked_only_where_the_operator_allows_it() {
    let theirs = |kind| Probe {
        kind,
        ..parse(&format!("{MINIMAL}[health.probe]\ntcp = {{ port = 1 }}\n"))
            .unwrap()
            .health
            .probe
            .unwrap()
            .0
    };
    let command = vec!["true".to_owned()];
    let exec = theirs(ProbeKind::Exec { command });
    let chosen = |keys: &str, theirs| parse(&format!("{MINIMAL}{keys}")).unwrap().health.choose(theirs);
    let (probe, refused) = chosen("", Some(&exec)).unwrap();
    assert_eq!(probe, exec);
    assert!(refused.unwrap().contains("health.allow_remote_exec = true"));
    assert_eq!(
        chosen("[health]\nallow_remote_exec = true", Some(&exec)),
        Some((exec.clone(), None))
    );
    let tcp = theirs(ProbeKind::Tcp { host: None, port: 7 });
    assert_eq!(chosen("", Some(&tcp)), Some((tcp.clone(), None)));
    assert_eq!(chosen("", None), None);
    // The operator's own may be one.
    let (own, refused) = chosen("[health.probe]\nexec = { command = ['own'] }", Some(&exec)).unwrap();
    assert!(own != exec && refused.is_none());
}

#[test]
fn duration_that_can_not_be_added_up_is_refused_by_its_key() {
    let mut seen = 0;
    for text in [uncommented(), alternative("join.https")] {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line
                .split_once(" = \"")
                .and_then(|(key, rest)| Some((key, rest.split_once('"')?.0)))
            else {
                continue;
            };
            // `512m` is a size, and would be half a day; a stop has limits of its own.
            let is_of_a_stop = ["drain", "stop_timeout", "propagation"].contains(&key);
            if humantime::parse_duration(value).is_err() || ["memory", "log_size"].contains(&key) || is_of_a_stop {
                continue;
            }
            seen += 1;
            for value in ["365days", "365days 1s", "18446744073709551615s"] {
                let error = match parse(&text.replace(&format!("\n{line}"), &format!("\n{key} = {value:?}"))) {
                    Ok(_) if (key, value) == ("ttl", "365days") => continue,
                    taken => taken.unwrap_err(),
                };
                let has_its_limit = ["365days or less", "must be from", "or less"]
                    .iter()
                    .any(|words| error.contains(words));
                assert!(error.contains(key) && has_its_limit, "{key}: {error}");
            }
        }
    }
    assert!(seen >= 6, "the example shows {seen} durations");
}
