//! Secrets by their names (istio/pkg/security/security.go: WorkloadKeyCertResourceName and others).

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use istio_api::sds::{CertificateValidationContext, DataSource, Secret, TlsCertificate, data_source, secret};
use prost::Message;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::facts::Credentials;
use crate::host::{Host, Owner, Read};
use crate::identity::certificate::{self, MAX_PEM};

/// Bundles of the operating system's roots: Debian, Red Hat, SUSE.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Source of all secrets.
#[derive(Clone)]
pub(super) struct Source {
    host: Host,
    reader: Owner,
    credentials: watch::Receiver<Option<Arc<Credentials>>>,
}

/// An encoded `Secret`. It has no `Debug`: it may hold a key.
pub(super) type Encoded = Bytes;

impl Source {
    pub(super) fn new(host: Host, reader: Owner, credentials: watch::Receiver<Option<Arc<Credentials>>>) -> Self {
        Self {
            host,
            reader,
            credentials,
        }
    }

    /// Completes when the credentials are others; never when they can't be any more.
    pub(super) async fn changed(&mut self) {
        if self.credentials.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The newest credentials; `None` while the VM has none yet.
    pub(super) fn credentials(&mut self) -> Option<Arc<Credentials>> {
        self.credentials.borrow_and_update().clone()
    }

    /// The secret of a name; `None` while the VM has no certificate yet.
    ///
    /// # Errors
    /// When there is no such secret, or its files can't be read or don't belong together.
    pub(super) async fn secret(&self, name: &str, credentials: Option<Arc<Credentials>>) -> Result<Option<Encoded>> {
        let (reader, name) = (self.reader, name.to_owned());
        // Files may lie on a disk that hangs.
        let secret = move |host: &Host| look_up(&name, credentials.as_deref(), host, reader);
        self.host.blocking(secret).await
    }
}

pub(super) fn look_up(
    name: &str,
    credentials: Option<&Credentials>,
    host: &Host,
    reader: Owner,
) -> Result<Option<Encoded>> {
    let content = match (name, credentials) {
        ("default" | "ROOTCA", None) => return Ok(None),
        ("default", Some(credentials)) => key_pair(&credentials.chain_pem, credentials.key.expose_pem()),
        ("ROOTCA", Some(credentials)) => roots(&credentials.roots_pem),
        _ => from_files(name, host, reader)?,
    };
    let secret = Secret {
        name: name.to_owned(),
        r#type: Some(content),
    };
    Ok(Some(Bytes::from_owner(Zeroizing::new(secret.encode_to_vec()))))
}

fn from_files(name: &str, host: &Host, reader: Owner) -> Result<secret::Type> {
    let read = |path: &str| -> Result<String> {
        ensure!(path.starts_with('/'), "{path:?} is not an absolute path");
        let how = Read::max(MAX_PEM).following_links().readable_by(reader);
        let text = host.read(Path::new(path), how)?;
        text.with_context(|| format!("{path}: there is no such file"))
    };
    if let Some(files) = name.strip_prefix("file-cert:") {
        let (chain, key) = files.split_once('~').context("it is not file-cert:<chain>~<key>")?;
        let (chain_pem, key_pem) = (read(chain)?, read(key)?);
        certificate::check_pair(&chain_pem, &key_pem).with_context(|| format!("{chain} and {key}"))?;
        return Ok(key_pair(&chain_pem, &key_pem));
    }
    let Some(file) = name.strip_prefix("file-root:") else {
        bail!(
            "there is no secret of that name: this VM has default, ROOTCA, file-cert:<chain>~<key> and file-root:<file>"
        );
    };
    if file == "system" {
        let found = SYSTEM_ROOTS.iter().find_map(|path| read(path).ok());
        return Ok(roots(&found.context("the operating system has no bundle of roots")?));
    }
    let pem = read(file)?;
    certificate::check_roots(&pem).with_context(|| file.to_owned())?;
    Ok(roots(&pem))
}

fn key_pair(chain_pem: &str, key_pem: &str) -> secret::Type {
    secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: inline(chain_pem),
        private_key: inline(key_pem),
    })
}

fn roots(pem: &str) -> secret::Type {
    secret::Type::ValidationContext(CertificateValidationContext {
        trusted_ca: inline(pem),
        crl: None,
    })
}

fn inline(text: &str) -> Option<DataSource> {
    let bytes = Bytes::from_owner(Zeroizing::new(text.as_bytes().to_vec()));
    Some(DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bytes)),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::control_plane::fixtures::{Ca, issued_by};
    use crate::host::System;

    struct Vm {
        root: tempfile::TempDir,
        host: Host,
        me: Owner,
    }

    fn vm() -> Vm {
        let root = tempfile::tempdir().unwrap();
        let meta = std::fs::metadata(root.path()).unwrap();
        Vm {
            host: Host::new(root.path(), System),
            me: Owner {
                uid: meta.uid(),
                gid: meta.gid(),
            },
            root,
        }
    }

    impl Vm {
        fn put(&self, path: &str, text: &str) {
            self.host.write(path.as_ref(), text, 0o600, None).unwrap();
        }

        fn refused(&self, name: &str, reader: Owner) -> String {
            format!("{:#}", look_up(name, None, &self.host, reader).unwrap_err())
        }
    }

    fn credentials() -> Credentials {
        issued_by(&Ca::new("mesh"), UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(60))
    }

    #[test]
    fn secret_of_files_is_served_when_they_belong_together() {
        let (vm, one, two) = (vm(), credentials(), credentials());
        vm.put("/chain.pem", &one.chain_pem);
        vm.put("/key.pem", one.key.expose_pem());
        vm.put("/other.pem", two.key.expose_pem());
        vm.put("/shadow", "root:$6$hash");
        let encoded = look_up("file-cert:/chain.pem~/key.pem", None, &vm.host, vm.me)
            .unwrap()
            .unwrap();
        let secret = Secret::decode(encoded).unwrap();
        assert_eq!(secret.name, "file-cert:/chain.pem~/key.pem");
        assert_eq!(secret.r#type, Some(key_pair(&one.chain_pem, one.key.expose_pem())));
        assert!(
            look_up("file-root:/chain.pem", None, &vm.host, vm.me)
                .unwrap()
                .is_some()
        );
        let cases = [
            (
                "file-cert:/chain.pem~/other.pem",
                "/chain.pem and /other.pem: the certificate is not of this private key",
            ),
            ("file-cert:/chain.pem~/shadow", "the private key is unusable"),
            ("file-cert:/chain.pem", "it is not file-cert:<chain>~<key>"),
            (
                "file-root:/shadow",
                "/shadow: the root certificates are unusable: it holds no certificate",
            ),
            ("file-root:chain.pem", "\"chain.pem\" is not an absolute path"),
            ("file-root:/none", "/none: there is no such file"),
            ("file-root:/", "/: is not a regular file"),
            ("kubernetes://cert", "there is no secret of that name"),
        ];
        for (name, expected) in cases {
            let error = vm.refused(name, vm.me);
            assert!(error.contains(expected) && !error.contains("hash"), "{name}: {error}");
        }
    }

    #[test]
    fn secret_that_envoys_user_may_not_read_is_not_read_for_it() {
        let (vm, one) = (vm(), credentials());
        vm.put("/root.pem", &one.roots_pem);
        let stranger = Owner {
            uid: 54_321,
            gid: 54_321,
        };
        assert_eq!(
            vm.refused("file-root:/root.pem", stranger),
            "/root.pem: user 54321 may not read it"
        );
        drop(vm.root);
    }

    proptest! {
        #[test]
        fn secret_of_any_name_is_looked_up_without_a_panic(name in "(file-cert:|file-root:)?[^\0]{0,40}") {
            let vm = vm();
            let _ = look_up(&name, None, &vm.host, vm.me);
        }
    }
}
