//! Properties of a route, whoever has written it.

use super::{Position, foreign_managers, gateway, route as written_route, share_in_force, written};
use crate::fuzz::{MIGRATIONS, documents, json};

/// A route as the API server has it.
pub(crate) fn route(input: &[u8]) {
    let found = json(documents(input).next());
    if let Some(refusal) = gateway::refusal(&found) {
        assert!(!refusal.contains(char::is_control));
    }
    let _ = (foreign_managers(&found), written(&found));
    let position = Position::of(&found);
    for migration in &*MIGRATIONS {
        let share = share_in_force(migration, &found);
        assert!(share.is_none() || position.is_ok(), "a split without a position");
        if let Ok(position) = &position {
            let wanted = written_route(migration, position);
            assert_eq!(share_in_force(migration, &wanted), Some(position.share));
            assert_eq!(
                Position::of(&wanted).ok().as_ref(),
                Some(position),
                "what is written is read again"
            );
        }
    }
}
