//! Names of an application's containers.

/// The name of a container until the one before it is gone.
pub(super) fn next_name(name: &str) -> String {
    format!("{name}-next")
}

/// The name of a container that was not well, and is kept so that no agent tries its specification again.
pub(super) fn rejected_name(name: &str) -> String {
    format!("{name}-rejected")
}

/// All names that an application's container may have.
pub(super) fn names_of(name: &str) -> [String; 3] {
    [name.to_owned(), next_name(name), rejected_name(name)]
}
