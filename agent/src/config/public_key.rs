//! minisign's public key, by which a bundle's files are known.

/// The second line of the file that `minisign -G` writes.
pub(super) fn check(key: &str, text: Option<&str>) -> Result<(), String> {
    match text.map(minisign_verify::PublicKey::from_base64) {
        Some(Err(_)) => Err(format!(
            "{key}: is no public key of minisign's, such as \"RW…\" in minisign.pub"
        )),
        _ => Ok(()),
    }
}
