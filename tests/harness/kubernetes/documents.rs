//! YAML texts as objects, and where the API server keeps them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Cluster;

/// Every object of a text: its documents, and the items of a List.
pub(super) fn parse(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("failed to read the YAML")?;
    let objects: Vec<Value> = documents.into_iter().flat_map(items).collect();
    ensure!(!objects.is_empty(), "there is no object in {text:?}");
    Ok(objects)
}

fn items(document: Value) -> Vec<Value> {
    match (document["kind"].as_str(), document["items"].as_array()) {
        (Some("List"), Some(items)) => items.clone(),
        _ => vec![document],
    }
}

/// For messages.
pub(super) fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The object's path, by what the API server says of its kind.
pub(super) fn path(cluster: &Cluster, object: &Value) -> Result<String> {
    let version = object["apiVersion"].as_str().context("no apiVersion")?;
    let folder = if version.contains('/') { "apis" } else { "api" };
    let kinds = cluster.get(&format!("/{folder}/{version}"))?;
    let kind = kinds["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|kind| kind["kind"] == object["kind"] && !kind["name"].as_str().is_some_and(|name| name.contains('/')))
        .with_context(|| format!("{}: {version} has no such kind", name(object)))?;
    let plural = kind["name"].as_str().context("a kind without a name")?;
    let own = object["metadata"]["name"].as_str().context("no metadata.name")?;
    if kind["namespaced"] != true {
        return Ok(format!("/{folder}/{version}/{plural}/{own}"));
    }
    let namespace = object["metadata"]["namespace"].as_str();
    let namespace = namespace.with_context(|| format!("{} has no namespace", name(object)))?;
    Ok(format!("/{folder}/{version}/namespaces/{namespace}/{plural}/{own}"))
}
