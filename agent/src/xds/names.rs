//! istiod's name table: taken off the stream and published.

use std::sync::Arc;

use istio_api::frame::{Form, Frame};

use super::{Context, own_types};
use crate::facts::NameTable;

impl Context {
    /// Publishes a name table; a bad one changes nothing, and neither does a response without one. The error is
    /// what istiod is told.
    pub(super) fn take_names(&self, form: Form, frame: &Frame) -> Result<(), String> {
        let table = own_types::name_table(form, frame).map_err(|error| {
            let error = format!("{error:#}");
            tracing::warn!("refused istiod's name table, the last good one stays: {error}");
            error
        })?;
        if let Some(table) = table {
            self.report.names(table.names.len());
            self.publish(table);
        }
        Ok(())
    }

    fn publish(&self, table: NameTable) {
        self.names.send_if_modified(|names| {
            let differs = names.as_deref() != Some(&table);
            if differs {
                *names = Some(Arc::new(table));
            }
            differs
        });
    }
}
