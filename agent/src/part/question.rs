//! Questions of `check`: each is about one thing, and all are asked at once.

use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{Finding, Site, Subject};
use crate::control_plane::token::TokenSource;
use crate::facts::Membership;
use crate::host::blocking;

/// The mesh that the VM joins, as far as it is known.
#[derive(Clone, Debug, Default)]
pub enum Joined {
    /// The join source has not answered yet.
    #[default]
    Pending,
    /// The source's answer, and the maker of tokens where it is one.
    Known(Arc<Membership>, Option<Arc<dyn TokenSource>>),
    /// The source gave no answer of use, which has a finding of its own.
    Unknown,
}

/// All that questions are asked with.
#[derive(Clone, Debug)]
pub struct CheckContext {
    /// The machine and the configuration.
    pub site: Arc<Site>,
    /// The mesh that the VM joins, as soon as it is known.
    pub joined: watch::Receiver<Joined>,
}

impl CheckContext {
    async fn member(mut self) -> Option<Member> {
        let joined = self.joined.wait_for(|joined| !matches!(joined, Joined::Pending)).await;
        let joined = joined.map_or(Joined::Unknown, |joined| joined.clone());
        match joined {
            Joined::Known(membership, tokens) => Some(Member {
                site: self.site,
                membership,
                tokens,
            }),
            Joined::Pending | Joined::Unknown => None,
        }
    }
}

/// A VM of which it is known what it joins.
#[derive(Clone, Debug)]
pub struct Member {
    /// The machine and the configuration.
    pub site: Arc<Site>,
    /// Membership that the VM is to have.
    pub membership: Arc<Membership>,
    /// Makes tokens for istiod; absent: the membership's file has one.
    pub tokens: Option<Arc<dyn TokenSource>>,
}

/// A question about one thing. Dropped, it is asked no further, but for commands, which have a limit of their own.
pub struct Question {
    /// The thing.
    pub subject: Subject,
    /// The findings, in the order in which they are shown.
    pub answer: BoxFuture<'static, Vec<Finding>>,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

impl Question {
    /// A question to whom the answer has to be waited for.
    pub fn new<A, F>(subject: Subject, answer: F) -> Self
    where
        A: IntoIterator<Item = Finding>,
        F: Future<Output = A> + Send + 'static,
    {
        let answer = Box::pin(async { answer.await.into_iter().collect() });
        Self { subject, answer }
    }

    /// A look at files, commands or the kernel, which may block.
    pub fn look<A>(subject: Subject, context: &CheckContext, look: impl FnOnce(&Site) -> A + Send + 'static) -> Self
    where
        A: IntoIterator<Item = Finding> + Send + 'static,
    {
        let site = Arc::clone(&context.site);
        Self::new(subject, async move {
            let found = blocking(move || Ok(look(&site))).await;
            told(subject, found)
        })
    }

    /// A question that can be asked only where it is known what this VM joins.
    pub fn of_member<A, F>(
        subject: Subject,
        context: &CheckContext,
        ask: impl FnOnce(Member) -> F + Send + 'static,
    ) -> Self
    where
        A: IntoIterator<Item = Finding> + Send,
        F: Future<Output = A> + Send,
    {
        let context = context.clone();
        Self::new(subject, async move {
            match context.member().await {
                Some(member) => ask(member).await.into_iter().collect(),
                None => vec![subject.skipped("it isn't known what this VM joins")],
            }
        })
    }

    /// A look that may block, and needs to know what this VM joins.
    pub fn look_of_member<A>(
        subject: Subject,
        context: &CheckContext,
        look: impl FnOnce(&Site, &Membership) -> A + Send + 'static,
    ) -> Self
    where
        A: IntoIterator<Item = Finding> + Send + 'static,
    {
        Self::of_member(subject, context, move |Member { site, membership, .. }| async move {
            let found = blocking(move || Ok(look(&site, &membership))).await;
            told(subject, found)
        })
    }
}

fn told<A: IntoIterator<Item = Finding>>(subject: Subject, found: Result<A>) -> Vec<Finding> {
    match found {
        Ok(found) => found.into_iter().collect(),
        Err(error) => vec![subject.skipped(format!("{error:#}"))],
    }
}
