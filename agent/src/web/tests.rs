use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use kit::web::Server;

use super::*;

fn trusting(server: &Server) -> Client {
    let trust = Trust::Roots {
        pem: server.root_pem.clone(),
        place: "join.https.ca_file (/ca.pem)".to_owned(),
    };
    Client::new(trust, Patience::default()).unwrap()
}

async fn get_text(client: &Client, url: &str, max: usize) -> Result<String, String> {
    let answer = client.exchange(client.get(url), max).await;
    answer.map(|answer| answer.text).map_err(|error| format!("{error:#}"))
}

#[tokio::test]
async fn answer_is_read_up_to_its_bound() {
    let server = Server::tls(Router::new().route("/five", get(|| async { "five5" }))).await;
    let (client, url) = (trusting(&server), format!("{}/five", server.url));
    assert_eq!(get_text(&client, &url, 5).await.as_deref(), Ok("five5"));
    let error = get_text(&client, &format!("{url}?key=secret"), 4).await.unwrap_err();
    assert_eq!(error, format!("failed to GET {url}: the answer is longer than 4 bytes"));
}

#[tokio::test]
async fn server_that_the_roots_do_not_vouch_for_is_refused_with_the_roots_named() {
    let (server, other) = (Server::tls(Router::new()).await, Server::tls(Router::new()).await);
    let error = get_text(&trusting(&other), &server.url, 9).await.unwrap_err();
    let expected = "the roots of join.https.ca_file (/ca.pem) don't vouch for its certificate";
    assert!(error.contains(expected), "{error}");
    let plain = Server::plain(Router::new()).await;
    let url = plain.url.replace("http:", "https:");
    let error = get_text(&trusting(&other), &url, 9).await.unwrap_err();
    assert!(error.contains("it doesn't speak TLS there"), "{error}");
    let error = get_text(&trusting(&other), &plain.url, 9).await.unwrap_err();
    assert!(error.contains("URL scheme is not allowed"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_within_the_server_only() {
    let other = Server::tls(Router::new()).await;
    let away = format!("{}/x", other.url);
    let router = Router::new()
        .route("/here", get(|| async { "here" }))
        .route("/within", get(|| async { Redirect::temporary("/here") }))
        .route("/round", get(|| async { Redirect::temporary("/round") }))
        .route("/away", get(|| async move { Redirect::temporary(&away) }));
    let server = Server::tls(router).await;
    let client = trusting(&server);
    let at = |path: &str| format!("{}{path}", server.url);
    assert_eq!(get_text(&client, &at("/within"), 9).await.as_deref(), Ok("here"));
    let error = get_text(&client, &at("/round"), 9).await.unwrap_err();
    assert!(error.contains("in circles"), "{error}");
    let error = get_text(&client, &at("/away"), 9).await.unwrap_err();
    assert!(
        error.contains(&format!("it redirects to {}, and only", other.url)),
        "{error}"
    );
}

#[tokio::test]
async fn server_that_says_nothing_is_not_waited_for() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let patience = Patience {
        connect: Duration::from_millis(20),
        exchange: Duration::from_millis(20),
    };
    let client = Client::new(Trust::Plain, patience).unwrap();
    let error = get_text(&client, &url, 9).await.unwrap_err();
    assert!(error.contains("no whole answer within 20ms"), "{error}");
    drop(silent);
    let error = get_text(&client, &url, 9).await.unwrap_err();
    assert!(error.contains("nothing listens there"), "{error}");
}

#[tokio::test]
async fn name_without_an_address_is_told_from_a_server_that_is_down() {
    // Longer than a label can be: no server is asked for it.
    let url = format!("http://{}.invalid/", "a".repeat(70));
    let client = Client::new(Trust::Plain, Patience::default()).unwrap();
    let error = get_text(&client, &url, 9).await.unwrap_err();
    assert!(error.contains("this VM's resolver doesn't know its name"), "{error}");
}

#[test]
fn certificate_that_is_no_server_s_is_told_with_a_remedy() {
    use rustls::{CertificateError, Error};
    let error = Error::InvalidCertificate(CertificateError::BadEncoding);
    let remedy = failure::tls_remedy(&error, &Trust::Plain, SystemTime::UNIX_EPOCH).unwrap();
    assert!(remedy.contains("not the CA's own"), "{remedy}");
}

#[test]
fn certificate_out_of_its_time_is_told_with_both_times() {
    use rustls::CertificateError as C;
    use rustls_pki_types::UnixTime;
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2000);
    let early = C::NotValidYetContext {
        time: at(2000),
        not_before: at(3600),
    };
    assert_eq!(
        untimely(&early, now).unwrap(),
        "its certificate is not valid yet (1970-01-01T01:00:00Z), and this VM's clock says 1970-01-01T00:33:20Z: \
         set the clock"
    );
    let late = C::ExpiredContext {
        time: at(2000),
        not_after: at(u64::MAX),
    };
    assert!(
        untimely(&late, now)
            .unwrap()
            .contains("has expired, and this VM's clock says 1970-01-01T00:33:20Z")
    );
    assert_eq!(untimely(&C::UnknownIssuer, now), None);
}

#[test]
fn roots_that_are_none_are_named() {
    for pem in [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let trust = Trust::Roots {
            pem: pem.to_owned(),
            place: "/ca.pem".to_owned(),
        };
        let error = Client::new(trust, Patience::default()).unwrap_err();
        assert!(!format!("{error:#}").is_empty(), "{pem}: {error:#}");
    }
}
