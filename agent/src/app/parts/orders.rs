//! Istio's orders to its agent on port 15020, as a part that runs nothing: `app` obeys them.

use http::StatusCode;

use crate::facts::Order;
use crate::part::{Answer, Channels, Page, Part, text};

/// Takes orders.
#[derive(Debug)]
pub(super) struct OrdersPart;

impl Part for OrdersPart {
    fn name(&self) -> &'static str {
        "orders"
    }

    /// For root alone, also of a container with the host's network. In Istio whoever is on the host may: there it is a pod's.
    fn pages(&self) -> Vec<Page> {
        vec![
            Page::order("/drain", |channels| give(channels, Order::Drain)),
            Page::order("/quitquitquit", |channels| give(channels, Order::Quit)),
        ]
    }
}

fn give(channels: &Channels, order: Order) -> Answer {
    // Whoever has ordered the end waits for no drain.
    channels.order.send_if_modified(|given| {
        let is_news = *given != Some(Order::Quit);
        if is_news {
            *given = Some(order);
        }
        is_news
    });
    text(StatusCode::OK, "OK")
}
