//! Refusals of `up` before it has written anything.

use super::*;
use crate::host::{CommandError, Invocation, Run};
use crate::join::tests::BUNDLE;

/// systemd, whose unit sees nobody's home.
#[derive(Debug)]
struct Systemd;

impl Run for Systemd {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        let asked = call.argv.get(2).map(String::as_str).unwrap_or_default();
        match asked.trim_start_matches("--property=") {
            "LoadState" => Ok("loaded".to_owned()),
            "ProtectHome" | "PrivateTmp" => Ok("yes".to_owned()),
            _ => Err(CommandError::NotFound {
                call: Box::new(call.clone()),
            }),
        }
    }
}

#[tokio::test]
async fn envoy_that_the_unit_does_not_see_is_refused_before_the_configuration_is_written() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), Systemd);
    for folder in ["/b", "/root", "/etc"] {
        host.make_directory(Path::new(folder), 0o700, None).unwrap();
    }
    for (name, text) in BUNDLE {
        let text = match name {
            "cluster.env" => format!("{text}ISTIO_SVC_IP='10.200.0.3'\n"),
            _ => text.to_owned(),
        };
        host.write(&Path::new("/b").join(name), &text, 0o600, None).unwrap();
    }
    host.write(Path::new("/root/envoy"), "", 0o755, None).unwrap();
    let options = Options {
        source: SourceArguments {
            directory: Some("/b".into()),
            ..SourceArguments::default()
        },
        envoy: EnvoyArguments {
            envoy: Some("/root/envoy".into()),
            ..EnvoyArguments::default()
        },
        force: false,
        yes: false,
        within: Duration::ZERO,
        call: None,
    };
    let path = Path::new("/etc/config.toml");
    let error = Box::pin(prepare(path, &host, &options)).await.err().unwrap();
    assert!(format!("{error:#}").contains("envoy.binary: /root/envoy"), "{error:#}");
    assert!(!host.exists(path));
}
