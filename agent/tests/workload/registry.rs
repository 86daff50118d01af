//! Debian's docker-registry, and the token server that it sends dockerd to, on the loopback of dockerd's network.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::dockerd::Dockerd;

/// An image of this registry.
pub(crate) const IMAGE: &str = "127.0.0.1:5000/web:1";
/// The user and the password that it knows.
const LOGIN: &str = "me:hunter2";
const TOKENS: &str = "127.0.0.1:5001";

/// A registry that gives nothing without a token, and its server of tokens.
pub(crate) struct Registry<'a> {
    dockerd: &'a Dockerd,
    process: Child,
}

/// Whoever signs the tokens.
struct Signer {
    key: EcdsaKeyPair,
    /// Certificate of the signer, in base64.
    certificate: String,
}

impl<'a> Registry<'a> {
    pub(crate) async fn started(dockerd: &'a Dockerd, folder: &Path) -> Self {
        let pair = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["tokens".to_owned()])
            .unwrap()
            .self_signed(&pair)
            .unwrap();
        fs::write(folder.join("tokens.pem"), certificate.pem()).unwrap();
        let signer = Signer {
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der()).unwrap(),
            certificate: STANDARD.encode(certificate.der()),
        };
        dockerd.within_network(|| {
            let listener = TcpListener::bind(TOKENS).unwrap();
            // Not waited for: it ends when it is told to.
            std::thread::spawn(move || while answer(&listener, &signer) {});
        });
        let config = folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {0}/registry }} }}\nhttp: {{ addr: '127.0.0.1:5000' }}\n\
             auth:\n  token: {{ realm: 'http://{TOKENS}/token', service: web, issuer: tests, rootcertbundle: {0}/tokens.pem }}\n",
            folder.display()
        );
        fs::write(&config, text).unwrap();
        let process = dockerd
            .inside("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { dockerd, process };
        let is_up = |dockerd: &Dockerd| dockerd.within_network(|| TcpStream::connect("127.0.0.1:5000").is_ok());
        dockerd.until("the registry (needs docker-registry)", is_up).await;
        registry
    }

    /// Gives it an image, and takes that away from dockerd; the path of a config.json with the login.
    pub(crate) fn push(&self, folder: &Path) -> PathBuf {
        let login = folder.join("config.json");
        let auth = STANDARD.encode(LOGIN);
        let text = format!(r#"{{ "auths": {{ "127.0.0.1:5000": {{ "auth": "{auth}" }} }} }}"#);
        fs::write(&login, text).unwrap();
        fs::set_permissions(&login, PermissionsExt::from_mode(0o600)).unwrap();
        self.dockerd.import(IMAGE);
        let pushed = self
            .dockerd
            .docker(&["--config", folder.to_str().unwrap(), "push", IMAGE]);
        assert!(pushed.status.success(), "{pushed:?}");
        let removed = self.dockerd.docker(&["rmi", IMAGE]);
        assert!(removed.status.success(), "{removed:?}");
        login
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.dockerd.within_network(|| {
            let mut stream = TcpStream::connect(TOKENS).unwrap();
            stream.write_all(b"GET /stop HTTP/1.0\r\n\r\n").unwrap();
        });
    }
}

/// Answers one request; false for the last one.
fn answer(listener: &TcpListener, signer: &Signer) -> bool {
    let (mut stream, _) = listener.accept().unwrap();
    let lines: Vec<String> = BufReader::new(&stream)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let Some(target) = lines.first().and_then(|line| line.split(' ').nth(1)) else {
        return true;
    };
    let login = format!("Basic {}", STANDARD.encode(LOGIN));
    let is_known = lines
        .iter()
        .any(|line| line.split_once(": ").is_some_and(|(_, value)| value == login));
    let (status, body) = match is_known {
        true => ("200 OK", json!({ "token": signer.token(target) }).to_string()),
        false => (
            "401 Unauthorized",
            json!({ "details": "incorrect username or password" }).to_string(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // Whoever asked may be gone.
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
    target != "/stop"
}

impl Signer {
    /// A token for what the scope of a request asks for (distribution/docs/spec/auth/token.md).
    fn token(&self, target: &str) -> String {
        let scope = target.split(['?', '&']).find_map(|pair| pair.strip_prefix("scope="));
        let scope = scope
            .unwrap_or_default()
            .replace("%3A", ":")
            .replace("%2C", ",")
            .replace("%2F", "/");
        let access: Vec<Value> = match *scope.split(':').collect::<Vec<_>>() {
            [kind, name, actions] => {
                let actions: Vec<&str> = actions.split(',').collect();
                vec![json!({ "type": kind, "name": name, "actions": actions })]
            }
            _ => Vec::new(),
        };
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": "tests", "sub": "me", "aud": "web", "exp": now + 300, "nbf": now - 60, "iat": now, "jti": "1",
            "access": access,
        });
        let signed = [header, claims]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()))
            .join(".");
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}
