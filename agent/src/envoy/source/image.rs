//! Envoy's program out of an image, straight from its registry.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::store::Store;
use super::unpack;
use crate::docker::Progress;
use crate::host::blocking;
use crate::oci::{Access, Image};

/// Fetches the layers of the image, the highest first, until one has the program, keeps that under `pin`, and tells of
/// the bytes that are here.
pub(super) async fn keep(
    access: &Access,
    reference: &str,
    pin: &str,
    store: &Store,
    tell: &mut (dyn FnMut(Progress) + Send),
) -> Result<PathBuf> {
    let mut image = Image::open(access, reference).await?;
    let layers = image.layers().await?;
    let all = layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    let mut before = 0;
    for layer in layers.iter().rev() {
        let mut fetched = store.receive()?;
        let saved = image.save(layer, &mut fetched, |here| {
            tell(Progress {
                here: before + here,
                all,
            });
        });
        saved.await?;
        before += layer.size;
        let (store, pin) = (store.clone(), pin.to_owned());
        if let Some(path) = blocking(move || store.keep(&pin, fetched, unpack::layer)).await? {
            return Ok(path);
        }
    }
    bail!("it has no /{}: is it an image of Istio's proxyv2?", unpack::PLACE)
}

/// Asks whether the registry has the image. Fails when it has not.
pub(super) async fn ask(access: &Access, reference: &str) -> Result<()> {
    Image::open(access, reference).await?.layers().await.map(drop)
}
