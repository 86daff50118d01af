//! An image asked for at a registry on loopback.

use std::path::Path;

use kit::oci::Registry;

use super::{Access, Image};
use crate::host::{Host, System};

/// `me:pass` in base64.
const LOGIN: &str = "bWU6cGFzcw==";

fn access(registry: &Registry, login: Option<&str>) -> (tempfile::TempDir, Access) {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), System);
    let image = registry.image();
    let name = image.split('/').next().unwrap();
    let registry_config = login.map(|login| {
        let path = root.path().join("config.json");
        std::fs::write(&path, format!(r#"{{"auths":{{"{name}":{{"auth":"{login}"}}}}}}"#)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        "/config.json".into()
    });
    let access = Access {
        host,
        registry_config,
        ca_file: None,
    };
    (root, access)
}

async fn saved(access: &Access, image: &str) -> Result<Vec<u8>, String> {
    let mut image = Image::open(access, image).await.map_err(|error| format!("{error:#}"))?;
    let mut told = 0;
    let saved = async {
        let layers = image.layers().await?;
        let mut staged = access.host.stage(Path::new("/layer"), 1 << 20)?;
        image.save(&layers[0], &mut staged, |here| told = here).await?;
        assert_eq!(told, layers[0].size);
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(staged.reader()?, &mut bytes)?;
        anyhow::Ok(bytes)
    };
    saved.await.map_err(|error| format!("{error:#}"))
}

#[tokio::test]
async fn image_is_found_by_tag_and_given_by_digest() {
    let registry = Registry::with(&[b"one".to_vec(), b"two".to_vec()]).await;
    let (_root, access) = access(&registry, None);
    let found = Image::open(&access, &registry.image())
        .await
        .unwrap()
        .digest()
        .await
        .unwrap();
    assert!(registry.pinned().ends_with(&found), "{found}");
    assert_eq!(saved(&access, &registry.pinned()).await.unwrap(), b"one");
}

#[tokio::test]
async fn blob_that_is_not_what_its_digest_says_is_refused() {
    let registry = Registry::with(&[b"one".to_vec()]).await;
    let (_root, access) = access(&registry, None);
    let pinned = registry.pinned();
    registry.edit(|content| content.things[0].1 = "two".into());
    let error = saved(&access, &pinned).await.unwrap_err();
    assert!(error.contains("is not what its digest says"), "{error}");
    registry.edit(|content| content.things[0].1 = "longer".into());
    let error = saved(&access, &pinned).await.unwrap_err();
    assert!(error.contains("is longer than its manifest says"), "{error}");
    registry.edit(|content| {
        for (_, bytes) in &mut content.things {
            *bytes = [&bytes[..], b" "].concat().into();
        }
    });
    let error = saved(&access, &pinned).await.unwrap_err();
    assert!(error.contains("gave another manifest"), "{error}");
    registry.edit(|content| content.things.clear());
    let error = saved(&access, &pinned).await.unwrap_err();
    assert!(error.contains("check the image's name, tag or digest"), "{error}");
}

#[tokio::test]
async fn registry_that_wants_a_login_is_shown_the_configured_one_and_only_then() {
    let registry = Registry::with(&[b"one".to_vec()]).await;
    registry.edit(|content| content.login = Some(LOGIN.to_owned()));
    let (_root, with_login) = access(&registry, Some(LOGIN));
    assert_eq!(saved(&with_login, &registry.image()).await.unwrap(), b"one");
    for login in [None, Some("bWU6aHVudGVyMg==")] {
        let (_root, access) = access(&registry, login);
        let error = saved(&access, &registry.image()).await.unwrap_err();
        assert!(error.contains("envoy.registry_config"), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("bWU6"), "{error}");
    }
}
