//! Rules of netfilter's own chains that are istio-iptables', though they name no chain of Istio's.

/// The mark that TPROXY gives to Envoy's own calls to this machine (tools/istio-iptables/pkg/capture/run.go).
const OUTBOUND_MARK: &str = "0x53a/0xffffffff";

/// Marks of rules of Istio that have no name of a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IstioRules {
    /// Interfaces that it leaves alone, or whose traffic it takes for a guest's.
    pub interfaces: Vec<String>,
    /// TPROXY's mark.
    pub mark: u32,
    /// TPROXY's routing table.
    pub table: u32,
}

/// Tells whether a rule, as iptables-save prints it, is one of Istio's.
pub(super) fn is_istios(table: &str, rule: &str, istio: &IstioRules) -> bool {
    of_interface(table, rule, istio) || of_tproxy(table, rule, istio)
}

/// The very form, so that no rule that says more is meant.
fn of_interface(table: &str, rule: &str, istio: &IstioRules) -> bool {
    ["nat", "mangle"].contains(&table)
        && istio.interfaces.iter().any(|nic| {
            rule == format!("-A PREROUTING -i {nic} -j RETURN") || rule == format!("-A OUTPUT -o {nic} -j RETURN")
        })
}

fn of_tproxy(table: &str, rule: &str, istio: &IstioRules) -> bool {
    let mark = format!("{:#x}", istio.mark);
    let masks = "--nfmask 0xffffffff --ctmask 0xffffffff";
    let forms = [
        format!("-A PREROUTING -p tcp -m mark --mark {mark} -j CONNMARK --save-mark {masks}"),
        format!("-A OUTPUT -p tcp -m connmark --mark {mark} -j CONNMARK --restore-mark {masks}"),
        format!("-A OUTPUT -o lo -p tcp -m mark --mark {mark} -j RETURN"),
    ];
    let marks_envoy = || {
        rule.starts_with("-A OUTPUT ! -d ")
            && rule.contains(" -o lo -p tcp -m owner --")
            && rule.ends_with(&format!(" -j MARK --set-xmark {OUTBOUND_MARK}"))
    };
    table == "mangle" && (forms.iter().any(|form| form == rule) || marks_envoy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn istio() -> IstioRules {
        IstioRules {
            interfaces: vec!["eth9".to_owned()],
            mark: 1337,
            table: 133,
        }
    }

    #[test]
    fn leftovers_are_istios_very_rules_only() {
        let cases = [
            ("nat", "-A PREROUTING -i eth9 -j RETURN", true),
            ("mangle", "-A OUTPUT -o eth9 -j RETURN", true),
            ("raw", "-A OUTPUT -o eth9 -j RETURN", false),
            ("nat", "-A PREROUTING -i eth8 -j RETURN", false),
            ("nat", "-A PREROUTING -i eth9 -p tcp -j RETURN", false),
            ("mangle", "-A OUTPUT -o lo -p tcp -m mark --mark 0x539 -j RETURN", true),
            ("mangle", "-A OUTPUT -o lo -p tcp -m mark --mark 0x1 -j RETURN", false),
            (
                "mangle",
                "-A OUTPUT ! -d ::1/128 -o lo -p tcp -m owner --uid-owner 998 -j MARK --set-xmark 0x53a/0xffffffff",
                true,
            ),
            ("mangle", "-A OUTPUT -p tcp -j MARK --set-xmark 0x53a/0xffffffff", false),
        ];
        for (table, rule, wanted) in cases {
            assert_eq!(is_istios(table, rule, &istio()), wanted, "{table}: {rule}");
        }
    }
}
