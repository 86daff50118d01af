//! The checked-in code is what the .proto files say. `UPDATE=1 cargo test -p istio-api --test generated`
//! writes it anew.

#![expect(clippy::disallowed_methods, reason = "the repository's own files")]

use std::collections::BTreeMap;
use std::path::Path;

use tonic_build::manual;

const FILES: [&str; 9] = [
    "envoy/core.proto",
    "envoy/discovery.proto",
    "envoy/secret.proto",
    "envoy/tls.proto",
    "google/rpc.proto",
    "grpc/health.proto",
    "hipstershop/demo.proto",
    "istio/ca.proto",
    "istio/nds.proto",
];

#[test]
fn checked_in_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = root.join("src/generated");
    let fresh = tempfile::tempdir().unwrap();
    generate(&root.join("proto"), fresh.path());
    let wanted = files(fresh.path());
    if std::env::var_os("UPDATE").is_some() {
        for name in files(&checked_in).keys() {
            std::fs::remove_file(checked_in.join(name)).unwrap();
        }
        for name in wanted.keys() {
            std::fs::copy(fresh.path().join(name), checked_in.join(name)).unwrap();
        }
    }
    let found = files(&checked_in);
    assert_eq!(
        wanted.keys().collect::<Vec<_>>(),
        found.keys().collect::<Vec<_>>(),
        "run with UPDATE=1"
    );
    for (name, text) in wanted {
        assert!(
            text == found[&name],
            "src/generated/{name} is not what proto/ says: run with UPDATE=1"
        );
    }
}

fn generate(protos: &Path, out: &Path) {
    tonic_prost_build::configure()
        .bytes(".")
        .compile_well_known_types(true)
        .emit_rerun_if_changed(false)
        .include_file("packages.rs")
        .out_dir(out)
        .compile_fds(protox::compile(FILES, [protos]).unwrap())
        .unwrap();
    // The same service over messages that are never decoded.
    let stream = |name: &str, route: &str| {
        manual::Method::builder()
            .name(name)
            .route_name(route)
            .input_type("crate::frame::Frame")
            .output_type("crate::frame::Frame")
            .codec_path("crate::frame::FrameCodec")
            .client_streaming()
            .server_streaming()
            .build()
    };
    let service = manual::Service::builder()
        .package("envoy.service.discovery.v3")
        .name("AggregatedDiscoveryService")
        .method(stream("stream_aggregated_resources", "StreamAggregatedResources"))
        .method(stream("delta_aggregated_resources", "DeltaAggregatedResources"))
        .build();
    let frames = out.join("frames");
    std::fs::create_dir(&frames).unwrap();
    manual::Builder::new().out_dir(&frames).compile(&[service]);
    std::fs::rename(
        frames.join("envoy.service.discovery.v3.AggregatedDiscoveryService.rs"),
        out.join("frames.rs"),
    )
    .unwrap();
    std::fs::remove_dir(frames).unwrap();
}

fn files(directory: &Path) -> BTreeMap<String, String> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read_to_string(entry.path()).unwrap(),
            )
        })
        .collect()
}
