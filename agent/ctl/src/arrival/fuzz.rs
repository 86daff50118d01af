//! Properties of istiod's account of a proxy.

use super::Sign;
use crate::fuzz::{MIGRATIONS, documents, json};
use crate::migration::Share;

/// A dump of the configuration of one proxy.
pub(crate) fn dump(input: &[u8]) {
    let dump = json(documents(input).next());
    for migration in &*MIGRATIONS {
        let is_in = |sign: Sign| sign.is_in(&dump, migration).ok();
        for share in [0, 20, 100] {
            let share = Share::try_from(share).expect("it is a share");
            let _ = is_in(Sign::Calls(share));
            let _ = is_in(Sign::Connections(share));
        }
        let _ = is_in(Sign::Route("istio-vm-ctl-7".to_owned()));
        let [none, there] = [Sign::NoConnections, Sign::NoRoute].map(is_in);
        assert_eq!(none.is_some(), there.is_some(), "a dump is one for each sign");
        assert!(is_in(Sign::Subsets) != Some(true) || is_in(Sign::NoSubsets) == Some(false));
    }
}
