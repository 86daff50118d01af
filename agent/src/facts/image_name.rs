//! Names of images, as configurations write them (distribution/reference, regexp.go).

use std::net::IpAddr;

use super::{is_host_name, number};

/// The longest name and the longest tag, in bytes (distribution-spec; the name's limit is Docker's).
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;
/// Hexadecimal characters of a SHA-256.
const SHA256_LENGTH: usize = 64;

/// True for `[registry/]path[:tag][@sha256:…]`.
pub(crate) fn is_image(image: &str) -> bool {
    let (name, digest) = pair(image, '@');
    let (registry, rest) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, name),
    };
    let (path, tag) = pair(rest, ':');
    digest.is_none_or(is_digest)
        && tag.is_none_or(is_tag)
        && registry.is_none_or(is_registry)
        && path.split('/').all(is_part)
        && name.len() <= LONGEST_NAME + LONGEST_TAG
        && path.len() <= LONGEST_NAME
}

/// True for `sha256:` and a hash.
pub(crate) fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == SHA256_LENGTH && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn pair(text: &str, sign: char) -> (&str, Option<&str>) {
    text.split_once(sign)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

fn is_tag(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=LONGEST_TAG).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with(['.', '-'])
}

/// `host[:port]`.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match bare {
        Some(address) => address.parse().is_ok_and(|ip: IpAddr| ip.is_ipv6()),
        None => is_host_name(host) || host.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4()),
    };
    is_host && port.is_none_or(|port| number::port(port).is_some())
}

/// Words of small letters and digits, with a dot, one underscore or two, or dashes between.
fn is_part(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_sign = |sign: &str| ["", ".", "_", "__"].contains(&sign) || sign.bytes().all(|byte| byte == b'-');
    text.starts_with(is_word) && text.ends_with(is_word) && text.split(is_word).all(is_sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_has_a_name_that_docker_takes() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for image in [
            "web",
            "web:1",
            "a/b_c/d__e/f--g.h:V_1.0-x",
            "Registry.example/web:1",
            "registry.example:5000/web:1",
            "localhost/web",
            "127.0.0.1:5000/web",
            "[fd00::1]:5000/web",
            &format!("web:1@{digest}"),
        ] {
            assert!(is_image(image), "{image}");
        }
        for image in [
            "",
            "Web:1",
            "wéb:1",
            "-web",
            "web-:1",
            "a..b",
            "a___b",
            "a._b",
            "/web",
            "a//b",
            "web/",
            "web:",
            "web:1:2",
            "web:-1",
            "web:ü",
            "web: 1",
            "me@r.example/web",
            "r.example:0/web",
            "r.example:+5000/web",
            "localhost:99999/web",
            "a..example/web",
            "https://r.example/web",
            "web@sha256:00",
            &format!("web@{}", digest.to_uppercase()),
            &format!("web:{}", "a".repeat(129)),
            &"a".repeat(256),
        ] {
            assert!(!is_image(image), "{image}");
        }
    }
}
