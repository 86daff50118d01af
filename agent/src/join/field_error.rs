//! An error in one field of a mesh's configuration.

/// A field whose value is of no use. Displays as `field: problem`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(super) struct FieldError {
    /// The field's path, with dots between.
    pub(super) field: String,
    pub(super) problem: String,
}

impl FieldError {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// The same error, its field being one of `parent`.
    pub(super) fn below(self, parent: &str) -> Self {
        Self {
            field: format!("{parent}.{}", self.field),
            ..self
        }
    }
}
