//! Values that a configuration may not have, and those beside them that it may.

use super::*;

const CONTAINER: &str = "[workload.container]\nname = \"web\"\nimage = \"web:1\"\n";

pub(crate) const REFUSED: &str = include_str!("refused.txt");

/// Words of the libraries that read a configuration.
const OF_LIBRARIES: [&str; 13] = [
    "serde",
    "TOML parse error",
    "invalid type",
    "invalid value",
    "unknown field",
    "unknown variant",
    "missing field",
    "expected struct",
    "wanted exactly",
    "u16",
    "u32",
    "f64",
    "usize",
];

/// Input, begin and part of the error of each row.
pub(crate) fn rows(table: &str) -> Vec<(String, String, String)> {
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    let row = |line: &str| {
        let parts: Vec<String> = line.split(" => ").map(|part| part.replace("\\n", "\n")).collect();
        let [input, begins, holds] = parts.try_into().expect(line);
        (input, begins, holds)
    };
    lines.map(row).collect()
}

/// The configuration of a row.
pub(crate) fn text_of(input: &str) -> String {
    match (input.strip_prefix("@whole "), input.strip_prefix("@container ")) {
        (Some(whole), _) => whole.to_owned(),
        (_, Some(keys)) => format!("{MINIMAL}{CONTAINER}{keys}\n"),
        _ => format!("{MINIMAL}{input}\n"),
    }
}

#[test]
fn configuration_is_refused_with_its_place_and_in_our_words() {
    let mut wrong = Vec::new();
    for (input, begins, holds) in rows(REFUSED) {
        let error = match Config::parse(Path::new("c.toml"), &text_of(&input)) {
            Ok(_) => "it is taken".to_owned(),
            Err(error) => error.to_string(),
        };
        let is_ours = !OF_LIBRARIES.iter().any(|word| error.contains(word));
        if !(error.starts_with(&begins) && error.contains(&holds) && is_ours) {
            wrong.push(format!("{input:?}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = "[network]\nadress = '10.0.0.1'\nname = 'a b'\naddress = '127.0.0.1'\n[log]\nlevel = 'loud'\n[envoy]\n\
                admin_port = 'x'\n[identity]\nttl = '1s'\n[interception]\n";
    let error = Config::parse(Path::new("c.toml"), &format!("{MINIMAL}{text}")).unwrap_err();
    let places: Vec<String> = error.faults().iter().map(|fault| fault.place.to_string()).collect();
    for line in [4, 5, 6, 8, 10, 12, 13] {
        assert!(
            places.iter().any(|place| place.starts_with(&format!("c.toml:{line}:"))),
            "{line}: {error}"
        );
    }
    assert!(!error.to_string().contains("source"), "{error}");
}

#[test]
fn values_beside_refused_ones_are_taken() {
    for text in [
        "[log]\nlevel = 'warn'",
        "[log]\nlevel = 'INFO,istio_vm_agent::xds=debug,h2=off'",
        "[network]\naddress = '10.200.0.3'\nname = 'vm-1.example'",
        "[network]\naddress = '34.1.2.3'",
        "[network]\naddress = 'fd00:200::3'",
        "[identity]\nttl = '10m'",
        "[identity]\nttl = '2160h'",
        "[envoy]\nadmin_port = 15000\nconcurrency = 1\nrestart_budget = 1",
        "[control_plane]\naddresses = ['istiod.istio-system.svc:15012', '10.0.0.1:443', '[fd00::2]:15012']",
        "[paths]\nstate = '/s/a'\nrun = '/s/ab'",
        "[paths]\nrun = '/run/istio-vm-agent/'",
        "[health.probe]\nhttp = { port = 8080, path = '/healthz?a=b', headers = { X-Probe = 'a b' } }",
    ] {
        Config::parse(Path::new("c.toml"), &format!("{MINIMAL}{text}\n")).expect(text);
    }
}
