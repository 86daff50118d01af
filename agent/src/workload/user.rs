//! The user of a container's first process, on the VM's own network: there user and group 1337 are Envoy, whose packets
//! pass the redirection, and who may share Envoy's ports.
//!
//! Docker finds the user by `USER[:GROUP]`, by number or by name, and by the container's own /etc/passwd and
//! /etc/group.

use anyhow::{Context, Result, bail};

use super::engine::Engine;
use crate::config::ports::{PROXY_GID, PROXY_UID};

/// The longest file of users or groups that is read, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;
/// The files of users and of groups.
const FILES: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// Fails when a container that is about to start on the VM's network would do so as Envoy's user or in its group.
pub(super) async fn expect_other_than_envoy(engine: &Engine, id: &str) -> Result<()> {
    let container = engine.find(id).await?.context("the container is gone")?;
    let [users, groups] = FILES.map(|path| engine.read(id, path, MAX_FILE_BYTES));
    let (users, groups) = (users.await?.unwrap_or_default(), groups.await?.unwrap_or_default());
    let user = &container.user;
    if is_envoys(user, &users, &groups) {
        bail!(
            "the container {name} would run as user {user:?}, and as user or group 1337 on the VM's network it would be \
             taken for Envoy, past the mesh: give its image another USER, or set workload.container.network = \"bridge\"",
            name = container.name,
        );
    }
    Ok(())
}

/// True when `user` has Envoy's number, or any of its groups has.
pub(super) fn is_envoys(user: &str, users: &str, groups: &str) -> bool {
    let (user, group) = user
        .split_once(':')
        .map_or((user, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    // name:password:number:group's number:…; by its name or by its number, whichever Docker takes, which has 0 for what is none.
    let wanted: Option<u32> = user.parse().ok();
    let number = |entry: &Vec<&str>| entry.get(2).map_or(0, |number| number.parse().unwrap_or(0));
    let is_meant = |entry: &Vec<&str>| entry.first() == Some(&user) || wanted == Some(number(entry));
    let entries: Vec<_> = records(users).filter(is_meant).collect();
    let names = || entries.iter().filter_map(|entry| entry.first()).chain([&user]);
    let users = entries.iter().filter_map(|entry| entry.get(2)).chain([&user]);
    let primary = entries.iter().filter_map(|entry| entry.get(3)).chain(group.as_ref());
    // name:password:number:members
    let member = |entry: &Vec<&str>| {
        let mut members = entry.get(3).into_iter().flat_map(|members| members.split(','));
        group.is_some_and(|group| entry.first() == Some(&group))
            || members.any(|member| names().any(|name| *name == member))
    };
    let named = records(groups).filter(member);
    let numbers = named.filter_map(|entry| entry.get(2).copied());
    is_any(users.copied(), PROXY_UID) || is_any(primary.copied().chain(numbers), PROXY_GID)
}

fn records(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.trim().split(':').collect())
}

fn is_any<'a>(mut numbers: impl Iterator<Item = &'a str>, wanted: u32) -> bool {
    numbers.any(|number| number.trim().parse() == Ok(wanted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USERS: &str = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\nproxy:x:1337:9::/:/bin/sh\n\
                         friend:x:1001:1337::/:/bin/sh\n";
    const GROUPS: &str = "root:x:0:\nmesh:x:1337:app2,other\napp:x:1000:\n";

    #[test]
    fn user_is_envoys_behind_every_name() {
        for user in [
            "",
            "0",
            "root",
            "app",
            "1000",
            "1000:1000",
            "app:app",
            "nobody",
            "4711:4712",
        ] {
            assert!(!is_envoys(user, USERS, GROUPS), "{user:?}");
        }
        for user in [
            "1337",
            "01337",
            "+1337",
            "1337:1337",
            "0:1337",
            "proxy",
            "friend",
            "1001",
            "app:mesh",
            "root:01337",
            "other",
            "app2:app",
            "01001",
            "+1001",
        ] {
            assert!(is_envoys(user, USERS, GROUPS), "{user:?}");
        }
        assert!(
            is_envoys("", "odd:x:none:1337::/:/bin/sh\n", ""),
            "its number is 0 to Docker"
        );
        assert!(is_envoys("1337", "", ""));
        assert!(!is_envoys("", "", ""));
    }

    proptest! {
        #[test]
        fn users_never_make_the_parser_panic(user in "[a-z0-9:+]{0,8}", users in "(\\PC|\n){0,80}", groups in "([a-z:,0-9]|\n){0,80}") {
            let _ = is_envoys(&user, &users, &groups);
            let known = format!("{users}\n{user}:x:1337:0::/:/bin/sh");
            prop_assert!(user.is_empty() || user.contains(':') || is_envoys(&user, &known, &groups));
        }
    }
}
