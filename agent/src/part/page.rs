//! A page that a part shows on port 15020, and who may see it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, ready};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use super::Channels;
use crate::supervise::Scope;

/// The answer of a page.
pub type Answer = Response<Full<Bytes>>;

/// Whoever may see a page, as the kernel knows them (sock_diag(7)): no header has a say in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Audience {
    /// Whoever reaches the port.
    Everyone,
    /// Whoever is on this VM.
    ThisHost,
    /// Root of this VM.
    Root,
}

/// One page.
#[derive(Clone)]
pub struct Page {
    /// The page's path; all below it where it ends in `/`.
    pub path: &'static str,
    /// GET, which allows HEAD too, or POST.
    pub method: Method,
    /// Whoever may see it, which the membership may have a say in.
    pub audience: fn(&Channels) -> Audience,
    answer: Arc<dyn Fn(Scope, Channels, Parts) -> BoxFuture<'static, Answer> + Send + Sync>,
}

impl Page {
    /// A page whose answer takes time. The scope is for work that goes on when the asker goes away.
    pub fn new<F, Fut>(path: &'static str, audience: fn(&Channels) -> Audience, answer: F) -> Self
    where
        F: Fn(Scope, Channels, Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        Self {
            path,
            method: Method::GET,
            audience,
            answer: Arc::new(move |scope, channels, request| answer(scope, channels, request).boxed()),
        }
    }

    /// A page that is made of the facts at hand.
    pub fn of_facts(
        path: &'static str,
        audience: fn(&Channels) -> Audience,
        answer: fn(&Channels, &Parts) -> Answer,
    ) -> Self {
        Self::new(path, audience, move |_, channels, request| {
            ready(answer(&channels, &request))
        })
    }

    /// An order to the agent: POST, by root alone.
    pub fn order(path: &'static str, give: fn(&Channels) -> Answer) -> Self {
        Self {
            method: Method::POST,
            ..Self::new(path, |_| Audience::Root, move |_, channels, _| ready(give(&channels)))
        }
    }

    /// True when the page is at `path`.
    pub fn is_at(&self, path: &str) -> bool {
        match self.path.ends_with('/') {
            true => path.starts_with(self.path),
            false => path == self.path,
        }
    }

    /// The answer to one request.
    pub fn answer(&self, scope: Scope, channels: Channels, request: Parts) -> BoxFuture<'static, Answer> {
        (self.answer)(scope, channels, request)
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("path", &self.path).finish_non_exhaustive()
    }
}

/// An answer in plain words.
pub fn text(status: StatusCode, text: &str) -> Answer {
    typed(status, "text/plain", text.to_owned())
}

/// An answer of this content type.
pub fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
