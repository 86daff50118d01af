//! Properties of an import, whatever the sidecar was told.

use std::path::Path;

use super::{ImportedConfig, Settings, assignment, config, discovery_address, keys};

/// sidecar.env and mesh.yaml; of the first, lines of `KEY=value`.
pub(crate) fn settings(input: &str) {
    let (env, mesh) = input.split_once('\0').unwrap_or((input, ""));
    let pairs = env.lines().filter_map(|line| line.split_once('='));
    let variables = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let settings = Settings::new(variables, [].into());
    let mut imported = ImportedConfig::default();
    let notes = keys::notes(&settings, &mut imported);
    assert!(notes.iter().all(|note| note.setting.lines().count() <= 1));
    let text = config(&imported, Path::new("/etc/istio-vm-agent/bundle"), &[]);
    let table: toml::Table = text.parse().expect("what is written is TOML");
    assert!(table.contains_key("join"));
    let _ = (
        settings.interfaces(),
        settings.tproxy(),
        settings.certificate_folders(),
        discovery_address(mesh),
    );
    assert!(
        settings
            .iter()
            .all(|(key, value)| assignment(key, value).ends_with("'\n"))
    );
}
