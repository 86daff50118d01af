//! The configuration that comes with a Compute Engine instance, as attributes of its metadata: the whole file as one,
//! or the few names that `join.gke` needs, one by one.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::attribute::{CLUSTER, ENDPOINT, LOCATION, NAMESPACE, PREFIX, SINGLE, WHOLE, WORKLOAD_GROUP, attribute_of};
use super::gke::resource_name;
use super::kubernetes::kubernetes_name;
use super::{Config, ConfigError, JoinConfig, KeyOrigin, KeyPlaces, Place, did_you_mean};
use crate::facts::kubernetes_name::is_kubernetes_name;

/// Attributes by name.
pub(crate) type Attributes = BTreeMap<String, String>;

const ENDPOINTS: [&str; 4] = ["auto", "public", "private", "dns"];

/// Ours. The instance's say more than the project's, which every instance has: one by one, or all at once when the
/// instance has a whole configuration.
pub(crate) fn ours(instance: Attributes, project: Attributes) -> Attributes {
    let is_ours = |(name, _): &(String, String)| name.starts_with(PREFIX);
    let instance: Attributes = instance.into_iter().filter(is_ours).collect();
    if instance.contains_key(WHOLE) {
        return instance;
    }
    project.into_iter().filter(is_ours).chain(instance).collect()
}

/// The name of a cluster that says neither project nor location.
pub(crate) fn short_cluster(attributes: &Attributes) -> Option<&str> {
    let cluster = attributes.get(CLUSTER)?.trim();
    (!cluster.contains('/')).then_some(cluster)
}

/// Completes a short name of a cluster by where the instance is.
pub(crate) fn complete(attributes: &mut Attributes, project: &str, zone: &str) {
    if let Some(cluster) = short_cluster(attributes).map(str::to_owned) {
        // europe-west1-b is in europe-west1.
        let region = zone.rsplit_once('-').map_or(zone, |(region, _)| region);
        let location = attributes.remove(LOCATION);
        let location = location.as_deref().map_or(region, str::trim);
        let full = format!("projects/{project}/locations/{location}/clusters/{cluster}");
        attributes.insert(CLUSTER.to_owned(), full);
    }
}

impl Config {
    /// The configuration in attributes, as `ours` and `complete` leave them; errors name the attribute, and the line.
    pub fn from_attributes(attributes: &Attributes) -> Result<Self, ConfigError> {
        let wrong = |name: &str, problem: String| ConfigError::about(place(name), problem);
        if let Some(text) = attributes.get(WHOLE) {
            if let Some(other) = attributes.keys().find(|name| *name != WHOLE) {
                return Err(wrong(
                    other,
                    format!("is beside {WHOLE}, which says it all: remove one of them"),
                ));
            }
            return Self::parse(place(WHOLE).as_ref(), text);
        }
        if let Some(unknown) = attributes.keys().find(|name| !SINGLE.contains(&name.as_str())) {
            return Err(wrong(
                unknown,
                format!(
                    "is unknown{}: there are {WHOLE}, or {}",
                    did_you_mean(unknown, SINGLE.into_iter().chain([WHOLE])),
                    SINGLE.join(", ")
                ),
            ));
        }
        let join = gke(attributes).map_err(|(name, problem)| wrong(name, problem))?;
        let config = Table::from_iter([(
            "join".to_owned(),
            Value::from(Table::from_iter([("gke".to_owned(), join)])),
        )]);
        let mut config = Self::parse(place("istio-vm-agent-*").as_ref(), &config.to_string())?;
        if let JoinConfig::Gke(gke) = &mut config.join {
            gke.keys = KeyOrigin::Attributes;
        }
        let keys = [
            "project",
            "location",
            "cluster",
            "namespace",
            "workload_group",
            "endpoint",
        ];
        let written = keys.into_iter().filter_map(|key| {
            let attribute = attribute_of(key)
                .filter(|name| attributes.contains_key(*name))
                .or(match key {
                    "project" | "location" => Some(CLUSTER),
                    _ => None,
                })?;
            Some((format!("join.gke.{key}"), Place::from(place(attribute))))
        });
        config.places = KeyPlaces(written.collect());
        Ok(config)
    }
}

/// `join.gke`; an error is of one attribute.
fn gke(attributes: &Attributes) -> Result<Value, (&'static str, String)> {
    let get = |name: &'static str| attributes.get(name).map(|value| value.trim());
    let required = |name| get(name).ok_or_else(|| (name, format!("is missing, beside {}", present(attributes))));
    let cluster = required(CLUSTER)?;
    let parts: Vec<&str> = cluster.split('/').collect();
    let ["projects", project, "locations", location, "clusters", name] = parts.as_slice() else {
        let problem = "is neither projects/PROJECT/locations/LOCATION/clusters/NAME nor a name alone";
        return Err((CLUSTER, format!("{cluster:?} {problem}")));
    };
    if attributes.contains_key(LOCATION) {
        return Err((LOCATION, format!("is said by {CLUSTER} already: remove it")));
    }
    for part in [project, location, name] {
        resource_name(cluster, part).map_err(|problem| (CLUSTER, problem))?;
    }
    let (namespace, group) = (required(NAMESPACE)?, required(WORKLOAD_GROUP)?);
    for (attribute, value) in [(NAMESPACE, namespace), (WORKLOAD_GROUP, group)] {
        kubernetes_name("the value", value, is_kubernetes_name(value)).map_err(|problem| (attribute, problem))?;
    }
    let endpoint = get(ENDPOINT).unwrap_or("auto");
    if !ENDPOINTS.contains(&endpoint) {
        let meant = did_you_mean(endpoint, ENDPOINTS);
        return Err((
            ENDPOINT,
            format!("{endpoint:?} is none of {}{meant}", ENDPOINTS.join(", ")),
        ));
    }
    let keys = [
        ("project", *project),
        ("location", *location),
        ("cluster", *name),
        ("namespace", namespace),
        ("workload_group", group),
        ("endpoint", endpoint),
    ];
    let keys = keys.map(|(key, value)| (key.to_owned(), Value::from(value)));
    Ok(Value::from(Table::from_iter(keys)))
}

fn present(attributes: &Attributes) -> String {
    attributes.keys().cloned().collect::<Vec<_>>().join(", ")
}

fn place(name: &str) -> String {
    Path::new("instance metadata").join(name).display().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::GkeEndpoint;

    fn attributes(pairs: &[(&str, &str)]) -> Attributes {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    const FULL: &str = "projects/shop/locations/europe-west1/clusters/boutique";

    #[test]
    fn attributes_join_a_cluster_when_there_are_three() {
        let mut ours = attributes(&[
            (CLUSTER, "boutique"),
            (NAMESPACE, "shop"),
            (WORKLOAD_GROUP, "catalog\n"),
        ]);
        complete(&mut ours, "project-1", "europe-west1-b");
        let JoinConfig::Gke(gke) = Config::from_attributes(&ours).unwrap().join else {
            panic!("another source")
        };
        assert_eq!(
            gke.cluster_name(),
            "projects/project-1/locations/europe-west1/clusters/boutique"
        );
        assert_eq!(
            (gke.workload_group.as_str(), gke.endpoint, gke.keys),
            ("catalog", GkeEndpoint::Auto, KeyOrigin::Attributes)
        );

        let mut zonal = attributes(&[(CLUSTER, "boutique"), (LOCATION, "europe-west1-c")]);
        complete(&mut zonal, "p", "europe-west1-b");
        assert_eq!(
            zonal,
            attributes(&[(CLUSTER, "projects/p/locations/europe-west1-c/clusters/boutique")])
        );
    }

    #[test]
    fn whole_configuration_is_one_attribute_and_its_lines_are_named() {
        let text = "[join]\ndirectory = { path = \"/b\" }\n";
        assert!(Config::from_attributes(&attributes(&[(WHOLE, text)])).is_ok());
        let error = Config::from_attributes(&attributes(&[(WHOLE, &format!("{text}[envoy]\nbinery = 1"))]));
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("instance metadata/istio-vm-agent-config:4:1: envoy.binery: "),
            "{error}"
        );
    }

    #[test]
    fn instance_attributes_win_over_the_projects() {
        let project = attributes(&[(CLUSTER, "a"), (NAMESPACE, "n"), ("ssh-keys", "x")]);
        let merged = ours(attributes(&[(CLUSTER, "b"), ("startup-script", "x")]), project.clone());
        assert_eq!(merged, attributes(&[(CLUSTER, "b"), (NAMESPACE, "n")]));
        let whole = attributes(&[(WHOLE, "text")]);
        assert_eq!(ours(whole.clone(), project), whole);
    }

    #[test]
    fn attribute_is_named_by_errors() {
        let good = [(CLUSTER, FULL), (NAMESPACE, "shop"), (WORKLOAD_GROUP, "catalog")];
        let with = |name, value| {
            let mut all = attributes(&good);
            all.insert(str::to_owned(name), str::to_owned(value));
            Config::from_attributes(&all).unwrap_err().to_string()
        };
        for (name, value, expected) in [
            (CLUSTER, "projects/shop/boutique", "is neither projects/"),
            (
                CLUSTER,
                "projects/a?b/locations/l/clusters/c",
                "is no name in Google Cloud",
            ),
            (LOCATION, "europe-west1", "is said by istio-vm-agent-cluster already"),
            (NAMESPACE, "Shop", "is no name in Kubernetes"),
            (ENDPOINT, "vpn", "\"vpn\" is none of auto"),
            (
                "istio-vm-agent-workloadgroup",
                "x",
                "is unknown (did you mean \"istio-vm-agent-workload-group\"?): there are istio-vm-agent-config, or",
            ),
        ] {
            let error = with(name, value);
            assert!(
                error.starts_with(&format!("instance metadata/{name}: ")) && error.contains(expected),
                "{error}"
            );
        }
        assert!(with(WHOLE, "").contains("is beside istio-vm-agent-config"));
        let error = Config::from_attributes(&attributes(&good[..2]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("istio-vm-agent-workload-group: is missing, beside istio-vm-agent-cluster, "),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn attribute_of_any_value_is_read_without_a_panic(cluster in r"projects/\PC*/locations/\PC*/clusters/\PC*|\PC*", name in r"\PC*") {
            let mut ours = attributes(&[(CLUSTER, &cluster), (NAMESPACE, &name), (WORKLOAD_GROUP, &name)]);
            complete(&mut ours, "p", &name);
            let _ = Config::from_attributes(&ours);
        }
    }
}
