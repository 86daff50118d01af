use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::control_plane::fixtures::{Ca, issued_by};

const SECOND: Duration = Duration::from_secs(1);

fn place() -> Place {
    Place {
        control_planes: vec!["istiod:15012".to_owned()],
        hosts: Vec::new(),
        roots_pem: "PEM".to_owned(),
        cluster_id: "cluster".to_owned(),
        healthy: true,
    }
}

fn heard() -> watch::Sender<Heard> {
    watch::Sender::new(Heard {
        place: None,
        at: Instant::now(),
    })
}

fn say(heard: &watch::Sender<Heard>, place: Option<Place>) {
    let at = Instant::now();
    heard.send_replace(Heard { place, at });
}

#[tokio::test(start_paused = true)]
async fn agent_is_silent_that_has_said_nothing_for_some_seconds_since_it_gave_a_place() {
    let heard = heard();
    let mut hears = heard.subscribe();
    let begun = Instant::now();
    let agent = async {
        // Before it has given one, and after it has taken it back, nobody waits for its word.
        sleep(60 * SECOND).await;
        for _ in 0..60 {
            say(&heard, Some(place()));
            sleep(SECOND).await;
        }
        say(&heard, None);
        sleep(60 * SECOND).await;
        say(&heard, Some(place()));
    };
    let (held, ()) = tokio::join!(silence(&mut hears), agent);
    assert_eq!((held, begun.elapsed()), (place(), 180 * SECOND + SILENCE));
}

#[tokio::test(start_paused = true)]
async fn place_is_held_once_for_each_silence_and_left_at_a_word() {
    let (heard, holds) = (heard(), AtomicUsize::new(0));
    // The first time until the agent is back, the second until it can't be held.
    let hold = |_| {
        let is_first = holds.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if is_first {
                std::future::pending::<()>().await;
            }
            "Envoy is gone".to_owned()
        }
    };
    let story = async {
        say(&heard, Some(place()));
        for count in 1..3 {
            assert_eq!(holds.load(Ordering::SeqCst), count - 1);
            sleep(3600 * SECOND).await;
            assert_eq!(holds.load(Ordering::SeqCst), count);
            say(&heard, Some(place()));
            sleep(SECOND).await;
        }
        say(&heard, None);
        sleep(3600 * SECOND).await;
        assert_eq!(holds.load(Ordering::SeqCst), 2);
    };
    tokio::select! {
        never = look_on(heard.subscribe(), hold) => match never {},
        () = story => {}
    }
}

#[tokio::test]
async fn word_that_nobody_understands_is_none_to_hold_a_place_by() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("place.sock");
    let agent = tokio::net::UnixListener::bind(&socket).unwrap();
    let heard = heard();
    let mut hears = heard.subscribe();
    let (scope, _drain) = Scope::detached();
    scope.spawn_loop(listen(socket, heard));
    let words = serde_json::to_vec(&Word::Hold(place())).unwrap();
    for (said, wanted) in [
        ([&words[..], b"\n\n"].concat(), Some(place())),
        (b"{\"another\": 1}\n".to_vec(), None),
        ([&words[..], b"\n"].concat(), Some(place())),
        (b"\"forget\"\n".to_vec(), None),
    ] {
        let (mut connection, _) = agent.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut connection, &said)
            .await
            .unwrap();
        let told = hears.wait_for(|heard| heard.place == wanted);
        timeout(20 * SECOND, told)
            .await
            .expect("not within the deadline")
            .unwrap();
    }
}

#[test]
fn place_is_held_with_a_certificate_that_is_valid_alone() {
    let paths = PathsConfig::default();
    let host = Host::new("/nowhere", crate::host::System);
    let now = SystemTime::now();
    let ca = Ca::new("mesh");
    let of = |credentials| context(&host, &paths, place(), credentials).map(|(_, life)| life);
    let valid = issued_by(&ca, now - 2 * SECOND, now + 60 * SECOND);
    assert!(of(Ok(Some(valid))).unwrap() <= 60 * SECOND);
    let ended = issued_by(&ca, now - 2 * SECOND, now - SECOND);
    assert!(of(Ok(Some(ended))).unwrap_err().to_string().contains("has ended"));
    assert!(of(Ok(None)).unwrap_err().to_string().contains("no certificate"));
}
