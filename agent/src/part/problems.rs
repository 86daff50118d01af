//! What is wrong with a part, and what that means for the VM.

/// The problems of one part at one moment, each with its remedy where there is one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems {
    /// Problems that keep the VM from serving.
    pub blocking: Vec<String>,
    /// Problems that the VM serves on with.
    pub amiss: Vec<String>,
}

impl Problems {
    /// Problems that keep the VM from serving.
    #[must_use]
    pub fn blocking(mut self, problems: impl IntoIterator<Item = String>) -> Self {
        self.blocking.extend(problems);
        self
    }

    /// Problems that the VM serves on with.
    #[must_use]
    pub fn amiss(mut self, problems: impl IntoIterator<Item = String>) -> Self {
        self.amiss.extend(problems);
        self
    }
}
