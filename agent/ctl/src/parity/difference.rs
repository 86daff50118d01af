//! The differences of an answer from two of the VM's, in words. Pure.

use serde_json::Value;

use super::{Answer, Body};
use crate::migration::{Call, Verify};

/// Most places of one answer that are named.
pub(super) const MOST: usize = 5;
/// Bytes that are shown around a difference.
const SHOWN: usize = 32;

pub(super) fn between(vm: [&Answer; 2], pods: &Answer, verify: &Verify, call: &Call) -> Vec<String> {
    let [one, two] = vm;
    if one.status != two.status {
        let (one, two) = (&one.status, &two.status);
        return vec![format!(
            "the VM itself says {one} and {two}: choose a call that it answers alike"
        )];
    }
    if pods.status != one.status {
        return vec![format!("status is {}, the VM's {}", pods.status, one.status)];
    }
    let mut told = Vec::new();
    for name in &verify.headers {
        let name = name.as_str().to_ascii_lowercase();
        let [one, two, pods] = [one, two, pods].map(|answer| answer.headers.get(&name));
        if one == two && pods != one {
            told.push(format!("header {name} is {}, the VM's {}", word(pods), word(one)));
        }
    }
    if call.ignore_body {
        return told;
    }
    match (&one.body, &two.body, &pods.body) {
        (Body::Json(one), Body::Json(two), Body::Json(pods)) => {
            let mut places = Vec::new();
            in_json("body", [Some(one), Some(two)], Some(pods), &mut places);
            told.extend(places.into_iter().take(MOST));
        }
        (one, two, _) if one != two => {
            told.push("the VM's own answers differ: choose another call, or set ignore_body".to_owned());
        }
        (Body::Bytes(one), _, Body::Bytes(pods)) => told.extend(in_bytes(one, pods)),
        (Body::Json(_), ..) => told.push("body is no JSON, and the VM's is".to_owned()),
        (Body::Bytes(_), ..) => told.push("body is JSON, and the VM's is not".to_owned()),
    }
    told
}

/// Leaves that differ; those that differ between the VM's own answers are left out.
fn in_json(place: &str, vm: [Option<&Value>; 2], pods: Option<&Value>, told: &mut Vec<String>) {
    match (vm, pods) {
        ([Some(Value::Object(one)), Some(Value::Object(two))], Some(Value::Object(pods))) => {
            let mut keys: Vec<&String> = one.keys().chain(two.keys()).chain(pods.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                in_json(
                    &format!("{place}.{key}"),
                    [one.get(key), two.get(key)],
                    pods.get(key),
                    told,
                );
            }
        }
        ([Some(Value::Array(one)), Some(Value::Array(two))], Some(Value::Array(pods)))
            if one.len() == two.len() && one.len() == pods.len() =>
        {
            for (at, pods) in pods.iter().enumerate() {
                in_json(&format!("{place}[{at}]"), [one.get(at), two.get(at)], Some(pods), told);
            }
        }
        ([one, two], pods) if one == two && pods != one => {
            told.push(format!("{place} is {}, the VM's {}", leaf(pods), leaf(one)));
        }
        _ => {}
    }
}

fn in_bytes(vm: &[u8], pods: &[u8]) -> Option<String> {
    if vm == pods {
        return None;
    }
    let at = vm.iter().zip(pods).take_while(|(one, other)| one == other).count();
    let shown = |bytes: &[u8]| {
        let from = at.saturating_sub(SHOWN / 4).min(bytes.len());
        let to = (at + SHOWN).min(bytes.len());
        format!("\"{}\" of {} bytes", bytes[from..to].escape_ascii(), bytes.len())
    };
    Some(format!(
        "answer differs at byte {at}: {}, the VM's {}",
        shown(pods),
        shown(vm)
    ))
}

fn leaf(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "absent".to_owned(), ToString::to_string);
    text.chars().take(2 * SHOWN).collect()
}

fn word(value: Option<&String>) -> String {
    value.map_or_else(|| "absent".to_owned(), |text| format!("{text:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    fn answer(status: &str, version: &str, body: Body) -> Answer {
        Answer {
            status: status.to_owned(),
            headers: [("x-version".to_owned(), version.to_owned())].into(),
            body,
        }
    }

    fn differences(vm: [&Answer; 2], pods: &Answer) -> Vec<String> {
        let text = format!("{HOSTS}verify = {{ headers = ['X-Version'], calls = [{{ http = '/' }}] }}");
        let verify = migration(&text).verify.unwrap();
        between(vm, pods, &verify, &verify.calls[0])
    }

    #[test]
    fn json_is_compared_by_its_meaning_and_bytes_as_they_are() {
        let parsed = |text: &str| Body::Json(serde_json::from_str(text).unwrap());
        let vm = answer("200", "1", parsed(r#"{"a":1,"b":[{"c":2}]}"#));
        let same = answer("200", "1", parsed(r#"{ "b": [ {"c": 2} ], "a": 1 }"#));
        assert_eq!(differences([&vm, &vm], &same), [""; 0]);
        let other = answer("200", "1", parsed(r#"{"a":1,"b":[{"c":3}],"d":null}"#));
        assert_eq!(
            differences([&vm, &vm], &other),
            ["body.b[0].c is 3, the VM's 2", "body.d is null, the VM's absent"]
        );
        let [vm, pods] = [b"\n\x04lamp", b"\n\x04lamb"].map(|bytes| answer("Ok (0)", "1", Body::Bytes(bytes.to_vec())));
        let [only] = differences([&vm, &vm], &pods).try_into().unwrap();
        assert_eq!(
            only,
            r#"answer differs at byte 5: "\n\x04lamb" of 6 bytes, the VM's "\n\x04lamp" of 6 bytes"#
        );
    }

    #[test]
    fn status_and_chosen_headers_are_compared() {
        let [vm, header, status] = [("200", "1"), ("200", "2"), ("500", "1")]
            .map(|(status, version)| answer(status, version, Body::Bytes(Vec::new())));
        assert_eq!(
            differences([&vm, &vm], &header),
            [r#"header x-version is "2", the VM's "1""#]
        );
        assert_eq!(differences([&vm, &vm], &status), ["status is 500, the VM's 200"]);
    }

    #[test]
    fn noise_of_the_vm_is_no_difference_of_the_pods() {
        let at = |time: u8, price: u8| {
            answer(
                "200",
                &time.to_string(),
                Body::Json(json!({ "time": time, "price": price })),
            )
        };
        assert_eq!(differences([&at(1, 9), &at(2, 9)], &at(3, 9)), [""; 0]);
        assert_eq!(
            differences([&at(1, 9), &at(2, 9)], &at(3, 8)),
            ["body.price is 8, the VM's 9"]
        );
    }
}
