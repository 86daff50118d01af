//! The crate map comes here.
