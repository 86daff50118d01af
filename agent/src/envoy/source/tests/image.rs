//! The program out of an image.

use flate2::Compression;
use flate2::write::GzEncoder;
use kit::oci::Registry;

use super::super::fetch;
use super::{PROGRAM, Providing, Vm};
use crate::config::EnvoyConfig;

fn of_image(registry: &Registry) -> Vm {
    Vm::new(EnvoyConfig {
        image: Some(registry.pinned()),
        ..EnvoyConfig::default()
    })
}

fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[tokio::test]
async fn image_gives_the_envoy_of_its_highest_layer_that_has_one() {
    let lowest = layer(&[("usr/local/bin/envoy", b"\x7fELF of before")]);
    let middle = layer(&[("etc/envoy", b"no"), ("usr/local/bin/envoy", PROGRAM)]);
    let registry = Registry::with(&[lowest, middle, layer(&[("usr/local/bin/pilot-agent", b"no")])]).await;
    let vm = of_image(&registry);
    let mut told = Vec::new();
    let path = fetch(&vm.options, &mut |progress| told.push(progress)).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), PROGRAM);
    let pin = registry.pinned();
    let pin = pin.rsplit_once(':').unwrap().1;
    assert!(path.ends_with(format!("{pin}/envoy")), "{path:?}");
    assert_eq!(vm.kept(), [pin]);
    // The index, this machine's manifest and two layers: the lowest was not asked for.
    assert_eq!(registry.edit(|content| content.asked.len()), 4);
    assert!(told.iter().all(|progress| progress.here < progress.all), "{told:?}");
    // No registry is needed from now on.
    drop(registry);
    assert_eq!(Providing::of(&vm).program().await, path);
}

#[tokio::test]
async fn image_without_an_envoy_is_told_and_tried_again() {
    let registry = Registry::with(&[layer(&[("readme", b"x")])]).await;
    let vm = of_image(&registry);
    let mut providing = Providing::of(&vm);
    providing.says("is it an image of Istio's proxyv2?").await;
    let error = fetch(&vm.options, &mut |_| ()).await.unwrap_err().to_string();
    assert!(error.starts_with("failed to fetch envoy.image 127.0.0.1:"), "{error}");
    registry.hold(&[layer(&[("usr/local/bin/envoy", b"#!/bin/sh")])]);
    let vm = of_image(&registry);
    Providing::of(&vm).says("`envoy` in the archive is no program").await;
}
