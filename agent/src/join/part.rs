//! The join source as a part.

use std::time::SystemTime;

use super::{Join, refresh};
use crate::part::{Changes, Channels, Context, Part, Problems, SHORT, Task, changes_of};

/// Follows the join source; without one it runs nothing.
#[derive(Debug)]
pub struct JoinPart(pub Option<Join>);

impl Part for JoinPart {
    fn name(&self) -> &'static str {
        "join"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let join = self.0.clone()?;
        let publish = context.channels.membership.clone();
        let problem = context.channels.join_problem.clone();
        Some(Task::new(SHORT, |scope| refresh::run(scope, join, publish, problem)))
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.join_problem)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let problem = context.channels.join_problem.borrow().clone();
        Problems::default().amiss(
            problem.map(|problem| format!("the join source is followed no more, what it gave last serves: {problem}")),
        )
    }
}
