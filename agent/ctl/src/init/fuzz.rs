//! Properties of a file and of pods that are written from what was found.

use std::path::Path;

use super::found::{Found, address, registered};
use super::{Subject, name, pod, text, vm};
use crate::fuzz::{MIGRATIONS, documents, json, list};
use crate::migration;

/// The VM's configuration, and then what a cluster holds.
pub(crate) fn init(input: &[u8]) {
    let mut documents = documents(input);
    let configuration = String::from_utf8_lossy(documents.next().unwrap_or_default());
    let Ok(vm) = vm::parse(Path::new("config.toml"), &configuration) else {
        return;
    };
    let cluster = json(documents.next());
    let group = name("catalog").expect("it is a name");
    let found = Found {
        entry: MIGRATIONS[0].clusters[0].clone(),
        id: cluster["id"].as_str().map(str::to_owned),
        network: cluster["network"].as_str().map(str::to_owned),
        gateway: address(&cluster["gateway"]),
        group: cluster.get("group").cloned(),
        services: list(&cluster, "services"),
        gateway_routes: None,
        registered: registered(&list(&cluster, "entries"), &group),
        unread: Vec::new(),
    };
    let Ok(service) = found.service(None) else { return };
    let subject = Subject {
        namespace: group.clone(),
        workload_group: group.clone(),
        protocol: found.protocol(&service),
        service,
        pods_service: group,
    };
    if let Ok(pods) = pod::pods(&subject, &found, &vm, None) {
        assert!(pods.objects.iter().all(|object| object["kind"].is_string()));
    }
    if let Ok(file) = text::file(&subject, &[found], &vm)
        && let Ok(read) = migration::parse(Path::new("migration.toml"), &file)
    {
        assert_eq!(
            read.service.as_str(),
            subject.service.as_str(),
            "nobody's words are keys"
        );
        assert_eq!(read.clusters.len(), 1);
    }
}
