//! Who this VM is in the mesh.

pub use crate::control_plane::token;
