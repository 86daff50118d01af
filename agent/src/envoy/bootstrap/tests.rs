use super::*;
use crate::facts::SpiffeId;

/// The bootstrap that pilot-agent made for vm-bundle, and all that may differ from it.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/envoy/bootstrap.json");

fn environment() -> BTreeMap<String, String> {
    let labels = r#"{"app":"productcatalogservice","service.istio.io/canonical-name":"productcatalogservice","service.istio.io/canonical-revision":"latest"}"#;
    [
        ("ISTIO_SERVICE", "productcatalog.onlineboutique"),
        ("ISTIO_METAJSON_LABELS", labels),
        ("ISTIO_META_AUTO_REGISTER_GROUP", "productcatalog"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
        ("ISTIO_META_MESH_ID", ""),
        ("ISTIO_META_NETWORK", ""),
        (
            "ISTIO_META_POD_PORTS",
            r#"[{"name":"grpc","containerPort":3550,"protocol":""}]"#,
        ),
        ("ISTIO_META_WORKLOAD_NAME", "productcatalog"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The membership that `join` makes of vm-bundle.
pub(in crate::envoy) fn membership() -> Membership {
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(GOLDEN).unwrap()).unwrap();
    Membership {
        env: environment(),
        proxy_config: ProxyConfig(golden["node"]["metadata"]["PROXY_CONFIG"].as_object().unwrap().clone()),
        spiffe_id: SpiffeId {
            trust_domain: "cluster.local".to_owned(),
            namespace: "onlineboutique".to_owned(),
            service_account: "productcatalog".to_owned(),
        },
        cluster_id: "Kubernetes".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        discovery_address: "istiod.istio-system.svc:15012".to_owned(),
        ca_address: "istiod.istio-system.svc:15012".to_owned(),
        node_name: "vm".to_owned(),
        instance_ips: vec!["10.200.0.3".parse().unwrap(), "fd00:200::3".parse().unwrap()],
        inbound_ports: Some(vec![3550]),
        dns_capture: true,
        ..Membership::default()
    }
}

fn options() -> BootstrapOptions {
    BootstrapOptions {
        xds_socket: "/run/istio-vm-agent/xds.sock".into(),
        sds_socket: "/run/istio-vm-agent/sds.sock".into(),
        admin_socket: "/run/istio-vm-agent/envoy/admin.sock".into(),
        admin_port: None,
        published: Vec::new(),
    }
}

/// Every difference from the golden bootstrap, with its reason.
fn with_our_differences(mut golden: Value) -> Value {
    let metadata = &mut golden["node"]["metadata"];
    // The recording's build had no version; istiod gates features by it.
    metadata["ISTIO_VERSION"] = "1.30.0".into();
    // A variable of the recording's shell, and a file name that only pilot-agent itself reads.
    metadata.as_object_mut().unwrap().remove("X");
    metadata
        .as_object_mut()
        .unwrap()
        .remove("WORKLOAD_IDENTITY_SOCKET_FILE");
    // The admin interface is a unix socket, so that no local user but Envoy's and root reaches it.
    let socket = "/run/istio-vm-agent/envoy/admin.sock";
    golden["admin"]["address"] = json!({ "pipe": { "path": socket, "mode": 0o600 } });
    let clusters = &mut golden["static_resources"]["clusters"];
    let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
    *clusters[0].pointer_mut(endpoint).unwrap() = json!({ "pipe": { "path": socket } });
    // A flood of 15021 waits in Envoy.
    clusters[1]["circuit_breakers"] = json!({ "thresholds": [{ "max_connections": 8 }] });
    // The agent's sockets are in its run directory.
    *clusters[2].pointer_mut(endpoint).unwrap() = json!({ "pipe": { "path": "/run/istio-vm-agent/sds.sock" } });
    *clusters[3].pointer_mut(endpoint).unwrap() = json!({ "pipe": { "path": "/run/istio-vm-agent/xds.sock" } });
    // It comes back before istiod forgets the VM.
    let ads = golden
        .pointer_mut("/dynamic_resources/ads_config/grpc_services/0/envoy_grpc")
        .unwrap();
    ads["retry_policy"] = json!({ "retry_back_off": { "base_interval": "0.2s", "max_interval": "1s" } });
    // 15021 stays up while one agent follows another.
    golden["static_resources"]["listeners"][1]["filter_chains"][0]["filters"][0]["typed_config"]["local_reply_config"] = json!({
        "mappers": [{
            "filter": { "response_flag_filter": { "flags": ["UF"] } },
            "status_code": 200,
            "body": { "inline_string": "ready, without an agent" },
        }],
    });
    // What the drain watches instead of waiting a fixed time.
    let patterns = golden
        .pointer_mut("/stats_config/stats_matcher/inclusion_list/patterns")
        .unwrap();
    let patterns = patterns.as_array_mut().unwrap();
    let after = patterns
        .iter()
        .rposition(|pattern| pattern.get("suffix").is_some())
        .unwrap()
        + 1;
    patterns.insert(after, json!({ "suffix": "downstream_rq_active" }));
    patterns.insert(after, json!({ "suffix": "downstream_cx_active" }));
    golden
}

#[test]
fn bootstrap_is_what_pilot_agent_makes_of_the_same_bundle() {
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(GOLDEN).unwrap()).unwrap();
    let expected = serde_json::to_string_pretty(&with_our_differences(golden)).unwrap();
    let ours = serde_json::to_string_pretty(&bootstrap(&membership(), &options())).unwrap();
    let diff = crate::host::change::diff(&expected, &ours, "bootstrap");
    assert!(diff.is_empty(), "- Istio's, + ours:\n{diff}");
}

fn with_config(config: Value) -> Value {
    let mut membership = membership();
    let Value::Object(config) = config else { unreachable!() };
    membership.proxy_config.0.extend(config);
    bootstrap(&membership, &options())
}

#[test]
fn proxy_config_is_honoured() {
    let ours = with_config(json!({
        "extraStatTags": ["destination_port", "", "destination_port"],
        "proxyStatsMatcher": { "inclusionPrefixes": ["http.{pod_ip}_"], "inclusionRegexps": ["a.*"] },
        "runtimeValues": { "x": "true", "y": "7", "re2.max_program_size.error_level": "" },
        "connectionSettings": { "globalDownstreamConnectionLimit": 500 },
        "statusPort": 15999,
        "statsCompression": false,
    }));
    let tags = ours["stats_config"]["stats_tags"].as_array().unwrap();
    assert_eq!(tags.len(), 17);
    assert_eq!(tags[9]["regex"], r"(destination_port=\.=(.*?);\.;)");
    let patterns = ours["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"].to_string();
    for pattern in [
        r#""http.10.200.0.3_""#,
        r#""http.fd00:200::3_""#,
        r#""a.*""#,
        r#""wasm""#,
    ] {
        assert!(patterns.contains(pattern), "{pattern} is not in {patterns}");
    }
    let runtime = &ours["layered_runtime"]["layers"][0]["static_layer"];
    assert_eq!((&runtime["x"], &runtime["y"]), (&json!(true), &json!("7")));
    assert!(runtime.get("re2.max_program_size.error_level").is_none());
    let monitor = &ours["overload_manager"]["resource_monitors"][0]["typed_config"];
    assert_eq!(monitor["max_active_downstream_connections"], 500);
    // The agent listens on 15020, and 15021 asks it there.
    assert!(ours["static_resources"]["clusters"][1].to_string().contains("15020"));
    assert!(
        !ours["static_resources"]["listeners"][0]
            .to_string()
            .contains("compressor")
    );
}

#[test]
fn v6_only_vm_has_v6_addresses_and_dual_stack_has_both() {
    let mut vm = membership();
    vm.instance_ips.remove(0);
    let ours = bootstrap(&vm, &options());
    assert_eq!(ours["static_resources"]["listeners"][1]["name"], "::_15021");
    assert!(ours["static_resources"]["clusters"][1].to_string().contains(r#""::1""#));

    let mut vm = membership();
    vm.env.insert("ISTIO_DUAL_STACK".to_owned(), "true".to_owned());
    let listener = &bootstrap(&vm, &options())["static_resources"]["listeners"][1];
    assert_eq!(listener["name"], "0.0.0.0_15021");
    let other = "/additional_addresses/0/address/socket_address/address";
    assert_eq!(listener.pointer(other).unwrap(), "::");
}

#[test]
fn locality_comes_from_the_labels() {
    let of = |key: &str, value: &str| {
        let mut vm = membership();
        let labels = json!({ key: value }).to_string();
        vm.env.insert("ISTIO_METAJSON_LABELS".to_owned(), labels);
        bootstrap(&vm, &options())["node"]["locality"].clone()
    };
    let wanted = json!({ "region": "r", "zone": "z", "sub_zone": "s" });
    assert_eq!(of("topology.istio.io/locality", "r/z/s"), wanted);
    assert_eq!(of("istio-locality", "r.z.s"), wanted);
    assert_eq!(of("istio-locality", "r"), json!({ "region": "r" }));
}

#[test]
fn container_s_published_ports_have_a_listener_and_a_cluster_each() {
    let mut options = options();
    let published = |mapping: &str, endpoints: &str| PublishedPort {
        mapping: mapping.parse().unwrap(),
        endpoints: endpoints.into(),
    };
    options.published = vec![
        published("3550:8080", "/e/container.json"),
        published("81:81", "/e/cache.json"),
    ];
    let whole = bootstrap(&membership(), &options);
    let listener = whole.pointer("/static_resources/listeners/2").unwrap();
    let at = |path: &str| listener.pointer(path).unwrap().clone();
    assert_eq!(at("/address/socket_address/address"), "127.0.0.1");
    assert_eq!(at("/additional_addresses/0/address/socket_address/address"), "::1");
    assert_eq!(at("/filter_chains/1/filter_chain_match/destination_port"), 81);
    let target = at("/filter_chains/0/filters/0/typed_config/cluster");
    assert_eq!(whole.pointer("/static_resources/clusters/4/name"), Some(&target));
    let file = whole.pointer("/static_resources/clusters/5/eds_cluster_config/eds_config/path_config_source/path");
    assert_eq!(file.unwrap(), "/e/cache.json");
}

#[test]
fn node_is_of_the_cluster_s_domain() {
    let membership = Membership {
        cluster_domain: "corp.local".to_owned(),
        ..membership()
    };
    let node = node::node(&membership);
    let id = node["id"].as_str().unwrap();
    assert_eq!(id, "sidecar~10.200.0.3~vm.onlineboutique~onlineboutique.svc.corp.local");
}
