//! What holds of what the kernel says of a process, whose name is anybody's choice.

use super::process::parse_stat;

/// /proc/PID/stat.
pub(crate) fn stat(text: &str) {
    let _ = parse_stat(text);
}
