use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http::Response;
use kube::client::Body;
use nix::sys::stat::Mode as FileMode;
use nix::unistd::mkfifo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::migration::tests::{HOSTS, migration};

/// Objects by their paths.
pub(crate) type Objects = BTreeMap<String, Value>;
/// Act of somebody else at a call, and the code by which the call is refused.
type Hook = dyn FnMut(&mut Objects, &Method, &str) -> Option<u16> + Send;

/// An API server in memory.
#[derive(Clone)]
pub(crate) struct Server(Arc<Mutex<(Objects, Box<Hook>)>>);

impl Server {
    /// One that asks `hook` at each call.
    pub(crate) fn new(hook: impl FnMut(&mut Objects, &Method, &str) -> Option<u16> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new((Objects::new(), Box::new(hook)))))
    }

    /// Has an object in the namespace `boutique`.
    pub(crate) fn with(self, kind: Kind, object: Value) -> Self {
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = format!("{}/{name}", path(kind, "boutique"));
        self.locked().0.insert(path, object);
        self
    }

    pub(crate) fn object(&self, kind: Kind, name: &str) -> Option<Value> {
        let path = format!("{}/{name}", path(kind, "boutique"));
        self.locked().0.get(&path).cloned()
    }

    /// The cluster of that name that has this API server.
    pub(crate) fn cluster(&self, name: &'static str) -> Cluster {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let is_dry = head.uri.query().is_some_and(|query| query.contains("dryRun"));
                let (code, answer) = server.answer(&head.method, head.uri.path(), body, is_dry);
                let answer = Response::builder()
                    .status(code)
                    .body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(answer.unwrap())
            }
        });
        let entry = Entry {
            name: crate::migration::Text::known(name),
            ..migration(HOSTS).clusters[0].clone()
        };
        Cluster {
            entry,
            client: Ok(Client::new(service, "boutique")),
        }
    }

    fn answer(&self, method: &Method, path: &str, body: Value, is_dry: bool) -> (u16, Value) {
        let (objects, hook) = &mut *self.locked();
        let refused = |code: u16| {
            (
                code,
                json!({ "kind": "Status", "status": "Failure", "message": "no", "reason": "no", "code": code }),
            )
        };
        if let Some(code) = hook(objects, method, path) {
            return refused(code);
        }
        let is_list = path.rsplit('/').nth(1) == Some("boutique");
        match *method {
            Method::POST => (200, json!({ "status": { "allowed": true } })),
            Method::GET if is_list => {
                let under = format!("{path}/");
                let items = objects.iter().filter(|(path, _)| path.starts_with(&under));
                (
                    200,
                    json!({ "items": items.map(|(_, object)| object).collect::<Vec<_>>() }),
                )
            }
            Method::PATCH => {
                if !is_dry {
                    objects.insert(path.to_owned(), body.clone());
                }
                (200, body)
            }
            Method::DELETE => objects.remove(path).map_or_else(|| refused(404), |it| (200, it)),
            _ => objects.get(path).map_or_else(|| refused(404), |it| (200, it.clone())),
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, (Objects, Box<Hook>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(user: &str) -> (tempfile::NamedTempFile, Entry) {
    entry_at("127.0.0.1:1", user)
}

fn entry_at(address: &str, user: &str) -> (tempfile::NamedTempFile, Entry) {
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: one, contexts: [{{name: one, context: {{cluster: one, user: one}}}}],
          clusters: [{{name: one, cluster: {{server: 'http://{address}'}}}}], users: [{{name: one, user: {user}}}]}}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test has no Host")]
    std::fs::write(file.path(), text).unwrap();
    let kubeconfig = Some(file.path().to_owned());
    let entry = Entry {
        kubeconfig,
        ..migration(HOSTS).clusters[0].clone()
    };
    (file, entry)
}

async fn failure(entry: &Entry) -> String {
    let cluster = Cluster::new(entry).await;
    let kind = crate::objects::VIRTUAL_SERVICES;
    format!(
        "{:#}",
        anyhow::Error::from(cluster.list(kind, "boutique").await.unwrap_err())
    )
}

#[tokio::test]
async fn kubeconfig_that_is_missing_is_told_by_the_call() {
    let entry = Entry {
        kubeconfig: Some("/nowhere/config".into()),
        ..migration(HOSTS).clusters[0].clone()
    };
    let told = failure(&entry).await;
    let begins = "cluster one: failed to list virtualservices in boutique: no way to the API server: ";
    assert!(told.starts_with(begins) && told.contains("/nowhere/config"), "{told}");
}

#[tokio::test]
async fn plugin_that_fails_is_told_without_its_secrets() {
    let with = |script: &str| {
        entry(&format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: ['-c', '{script}'],
              interactiveMode: Never, env: [{{name: HIDDEN, value: secret-variable}}]}}}}"
        ))
    };
    for (script, words) in [
        (
            "echo secret-token; echo locked out >&2; exit 7",
            "exit status: 7: locked out",
        ),
        ("echo secret-token", "no ExecCredential"),
    ] {
        let (_file, entry) = with(script);
        let told = failure(&entry).await;
        assert!(told.contains(words) && !told.contains("secret"), "{told}");
    }
}

/// Reads requests and gives none of them what it asks for; their number once `client` is done.
async fn count_unavailable(listener: TcpListener, client: impl Future<Output = ()>) -> u32 {
    let mut count = 0;
    let serve = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            while stream.read(&mut head).await.unwrap() > 0 {
                count += 1;
                let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }
    };
    tokio::select! {
        biased;
        () = client => {}
        () = serve => {}
    }
    count
}

#[tokio::test]
async fn call_that_came_to_nothing_is_made_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_file, entry) = entry_at(&listener.local_addr().unwrap().to_string(), "{}");
    let count = count_unavailable(listener, async {
        let cluster = Cluster::new(&entry).await;
        let told = cluster
            .apply(crate::objects::VIRTUAL_SERVICES, &json!({}), Mode::Real)
            .await;
        assert_eq!(told.unwrap_err().code, Some(503));
    });
    assert_eq!(count.await, 1);
}

#[tokio::test(start_paused = true)]
async fn plugin_that_hangs_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let end = folder.path().join("end");
    mkfifo(&end, FileMode::S_IRWXU).unwrap();
    let (_file, entry) = entry(&format!(
        "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: cat, args: ['{}'], interactiveMode: Never}}}}",
        end.display()
    ));
    let is_told = Cell::new(false);
    let asked = async {
        let told = failure(&entry).await;
        is_told.set(true);
        told
    };
    let past_the_deadline = async {
        tokio::time::advance(DEADLINE).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let was_told = is_told.get();
        // It hangs no longer: the runtime waits for its thread.
        #[expect(clippy::disallowed_methods, reason = "a test has no Host")]
        std::fs::write(&end, "").unwrap();
        assert!(was_told, "it is waited for");
    };
    let (told, ()) = tokio::join!(asked, past_the_deadline);
    assert!(
        told.ends_with("the kubeconfig's plugin gave nothing within 10 s"),
        "{told}"
    );
}

#[tokio::test]
async fn kubeconfig_that_is_not_there_is_named_once() {
    let entry = toml::from_str("name = 'one'\nkubeconfig = '/no/such'\n").unwrap();
    let why = Cluster::new(&entry).await.client.err().unwrap();
    assert!(why.contains("/no/such"), "{why}");
    assert_eq!(why.matches("os error 2").count(), 1, "{why}");
}
