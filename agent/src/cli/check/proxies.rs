//! Proxies of the shell that `check` is run in, and the unit's: through one that only the shell has all is well here, and
//! the agent never joins.

/// Proxy of a client of HTTPS.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Proxies {
    proxy: Option<String>,
    /// Names that it calls without.
    without: Option<String>,
}

impl Proxies {
    pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        // A list with spaces is told by its start: not every systemctl quotes it.
        let start = |name: &str| Some(variable(name)?.split_whitespace().next()?.to_owned());
        let either = |name: &str| start(name).or_else(|| start(&name.to_lowercase()));
        let proxy = either("HTTPS_PROXY").or_else(|| either("ALL_PROXY"));
        Self {
            without: proxy.as_ref().and_then(|_| either("NO_PROXY")),
            proxy,
        }
    }

    /// The proxies of an environment as systemctl shows it.
    pub(super) fn shown(environment: &str) -> Self {
        let words = || environment.split_whitespace().map(|word| word.trim_matches('"'));
        let value = |name: &str| words().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Self::of(|name| value(name).map(str::to_owned))
    }

    /// The problem where the unit has others, and the fix. Neither's value is told, for a proxy's may hold a password.
    pub(super) fn differing(&self, unit: &Self) -> Option<(String, &'static str)> {
        const WRITE: &str = "`systemctl edit istio-vm-agent`, write `[Service]` and `Environment=HTTPS_PROXY=URL \
             NO_PROXY=LIST` with the values that hold here, then systemctl restart istio-vm-agent; or unset them here";
        const EXPORT: &str =
            "export here what `systemctl show --property=Environment istio-vm-agent` shows, and check again";
        let (problem, fix) = match (&self.proxy, &unit.proxy) {
            _ if self == unit => return None,
            (Some(here), Some(there)) if here == there => ("NO_PROXY is another here than in the unit", WRITE),
            (Some(_), Some(_)) => ("HTTPS_PROXY or ALL_PROXY is another here than in the unit", WRITE),
            (Some(_), None) => ("HTTPS_PROXY or ALL_PROXY is set here, and not in the unit", WRITE),
            (None, _) => ("the unit has HTTPS_PROXY or ALL_PROXY, and none is set here", EXPORT),
        };
        Some((
            format!("{problem}: what can be reached from here, the agent may not reach"),
            fix,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_that_the_shell_or_the_unit_alone_has_is_told_without_its_password() {
        const URL: &str = "http://ada:secret@proxy:3128";
        const BOTH: &str = "\"HTTPS_PROXY=http://ada:secret@proxy:3128\" NO_PROXY=10.0.0.1, other";
        let told = |here: &[(&str, &str)], unit: &str| {
            let value = |name: &str| here.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
            Proxies::of(value).differing(&Proxies::shown(unit))
        };
        for (here, unit, says) in [
            (&[("https_proxy", URL)][..], "A=b", "is set here, and not in"),
            (&[("ALL_PROXY", URL), ("NO_PROXY", "x")], "", "is set here, and not in"),
            (&[], BOTH, "none is set here"),
            (&[("HTTPS_PROXY", URL)], BOTH, "NO_PROXY is another here"),
            (&[("HTTPS_PROXY", "http://b")], BOTH, "ALL_PROXY is another here"),
        ] {
            let (problem, fix) = told(here, unit).unwrap();
            assert!(problem.contains(says), "{here:?} {unit}: {problem}");
            assert!(!problem.contains("secret") && !fix.contains("secret"));
        }
        let same = [("HTTPS_PROXY", URL), ("no_proxy", "10.0.0.1, other")];
        assert_eq!(told(&same, BOTH), None);
        assert_eq!(told(&[("NO_PROXY", "x")], ""), None);
    }
}
