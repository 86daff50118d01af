use super::*;
use crate::control_plane::fixtures::Ca;
use crate::host::System;

struct Case {
    _directory: tempfile::TempDir,
    host: Host,
}

impl Case {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path(), System);
        std::fs::create_dir(directory.path().join("k")).unwrap();
        for (name, text) in files {
            host.write(&Path::new("/k").join(name), text, 0o600, None).unwrap();
        }
        Self {
            _directory: directory,
            host,
        }
    }

    fn access(&self, context: Option<&str>) -> Result<Access, String> {
        let file = Path::new("/k/config");
        let text = read(file, &self.host).map_err(|error| format!("{error:#}"))?;
        parse(&text, file, context, &self.host).map_err(|error| match error {
            Unusable::NoCurrentContext => error.to_string(),
            Unusable::Wrong { at: None, problem } => problem,
            Unusable::Wrong {
                at: Some((line, _)),
                problem,
            } => format!("line {line}: {problem}"),
        })
    }
}

/// A kubeconfig with one context; `cluster` and `user` as flow maps.
fn config(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\npreferences: {{}}\nclusters: [{{name: c, cluster: {cluster}}}]\n\
         users: [{{name: u, user: {user}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u, namespace: n}}}}]\n\
         current-context: x\n"
    )
}

const SERVER: &str = "{server: 'https://api.example:6443/'}";

#[test]
fn files_are_relative_to_the_kubeconfig_and_data_beats_them() {
    let cluster = "{server: 'https://api.example:6443/', certificate-authority: ca.pem}";
    let text = config(cluster, "{tokenFile: t/token}");
    let case = Case::new(&[("config", &text), ("ca.pem", "roots")]);
    let access = case.access(None).unwrap();
    assert_eq!(access.server, "https://api.example:6443");
    assert!(matches!(&access.trust, Trust::Roots { pem, place } if pem == "roots" && place == "/k/config"));
    assert!(matches!(&access.credential, Credential::TokenFile { path, .. } if path == Path::new("/k/t/token")));
    let cluster = "{server: 'https://a', certificate-authority: ca.pem, certificate-authority-data: b3RoZXI=}";
    let case = Case::new(&[("config", &config(cluster, "{token: secret}")), ("ca.pem", "roots")]);
    let access = case.access(Some("x")).unwrap();
    assert!(matches!(&access.trust, Trust::Roots { pem, .. } if pem == "other"));
    assert!(matches!(&access.credential, Credential::Token { .. }));
    assert!(!format!("{access:?}").contains("secret"));
}

#[tokio::test]
async fn credentials_are_taken_and_named() {
    let ca = Ca::new("cluster");
    let now = std::time::SystemTime::now();
    let made = ca.serving(&["vm"], now, now + std::time::Duration::from_secs(60));
    let data = |text: &str| STANDARD.encode(text);
    let certificate = format!("{{client-certificate: c.pem, client-key-data: {}}}", data(&made.key));
    let cases = [
        (certificate.as_str(), "the client certificate of user u in /k/config"),
        ("{token: t}", "the token of user u in /k/config"),
        ("{tokenFile: /t}", "the token of /t"),
        (
            "{exec: {command: gke-gcloud-auth-plugin}}",
            "what gke-gcloud-auth-plugin gave",
        ),
        (
            "{exec: {command: ./plugin, args: null, env: null}}",
            "what /k/./plugin gave",
        ),
    ];
    for (user, wanted) in cases {
        let case = Case::new(&[("config", &config(SERVER, user)), ("c.pem", &made.certificate)]);
        let credential = case.access(None).unwrap().credential;
        assert_eq!(credential.name(), wanted);
        assert_eq!(credential.identity().is_some(), wanted.contains("certificate"));
    }
}

/// Kubeconfigs that can't be used, and what the error holds.
fn unusable() -> [(String, &'static str); 16] {
    let missing = "{server: 'https://a', certificate-authority: no.pem}";
    let insecure = "{server: 'https://a', insecure-skip-tls-verify: true}";
    let other = config(SERVER, "{}").replace("current-context: x", "current-context: y");
    let server = config("{server: 'http://a'}", "{token: t}");
    [
        (
            config(missing, "{token: t}"),
            "line 4: certificate-authority of the cluster: /k/no.pem is missing",
        ),
        (
            config(insecure, "{token: t}"),
            "line 4: insecure-skip-tls-verify is refused",
        ),
        (server, "line 4: server \"http://a\" of the cluster must be https://"),
        (
            config("{server: 'https://a', proxy-url: b}", "{token: t}"),
            "line 4: tls-server-name and proxy-url are not supported",
        ),
        (config("{}", "{token: t}"), "line 4: server \"\" of the cluster must be"),
        (
            config(SERVER, "{username: u, password: p}"),
            "no other proof is supported",
        ),
        (config(SERVER, "{}"), "line 5: user u in /k/config has none of"),
        (
            config(SERVER, "{client-certificate-data: '?', client-key: k}"),
            "line 5: client-certificate: is not base64",
        ),
        (
            config(SERVER, "{client-certificate-data: YQ==, client-key-data: YQ==}"),
            "line 5: client-certificate and client-key of user u in /k/config are no pair in PEM",
        ),
        (
            config(SERVER, "{token: 'a b'}"),
            "line 5: user u in /k/config holds no bearer token",
        ),
        (
            config(SERVER, "{token: t}").replace("user: u,", "user: v,"),
            "line 6: has no user \"v\": it has \"u\"",
        ),
        (
            config(SERVER, "{token: t}").replace("{cluster: c, ", "{"),
            "line 6: has no cluster \"\": it has \"c\"",
        ),
        (other, "line 7: has no context \"y\": it has \"x\""),
        ("{}".to_owned(), "has no current-context"),
        ("a: [".to_owned(), "line 1: is not valid YAML"),
        (
            "\nclusters: hunter2".to_owned(),
            "line 2: is not valid YAML, or no kubeconfig",
        ),
    ]
}

#[test]
fn kubeconfig_that_can_not_be_used_is_named() {
    for (text, wanted) in unusable() {
        let error = Case::new(&[("config", &text)]).access(None).unwrap_err();
        assert!(
            error.contains(wanted) && !error.contains("hunter2"),
            "{wanted}: {error}"
        );
    }
    assert!(
        Case::new(&[])
            .access(None)
            .unwrap_err()
            .contains("/k/config is missing")
    );
}
