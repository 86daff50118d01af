//! The mesh's names, as the agent keeps them for whoever needs them without it.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Host, Read};
use crate::facts::NameTable;

impl Host {
    /// The name table in a file of the run directory; `None` when there is none.
    ///
    /// # Errors
    /// When it can't be read, or is damaged.
    pub fn name_table(&self, path: &Path) -> Result<Option<NameTable>> {
        let text = self.read(path, Read::max(NameTable::MAX_TEXT))?;
        text.map(|text| serde_json::from_str(&text).context("damaged"))
            .transpose()
    }
}
