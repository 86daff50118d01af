//! The specification that Envoy is wanted with: made of the program that is here and of the membership, whenever either
//! changes.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use crate::envoy::options::Options;
use crate::envoy::process::LaunchSpec;
use crate::facts::Membership;

/// The source of every [`LaunchSpec`].
pub(in crate::envoy) struct WantedSpec {
    options: Options,
    /// The program to run; `None` until there is one.
    program: watch::Receiver<Option<PathBuf>>,
    membership: watch::Receiver<Arc<Membership>>,
}

impl WantedSpec {
    pub(in crate::envoy) fn new(
        options: Options,
        program: watch::Receiver<Option<PathBuf>>,
        membership: watch::Receiver<Arc<Membership>>,
    ) -> Self {
        Self {
            options,
            program,
            membership,
        }
    }

    /// The specification wanted now; waits while there is no program to run.
    pub(super) async fn spec(&mut self) -> LaunchSpec {
        let program = self.program.wait_for(Option::is_some).await;
        let Some(program) = program.ok().and_then(|program| program.clone()) else {
            // Nobody provides one any more.
            return std::future::pending().await;
        };
        let membership = self.membership.borrow_and_update().clone();
        LaunchSpec::new(&self.options, &program, &membership)
    }

    /// Completes once the specification wanted is another one than `spec`, which was the last that this made.
    pub(super) async fn other_than(&mut self, spec: &LaunchSpec) -> LaunchSpec {
        loop {
            // Where nobody publishes any more, it stays as it is.
            tokio::select! {
                Ok(()) = self.membership.changed() => {}
                Ok(()) = self.program.changed() => {}
                else => std::future::pending().await,
            }
            let wanted = self.spec().await;
            if wanted != *spec {
                return wanted;
            }
        }
    }

    /// Completes as `other_than` does, and not while `draining` is held: an Envoy that was taken over from would be ended for a
    /// third one, with its callers' requests. A VM that is at another address doesn't wait, for nobody calls it at that of
    /// before.
    pub(super) async fn superseding(&mut self, spec: &LaunchSpec, draining: &Mutex<()>) -> LaunchSpec {
        let addresses = self.membership().instance_ips.clone();
        let mut other = self.other_than(spec).await;
        while self.membership().instance_ips == addresses {
            tokio::select! {
                biased;
                _ = draining.lock() => break,
                newer = self.other_than(&other) => other = newer,
            }
        }
        other
    }

    /// The membership that the specification was made of, or a newer one.
    pub(super) fn membership(&self) -> Arc<Membership> {
        self.membership.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::envoy::bootstrap::tests::membership;
    use crate::host::Host;

    #[test]
    fn wanted_spec_changes_with_the_program_and_the_bootstrap_and_nothing_else() {
        let (program, seen_program) = watch::channel(None);
        let (publish, seen) = watch::channel(Arc::new(membership()));
        let mut wanted = WantedSpec::new(Options::bare(Host::system()), seen_program, seen);
        assert_eq!(wanted.spec().now_or_never(), None, "there is no program");
        program.send_replace(Some("/e".into()));
        let first = wanted.spec().now_or_never().unwrap();

        publish.send_modify(|membership| Arc::make_mut(membership).roots_pem = "other".to_owned());
        assert_eq!(wanted.other_than(&first).now_or_never(), None);
        publish.send_modify(|membership| Arc::make_mut(membership).node_name = "other".to_owned());
        let second = wanted.other_than(&first).now_or_never().unwrap();
        assert!(second.bootstrap.contains("other"));
        program.send_replace(Some("/f".into()));
        let third = wanted.other_than(&second).now_or_never().unwrap();
        assert_eq!((third.program(), third.bootstrap), ("/f".into(), second.bootstrap));
    }

    #[test]
    fn envoy_that_follows_waits_for_a_drain_and_one_at_another_address_does_not() {
        let (_program, seen_program) = watch::channel(Some("/e".into()));
        let (publish, seen) = watch::channel(Arc::new(membership()));
        let mut wanted = WantedSpec::new(Options::bare(Host::system()), seen_program, seen);
        let first = wanted.spec().now_or_never().unwrap();
        let rename = |name: &str| publish.send_modify(|it| Arc::make_mut(it).node_name = name.to_owned());

        let draining = Mutex::new(());
        let drain = draining.try_lock().unwrap();
        let mut superseding = Box::pin(wanted.superseding(&first, &draining));
        rename("second");
        assert_eq!(superseding.as_mut().now_or_never(), None);
        rename("third");
        assert_eq!(superseding.as_mut().now_or_never(), None);
        drop(drain);
        let third = superseding.as_mut().now_or_never().unwrap();
        assert!(third.bootstrap.contains("third"));
        drop(superseding);

        let _drain = draining.try_lock().unwrap();
        let mut superseding = Box::pin(wanted.superseding(&third, &draining));
        assert_eq!(superseding.as_mut().now_or_never(), None);
        publish.send_modify(|it| Arc::make_mut(it).instance_ips = vec!["10.9.9.9".parse().unwrap()]);
        assert!(superseding.now_or_never().is_some());
    }
}
