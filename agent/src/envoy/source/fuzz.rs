//! Fuzz target: bounds on what is unpacked, whatever was fetched.

use std::io::{self, Cursor, Write};

use super::unpack;

/// The most bytes out of one byte: deflate's highest ratio, and an archive's blocks.
const AMPLIFICATION: u64 = 1100;

/// Unpacks a download.
pub(crate) fn archive(bytes: &[u8]) {
    let mut unpacked = Counter(0);
    let done = unpack::program(&mut Cursor::new(bytes), &mut unpacked);
    assert!(unpacked.0 <= AMPLIFICATION * bytes.len() as u64);
    assert!(
        !done.is_ok_and(|found| found) || unpacked.0 >= 4,
        "what is unpacked is a program"
    );
}

/// Unpacks a layer of an image.
pub(crate) fn layer(bytes: &[u8]) {
    let mut unpacked = Counter(0);
    let done = unpack::layer(&mut Cursor::new(bytes), &mut unpacked);
    assert!(unpacked.0 <= AMPLIFICATION * bytes.len() as u64);
    assert!(
        !done.is_ok_and(|found| found) || unpacked.0 >= 4,
        "what is unpacked is a program"
    );
}

struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
