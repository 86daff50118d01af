//! The labels by which the agent knows its containers.
//!
//! A label alone tells nothing: an image may carry the same ones, as `docker commit` gives it all of its container's,
//! and every container of that image has them. So the labels count that a container has and its image has not; and
//! those are never the same, because each container is made with a mark of its own.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use bollard::models::ContainerInspectResponse;

use super::call::{CALL_TIMEOUT, absent_is_none, bounded};
use super::engine::Engine;

/// The prefix of all labels of the agent's.
const PREFIX: &str = "io.istio.vm-agent.";
/// The label that marks a container as the agent's.
pub(crate) const MANAGED: &str = "io.istio.vm-agent.managed";
/// The label that tells a container from every other.
const MARK: &str = "io.istio.vm-agent.mark";

/// The labels of a container that is about to be made.
pub(crate) fn new_labels() -> HashMap<String, String> {
    HashMap::from([
        (MANAGED.to_owned(), "true".to_owned()),
        (MARK.to_owned(), format!("{:032x}", fastrand::u128(..))),
    ])
}

impl Engine {
    /// True when this agent made the container, or one before it. A container whose image is gone is taken for somebody
    /// else's: nobody can tell any more whose its labels are.
    pub(crate) async fn is_ours(&self, container: &ContainerInspectResponse) -> Result<bool> {
        let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
        let own = own(labels);
        let (Some("true"), Some(image)) = (own.get(MANAGED).copied(), &container.image) else {
            return Ok(false);
        };
        let image = absent_is_none(bounded(CALL_TIMEOUT, self.client.inspect_image(image)).await)
            .with_context(|| format!("failed to look at the image {image} of a container"))?;
        let inherited = image.map(|image| image.config.and_then(|config| config.labels));
        Ok(inherited.is_some_and(|inherited| own != self::own(inherited.as_ref())))
    }
}

/// The labels of the agent's among all labels.
fn own(labels: Option<&HashMap<String, String>>) -> BTreeMap<&str, &str> {
    let labels = labels.into_iter().flatten();
    let pairs = labels.map(|(name, value)| (name.as_str(), value.as_str()));
    pairs.filter(|(name, _)| name.starts_with(PREFIX)).collect()
}
