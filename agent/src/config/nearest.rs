//! The name that was probably meant by one that nobody knows.

use strsim::damerau_levenshtein;

/// The known name that is nearest to `name`, if any is near: one character in three may be another, and its end may be
/// missing.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['-', ' '], "_");
    let wrong = plain(name);
    let distances = known
        .into_iter()
        .map(|known| (damerau_levenshtein(&wrong, &plain(known)), known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    let is_begun = wrong.len() > 2 && plain(known).starts_with(&wrong);
    (is_begun || distance <= name.chars().count().div_ceil(3).min(4)).then_some(known)
}

/// The known name that `name` is but for a slip or two of the hand; `None` for a known one, and for a short one, which many
/// names are near to.
pub(crate) fn nearest_slip<'a>(name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    if known.clone().into_iter().any(|known| known == name) {
        return None;
    }
    let most = match name.len() {
        0..5 => 0,
        5..9 => 1,
        _ => 2,
    };
    let is_near = |known: &str| {
        let is_as_long = name.len().abs_diff(known.len()) <= most;
        name.eq_ignore_ascii_case(known) || is_as_long && damerau_levenshtein(name, known) <= most
    };
    known.into_iter().find(|known| is_near(known))
}

/// The known name that `name` is but for one slip of the hand, among a few that are no near ones of each other.
pub(crate) fn nearest_of_few<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_near = |known: &&str| name.eq_ignore_ascii_case(known) || damerau_levenshtein(name, known) <= 1;
    known.into_iter().find(is_near)
}

/// ` (did you mean "NAME"?)`, or nothing.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |known| format!(" (did you mean {known:?}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slip_is_told_from_a_name_of_somebody_s_own() {
        let known = ["ISTIO_SERVICE_CIDR", "ISTIO_SVC_IP", "CA_ADDR", "BASE"];
        for (name, wanted) in [
            ("ISTIO_SERVICE_CDIR", Some("ISTIO_SERVICE_CIDR")),
            ("istio_svc_ip", Some("ISTIO_SVC_IP")),
            ("CA_ADR", Some("CA_ADDR")),
            ("CA_ADDR", None),
            ("CASE", None),
            ("MY_SERVICE_CIDR", None),
        ] {
            assert_eq!(nearest_slip(name, known), wanted, "{name}");
        }
    }

    #[test]
    fn name_is_near_when_few_of_its_characters_differ() {
        let known = ["address", "name", "hosts_allow"];
        for (name, wanted) in [
            ("adress", Some("address")),
            ("Address", Some("address")),
            ("hosts-allow", Some("hosts_allow")),
            ("hostsallow", Some("hosts_allow")),
            ("nmae", Some("name")),
            ("addr", Some("address")),
            ("ttl", None),
            ("", None),
            ("something_else", None),
        ] {
            assert_eq!(nearest(name, known), wanted, "{name}");
        }
        assert_eq!(did_you_mean("nam", known), " (did you mean \"name\"?)");
        assert_eq!(did_you_mean("x", []), "");
    }
}
