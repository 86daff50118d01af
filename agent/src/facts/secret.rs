//! `Secret`, which keys and tokens are kept in.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Text that no `Debug` shows, and whose memory is wiped when it is dropped. What a library makes of it, to send or to
/// store it, is wiped by the program's allocator.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for who has to have it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Longer than what an allocator writes into memory that it gets back.
    const KEY: &str = "a key that is not to be found anywhere in memory once it has been dropped";

    #[test]
    fn secret_is_shown_by_no_debug() {
        assert_eq!(format!("{:?}", Some(Secret::new(KEY))), "Some(redacted)");
    }

    #[test]
    fn its_memory_is_wiped_when_it_is_dropped() {
        let memory = File::open("/proc/self/mem").unwrap();
        // On the stack: in the heap this could take the place that is looked at.
        let at = |address: u64| {
            let mut found = [0; KEY.len()];
            memory.read_exact_at(&mut found, address).unwrap();
            found
        };
        let secret = Secret::new(KEY);
        let address = secret.expose().as_ptr() as u64;
        assert_eq!(at(address), KEY.as_bytes());
        drop(secret);
        let left = at(address);
        let (_, tail) = KEY.as_bytes().split_at(KEY.len() / 2);
        assert!(!left.windows(tail.len()).any(|window| window == tail), "{left:?}");
    }
}
