//! A configuration that the running agent refused, as a part that runs nothing: whoever reloads it past `reload` is told
//! in `status`.

use std::time::SystemTime;

use crate::part::{Changes, Channels, Code, Context, Part, Problems, changes_of};

/// Tells of a refused configuration.
#[derive(Debug)]
pub(super) struct ReloadPart;

impl Part for ReloadPart {
    fn name(&self) -> &'static str {
        "reload"
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.reload_problem)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let problem = context.channels.reload_problem.borrow().clone();
        Problems::default().amiss(Code::ReloadRefused, problem)
    }
}
