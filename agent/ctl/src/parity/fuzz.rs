//! Properties of a comparison, whatever is answered.

use std::collections::BTreeMap;

use super::{Answer, difference};
use crate::fuzz::{MIGRATIONS, documents};

/// The VM's two answers and the pods', each a body.
pub(crate) fn answers(input: &[u8]) {
    let mut bodies = documents(input);
    let mut answer = || Answer {
        status: "200".to_owned(),
        headers: BTreeMap::new(),
        body: super::http::body(bodies.next().unwrap_or_default().to_vec()),
    };
    let (one, two, pods) = (answer(), answer(), answer());
    for migration in &*MIGRATIONS {
        let Some(verify) = &migration.verify else { continue };
        for call in &verify.calls {
            let told = difference::between([&one, &two], &pods, verify, call);
            assert!(told.len() <= difference::MOST);
            let same = difference::between([&one, &one], &one, verify, call);
            assert!(same.is_empty(), "{same:?}");
            let other = difference::between([&one, &one], &pods, verify, call);
            assert_eq!(other.is_empty(), one.body == pods.body);
        }
    }
}
