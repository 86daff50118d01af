use super::*;
use crate::config::JoinConfig;
use crate::config::tests::judged::{REFUSED, rows, text_of};
use crate::google::fixtures::{MetadataServer, client};
use crate::host::System;

const CONFIG: &str = "[join]\ndirectory = { path = \"/from-metadata\" }\n";

struct Rig {
    root: tempfile::TempDir,
    server: MetadataServer,
}

impl Rig {
    async fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            server: MetadataServer::start().await,
        }
    }

    fn source(&self) -> ConfigSource {
        ConfigSource {
            file: self.root.path().join("config.toml"),
            host: Host::new(self.root.path(), System),
            kept: Path::new("/state").join(METADATA_FILE),
            is_named: false,
            metadata: Some(client(&self.server)),
        }
    }

    /// The same source, while the metadata server is away.
    fn alone(&self) -> ConfigSource {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        ConfigSource {
            metadata: Some(Metadata::at(&format!("http://127.0.0.1:{port}")).unwrap()),
            ..self.source()
        }
    }

    /// The same source, where there is no metadata server to be asked.
    fn elsewhere(&self) -> ConfigSource {
        ConfigSource {
            metadata: None,
            ..self.source()
        }
    }

    fn make_google(&self) {
        self.make_product("Google Compute Engine\n");
    }

    fn make_product(&self, name: &str) {
        let folder = self.root.path().join("sys/class/dmi/id");
        std::fs::create_dir_all(folder).unwrap();
        let host = Host::new(self.root.path(), System);
        let path = Path::new("/sys/class/dmi/id/product_name");
        host.write(path, name, 0o644, None).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn directory(config: &Config) -> &Path {
    match &config.join {
        JoinConfig::Directory(directory) => &directory.path,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn file_counts_before_the_metadata() {
    let rig = Rig::new().await;
    rig.server.set_instance("istio-vm-agent-config", CONFIG);
    let source = rig.source();
    assert_eq!(
        directory(&source.find().await.unwrap().config),
        Path::new("/from-metadata")
    );
    source
        .host
        .write(
            Path::new("/config.toml"),
            &CONFIG.replace("metadata", "file"),
            0o600,
            None,
        )
        .unwrap();
    let found = source.find().await.unwrap();
    assert_eq!(directory(&found.config), Path::new("/from-file"));
    source.keep(&found).unwrap();
    assert!(source.kept().unwrap().is_none());
}

#[tokio::test]
async fn metadata_of_last_time_serves_while_the_server_is_silent() {
    let rig = Rig::new().await;
    rig.server.set_project("istio-vm-agent-config", CONFIG);
    let source = rig.source();
    assert!(source.at_hand().unwrap().is_none());
    source.keep(&source.find().await.unwrap()).unwrap();
    assert_eq!(mode(&source.host.real_path(&source.kept)), 0o600);
    let alone = rig.alone();
    let found = alone.find().await.unwrap();
    assert_eq!(directory(&found.config), Path::new("/from-metadata"));
    assert!(
        found
            .origin
            .starts_with("what the metadata of this instance said last (failed to ask"),
        "{}",
        found.origin
    );
    assert_eq!(
        directory(&alone.at_hand().unwrap().unwrap()),
        Path::new("/from-metadata")
    );
}

#[tokio::test]
async fn short_name_of_a_cluster_is_kept_as_the_full_one() {
    let rig = Rig::new().await;
    for (name, value) in [
        ("cluster", "boutique"),
        ("namespace", "shop"),
        ("workload-group", "catalog"),
    ] {
        rig.server.set_instance(&format!("istio-vm-agent-{name}"), value);
    }
    let source = rig.source();
    source.keep(&source.find().await.unwrap()).unwrap();
    let JoinConfig::Gke(gke) = rig.alone().at_hand().unwrap().unwrap().join else {
        panic!("another source")
    };
    assert_eq!(
        gke.cluster_name(),
        "projects/shop/locations/europe-west1/clusters/boutique"
    );
}

#[tokio::test]
async fn only_where_google_or_the_operator_says_so_a_metadata_server_is_asked_or_what_it_said_believed() {
    let rig = Rig::new().await;
    rig.server.set_instance("istio-vm-agent-config", CONFIG);
    let source = |path| ConfigSource::new(Path::new(path), &rig.source().host).unwrap();
    assert!(source(config::DEFAULT_PATH).metadata.is_none());
    rig.make_product("Googol Compute Engine\n");
    assert!(source(config::DEFAULT_PATH).metadata.is_none());
    rig.make_google();
    assert!(source(config::DEFAULT_PATH).metadata.is_some());
    assert!(source("/named.toml").metadata.is_none());

    rig.source().keep(&rig.source().find().await.unwrap()).unwrap();
    let elsewhere = rig.elsewhere();
    assert!(elsewhere.kept().unwrap().is_none());
    let error = elsewhere.find().await.unwrap_err();
    assert!(
        error.is::<ConfigError>() && error.to_string().contains("is missing, and this VM is not on"),
        "{error}"
    );
    assert!(elsewhere.at_hand().unwrap().is_none());
}

#[tokio::test]
async fn silent_metadata_server_is_worth_another_try_and_one_without_a_word_is_not() {
    let rig = Rig::new().await;
    let error = rig.alone().find().await.unwrap_err();
    assert!(!error.is::<ConfigError>(), "{error:#}");
    let error = rig.source().find().await.unwrap_err();
    assert!(
        error.is::<ConfigError>() && error.to_string().contains("has no istio-vm-agent-config"),
        "{error}"
    );
}

#[tokio::test]
async fn copy_of_the_disk_does_not_take_up_what_another_instance_was_told() {
    use crate::host::machine::tests::{ONE, OTHER, set_machine_id};
    let rig = Rig::new().await;
    let source = rig.source();
    // Of an agent that made no mark.
    source.host.make_directory(Path::new("/state"), 0o700, None).unwrap();
    let unmarked = serde_json::json!({ "istio-vm-agent-config": CONFIG }).to_string();
    source.host.write(&source.kept, &unmarked, 0o600, None).unwrap();
    set_machine_id(&source.host, ONE);
    assert!(rig.alone().at_hand().unwrap().is_some());
    rig.server.set_instance("istio-vm-agent-config", CONFIG);
    source.keep(&source.find().await.unwrap()).unwrap();
    assert!(rig.alone().at_hand().unwrap().is_some());
    set_machine_id(&source.host, OTHER);
    assert!(rig.alone().at_hand().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn verb_that_can_do_without_asks_where_there_is_somebody_to_ask() {
    let rig = Rig::new().await;
    assert!(rig.source().find_any().await.unwrap().is_none());
    rig.server.set_instance("istio-vm-agent-config", CONFIG);
    assert!(rig.elsewhere().find_any().await.unwrap().is_none());
    let config = rig.source().find_any().await.unwrap().unwrap();
    assert_eq!(directory(&config), Path::new("/from-metadata"));
    rig.source().keep(&rig.source().find().await.unwrap()).unwrap();
    let kept = rig.alone().find_any().await.unwrap().unwrap();
    assert_eq!(directory(&kept), Path::new("/from-metadata"));
    rig.server.set_instance("istio-vm-agent-config", "[join]");
    assert!(rig.source().find_any().await.unwrap_err().is::<ConfigError>());
}

#[tokio::test(flavor = "multi_thread")]
async fn unit_starts_where_there_is_or_may_be_a_configuration() {
    let rig = Rig::new().await;
    assert!(!rig.source().any().await.unwrap());
    assert!(!rig.elsewhere().any().await.unwrap());
    assert!(rig.alone().any().await.unwrap());
    rig.server.set_instance("istio-vm-agent-config", CONFIG);
    assert!(rig.source().any().await.unwrap());
    let named = ConfigSource {
        is_named: true,
        ..rig.elsewhere()
    };
    assert!(!named.any().await.unwrap());
}

#[test]
fn configuration_that_the_operator_names_is_that_or_an_error() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), System);
    let file = root.path().join("typo.toml");
    let error = ConfigSource::at_hand_or_default(&file, &host).unwrap_err();
    assert!(
        error.is::<ConfigError>() && error.to_string().contains("typo.toml"),
        "{error:#}"
    );
    std::fs::write(&file, "[join\n").unwrap();
    let error = ConfigSource::at_hand_or_default(&file, &host).unwrap_err();
    assert!(error.is::<ConfigError>(), "{error:#}");
    std::fs::write(&file, CONFIG).unwrap();
    assert!(ConfigSource::at_hand_or_default(&file, &host).is_ok());
}

#[test]
fn directories_count_of_a_configuration_that_can_not_be_used() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("config.toml");
    let paths = "[paths]\nrun = \"/run/other\"\nstate = \"/var/lib/other\"\n";
    std::fs::write(&file, format!("[log]\nlevel = \"loud\"\n{paths}")).unwrap();
    assert_eq!(Config::paths_of(&file).unwrap().run, Path::new("/run/other"));
    for text in ["[paths\n", "[paths]\nrun = \"/etc\"\n", "[log]\n"] {
        std::fs::write(&file, text).unwrap();
        assert_eq!(Config::paths_of(&file), None, "{text}");
    }
}

/// Attributes of an instance that join nothing: what is set beside or in place of three good ones, where that is named,
/// and what is said.
const REFUSED_ATTRIBUTES: &[(&str, &str, &str, &str)] = &[
    ("cluster", "", "cluster", "is no name in Google Cloud"),
    ("cluster", "Mesh", "cluster", "is no name in Google Cloud"),
    ("cluster", "my mesh", "cluster", "is no name in Google Cloud"),
    (
        "cluster",
        "projects/shop/mesh",
        "cluster",
        "is neither projects/PROJECT/",
    ),
    (
        "cluster",
        "projects/a/locations//clusters/c",
        "cluster",
        "is no name in Google Cloud",
    ),
    (
        "cluster",
        "projects/a/locations/l/clusters/c/d",
        "cluster",
        "is neither projects/PROJECT/",
    ),
    ("location", "", "cluster", "is no name in Google Cloud"),
    ("location", "europe west", "cluster", "is no name in Google Cloud"),
    ("namespace", "", "namespace", "is no name in Kubernetes"),
    ("namespace", "Shop", "namespace", "is no name in Kubernetes"),
    ("namespace", "shop/catalog", "namespace", "is no name in Kubernetes"),
    ("workload-group", "", "workload-group", "is no name in Kubernetes"),
    (
        "workload-group",
        "catalog group",
        "workload-group",
        "is no name in Kubernetes",
    ),
    (
        "workload-group",
        "-catalog",
        "workload-group",
        "is no name in Kubernetes",
    ),
    ("endpoint", "", "endpoint", "is none of auto, public, private, dns"),
    ("endpoint", "pubilc", "endpoint", "did you mean \"public\"?"),
    ("endpoint", "10.0.0.1", "endpoint", "is none of auto"),
    (
        "namespaces",
        "shop",
        "namespaces",
        "did you mean \"istio-vm-agent-namespace\"?",
    ),
    (
        "workloadgroup",
        "catalog",
        "workloadgroup",
        "did you mean \"istio-vm-agent-workload-group\"?",
    ),
    ("revision", "canary", "revision", "is unknown"),
    ("config", "", "", "is beside istio-vm-agent-config"),
];

/// The error with which a start refuses the attributes, as every verb does that reads them; nothing is kept of them.
async fn refusal(rig: &Rig) -> String {
    let error = rig.source().find().await.expect_err("they are taken");
    assert!(error.is::<ConfigError>(), "it is tried again: {error:#}");
    let said = error.to_string();
    assert_eq!(rig.source().find_any().await.unwrap_err().to_string(), said);
    assert!(rig.source().kept().unwrap().is_none(), "it is kept: {said}");
    said
}

#[tokio::test]
async fn metadata_is_refused_by_its_attribute() {
    let mut wrong = Vec::new();
    for (name, value, named, says) in REFUSED_ATTRIBUTES {
        let rig = Rig::new().await;
        let good = [
            ("cluster", "mesh"),
            ("namespace", "shop"),
            ("workload-group", "catalog"),
        ];
        // Of a whole configuration the project's attributes are no part.
        for (name, value) in good.iter().chain([&(*name, *value)]) {
            rig.server.set_instance(&format!("istio-vm-agent-{name}"), value);
        }
        let said = refusal(&rig).await;
        let place = format!("instance metadata/istio-vm-agent-{named}");
        if !(said.starts_with(&place) && said.contains(says)) {
            wrong.push(format!("{name}={value:?}: {said}"));
        }
    }
    for left_out in 0..3 {
        let rig = Rig::new().await;
        let needed = [
            ("cluster", "mesh"),
            ("namespace", "shop"),
            ("workload-group", "catalog"),
        ];
        for (index, (name, value)) in needed.into_iter().enumerate() {
            if index != left_out {
                rig.server.set_instance(&format!("istio-vm-agent-{name}"), value);
            }
        }
        let said = refusal(&rig).await;
        let missing = format!(
            "instance metadata/istio-vm-agent-{}: is missing, beside ",
            needed[left_out].0
        );
        if !said.starts_with(&missing) {
            wrong.push(said);
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

/// An attribute may say no more than a file: the same words, with the attribute in the file's place.
#[tokio::test]
async fn attribute_may_say_no_more_than_a_file() {
    let rig = Rig::new().await;
    for (input, ..) in rows(REFUSED) {
        let text = text_of(&input);
        rig.server.set_instance("istio-vm-agent-config", &text);
        let of_file = Config::parse(Path::new("instance metadata/istio-vm-agent-config"), &text);
        assert_eq!(refusal(&rig).await, of_file.expect_err(&input).to_string(), "{input}");
    }
}
