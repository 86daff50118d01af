//! Fuzz targets: files of variables, the users of an image, and systemd's word on a service.

use super::{env_file, user};

pub(crate) use super::service::fuzz::unit as service_unit;

/// Reads a file of variables.
pub(crate) fn env_file(text: &str) {
    let Ok(variables) = env_file::parse(text) else { return };
    // What is read is written and read again.
    let lines: Vec<_> = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    // A line may end in carriage returns, of which the last is taken for a part of its end.
    assert_eq!(env_file::parse(&lines.join("\r\n")), Ok(variables));
}

/// The user of an image, and the image's files of users and of groups.
pub(crate) fn container_user(input: &str) {
    let mut parts = input.splitn(3, '\0').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let [user, users, groups] = [next(), next(), next()];
    let is_envoys = user::is_envoys(&user, &users, &groups);
    let is_name = !user.is_empty() && !user.contains(|c: char| c == ':' || c.is_whitespace());
    let known = format!("{users}\n{user}:x:1337:0::/:/bin/sh");
    assert!(
        is_envoys || !is_name || user::is_envoys(&user, &known, &groups),
        "its number is Envoy's"
    );
    if let Ok(number) = user.parse::<u32>() {
        let known = format!("{users}\nany:x:{number}:1337::/:/bin/sh");
        assert!(
            user::is_envoys(&user, &known, &groups),
            "its group is Envoy's, however the number is written"
        );
    }
}
