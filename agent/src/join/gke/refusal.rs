//! The meaning of a refusal of the Kubernetes Engine API, and what to do (google.rpc.Status as JSON).

use http::StatusCode;
use serde::Deserialize;

use crate::bounds::bounded_words;
use crate::config::GkeConfig;

/// Longest part of Google's words that is repeated, in characters.
const MAX_WORDS: usize = 300;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    details: Vec<Detail>,
}

/// google.rpc.ErrorInfo, and others that have no reason.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail {
    reason: String,
}

/// One line, the remedy first, Google's own words last.
pub(super) fn explain(status: StatusCode, text: &str, config: &GkeConfig) -> String {
    let Answer { error } = serde_json::from_str(text).unwrap_or_default();
    let has = |reason: &str| error.details.iter().any(|detail| detail.reason == reason);
    let GkeConfig {
        project,
        location,
        cluster,
        ..
    } = config;
    let meaning = match status {
        StatusCode::FORBIDDEN if has("SERVICE_DISABLED") => format!(
            "the Kubernetes Engine API is disabled: enable it by `gcloud services enable container.googleapis.com \
             --project {project}`"
        ),
        StatusCode::FORBIDDEN if has("ACCESS_TOKEN_SCOPE_INSUFFICIENT") => {
            "this VM's access scopes have no cloud-platform: set them, with the VM stopped, by `gcloud compute \
             instances set-service-account VM --scopes cloud-platform,userinfo-email`"
                .to_owned()
        }
        StatusCode::FORBIDDEN => format!(
            "this VM's service account lacks the permission container.clusters.get: give it the role by `gcloud \
             projects add-iam-policy-binding {project} --member serviceAccount:EMAIL --role \
             roles/container.clusterViewer`"
        ),
        StatusCode::NOT_FOUND => format!(
            "there is none of this name: `gcloud container clusters list --project {project}` shows what there is; \
             {location:?} must be the region of a regional cluster, the zone of a zonal one, and {cluster:?} its name: \
             correct {} or {}",
            config.keys.name("location"),
            config.keys.name("cluster")
        ),
        StatusCode::UNAUTHORIZED => {
            "Google doesn't accept this VM's access token: is its service account disabled or deleted?".to_owned()
        }
        StatusCode::TOO_MANY_REQUESTS => "the project's quota of Kubernetes Engine API calls is used up".to_owned(),
        _ => "the Kubernetes Engine API failed".to_owned(),
    };
    let words: String = error.message.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = bounded_words(&words, MAX_WORDS);
    let code = status.as_u16();
    match words.as_str() {
        "" => format!("{meaning} ({code})"),
        words => format!("{meaning} ({code}: {words})"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn config() -> GkeConfig {
        let text = "project = \"shop\"\nlocation = \"europe-west1\"\ncluster = \"boutique\"\nnamespace = \"n\"\n\
                    workload_group = \"w\"";
        toml::from_str(text).unwrap()
    }

    fn explained(code: u16, message: &str, reason: &str) -> String {
        let info = json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "googleapis.com",
            "metadata": {"service": "container.googleapis.com"},
        });
        let text = json!({"error": {"code": code, "message": message, "status": "X", "details": [info]}});
        explain(StatusCode::from_u16(code).unwrap(), &text.to_string(), &config())
    }

    #[test]
    fn refusals_have_their_remedies() {
        let name = "projects/shop/locations/europe-west1/clusters/boutique";
        let permission = format!("Required \"container.clusters.get\" permission(s) for \"{name}\".");
        let disabled = "Kubernetes Engine API has not been used in project 1 before or it is disabled.";
        for (code, message, reason, expected) in [
            (
                403,
                permission.as_str(),
                "",
                "roles/container.clusterViewer` (403: Required \"container.clusters.get\"",
            ),
            (
                403,
                disabled,
                "SERVICE_DISABLED",
                "services enable container.googleapis.com --project shop` (403: Kub",
            ),
            (
                403,
                "Request had insufficient authentication scopes.",
                "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
                "--scopes cloud-platform,userinfo-email` (403: Request had",
            ),
            (
                404,
                "Not found.\nNo cluster.",
                "",
                "\"boutique\" its name: correct join.gke.location or join.gke.cluster (404: Not found. No cluster.)",
            ),
            (
                401,
                "invalid authentication",
                "ACCESS_TOKEN_EXPIRED",
                "disabled or deleted? (401",
            ),
            (429, "", "RATE_LIMIT_EXCEEDED", "used up (429)"),
            (503, "try again", "", "API failed (503: try again)"),
        ] {
            let text = explained(code, message, reason);
            assert!(text.contains(expected), "{code} {reason}: {text}");
        }
        let proxy = explain(StatusCode::BAD_GATEWAY, "<html>", &config());
        assert_eq!(proxy, "the Kubernetes Engine API failed (502)");
    }

    proptest! {
        #[test]
        fn refusal_of_any_text_is_read_and_bounded(text in r#"\{"error":\{"message":"\PC*"\}\}|\PC*"#) {
            let explained = explain(StatusCode::FORBIDDEN, &text, &config());
            prop_assert!(explained.chars().count() < 2 * MAX_WORDS);
        }
    }
}
