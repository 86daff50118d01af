//! `plan`: what `run` would change on this host. Changes nothing.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::configuration::ConfigSource;
use super::{Outcome, Output, print, print_printable, take_proxy_group};
use crate::app::parts;
use crate::config::PathsConfig;
use crate::host::Host;
use crate::join::Join;
use crate::part::{Change, Effect, Plan, Site, Units};
use crate::terminal::{Paint, Tone, one_line, printable};

/// Version of the JSON document: it changes when a key goes or means something else.
const VERSION: u32 = 1;

/// Options of `plan`.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Options {
    /// Show Envoy's bootstrap too.
    #[arg(long)]
    full: bool,
    /// Exit with 0 when there is nothing to change, and with 2 when there is.
    #[arg(long)]
    detailed_exitcode: bool,
}

pub(super) async fn run(path: &Path, output: Output, options: Options) -> Result<Outcome> {
    let host = Host::system();
    let config = ConfigSource::new(path, &host)?.find().await?.config;
    let join = Join::open(&config, &host)?;
    let site = Site {
        host,
        config,
        units: Units::default(),
    };
    // So that this process's own calls pass the rules of a running agent.
    let _ = take_proxy_group();
    let plan = plan(&site, &join).await?;
    match output {
        Output::Json => print(&(serde_json::to_string_pretty(&document(plan.clone(), options.full))? + "\n"))?,
        Output::Text => print_printable(&text(&plan, options.full, Paint::of_stdout()))?,
    };
    Ok(match options.detailed_exitcode && !is_settled(&plan) {
        true => Outcome::Differs,
        false => Outcome::Fine,
    })
}

/// Changes that a start would make, for people.
pub(super) struct Summary {
    pub(super) text: String,
    /// True where it is known that there is nothing.
    pub(super) is_settled: bool,
}

pub(super) async fn summary(site: &Site, join: &Join) -> Result<Summary> {
    let plan = plan(site, join).await?;
    Ok(Summary {
        text: overview(&plan),
        is_settled: is_settled(&plan),
    })
}

async fn plan(site: &Site, join: &Join) -> Result<Plan> {
    let membership = join.fetch().await?;
    let mut plan = Plan::default();
    for part in parts(None) {
        plan.extend(part.plan(site, &membership).await?);
    }
    let PathsConfig { state, run } = &site.config.paths;
    if !plan.changes.is_empty() {
        let own = format!("files of its own below {} and {}", state.display(), run.display());
        plan.effects.push((Effect::Writes, own));
    }
    Ok(plan)
}

/// True where it is known that there is nothing to change.
fn is_settled(plan: &Plan) -> bool {
    plan.changes.is_empty() && plan.unseen.is_empty()
}

/// The overview, and then the differences: in one color what comes, in another what goes.
fn text(plan: &Plan, full: bool, paint: Paint) -> String {
    let differences: String = plan.changes.iter().map(|change| difference(change, full)).collect();
    let painted = printable(&differences).lines().fold(String::new(), |text, line| {
        let line = match line.as_bytes().first() {
            Some(b'+') => paint.paint(Tone::Good, line),
            Some(b'-') => paint.paint(Tone::Bad, line),
            _ => line.into(),
        };
        text + &line + "\n"
    });
    overview(plan) + &painted
}

/// The summary, and what is never touched.
fn overview(plan: &Plan) -> String {
    let unseen = rows("Not seen", &plan.unseen);
    if plan.changes.is_empty() {
        let left = rows(title(Effect::LeavesAlone), &plan.words(Effect::LeavesAlone));
        let known = match plan.unseen.is_empty() {
            true => "",
            false => ", as far as could be seen",
        };
        return format!("{left}{unseen}This host is as `run` wants it{known}.\n");
    }
    let summary = Effect::ALL.into_iter().map(|effect| match plan.words(effect) {
        none if none.is_empty() => rows(title(effect), &["nothing"]),
        words => rows(title(effect), &words),
    });
    summary
        .chain([rows("Never touched", &plan.untouched), unseen])
        .collect()
}

/// One line for each of `words`, the first one beside the title.
fn rows(title: &str, words: &[impl AsRef<str>]) -> String {
    let titles = std::iter::once(title).chain(std::iter::repeat(""));
    let rows = titles.zip(words);
    rows.map(|(title, words)| format!("{title:<15}{}\n", one_line(words.as_ref())))
        .collect()
}

fn title(effect: Effect) -> &'static str {
    match effect {
        Effect::Starts => "Starts",
        Effect::Captures => "Captures",
        Effect::LeavesAlone => "Leaves alone",
        Effect::Writes => "Writes",
        Effect::Removes => "Removes",
    }
}

fn difference(change: &Change, full: bool) -> String {
    let head = format!("\n# {}\n{}\n", change.name, change.diff.trim_end());
    match &change.detail {
        None => head,
        Some(detail) if full => format!("{head}{}\n", detail.diff.trim_end()),
        Some(detail) => {
            let lines = detail.diff.lines().count();
            format!("{head}({}: {lines} lines, with --full)\n", detail.of)
        }
    }
}

fn document(mut plan: Plan, full: bool) -> Value {
    if !full {
        plan.changes.iter_mut().for_each(|change| change.detail = None);
    }
    let summary: serde_json::Map<_, _> = Effect::ALL
        .into_iter()
        .filter_map(|effect| Some((json!(effect).as_str()?.to_owned(), json!(plan.words(effect)))))
        .collect();
    json!({
        "version": VERSION,
        "summary": summary,
        "untouched": plan.untouched,
        "unseen": plan.unseen,
        "changes": plan.changes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Detail;

    fn starting_envoy() -> Plan {
        let change = Change {
            name: "Envoy",
            diff: "+ start /e\n".to_owned(),
            detail: Some(Detail {
                of: "Envoy's bootstrap",
                diff: "+{\n+}\n".to_owned(),
            }),
        };
        Plan::of(change)
            .effect(Effect::Starts, "Envoy, /e")
            .effect(Effect::Writes, "a\nb")
            .leaving("ssh: port 22")
    }

    #[test]
    fn plan_begins_with_a_summary_and_with_what_is_never_touched() {
        let summary = "Starts         Envoy, /e\n\
                       Captures       nothing\n\
                       Leaves alone   nothing\n\
                       Writes         a\\nb\n\
                       Removes        nothing\n\
                       Never touched  ssh: port 22\n\
                       \n# Envoy\n+ start /e\n";
        let brief = format!("{summary}(Envoy's bootstrap: 2 lines, with --full)\n");
        let text = |full| text(&starting_envoy(), full, Paint::PLAIN);
        assert_eq!(text(false), brief);
        assert_eq!(text(true), format!("{summary}+{{\n+}}\n"));
    }

    #[test]
    fn what_comes_and_what_goes_have_their_colors_and_nobody_else_s() {
        let change = Change {
            name: "rules",
            diff: " stays\n+comes\u{1b}[0m\n-goes\n".to_owned(),
            detail: None,
        };
        let told = text(&Plan::of(change), false, Paint::COLORED);
        let wanted = "\n# rules\n stays\n\u{1b}[32m+comes\\u001b[0m\u{1b}[0m\n\u{1b}[1;31m-goes\u{1b}[0m\n";
        assert!(told.ends_with(wanted), "{told:?}");
    }

    #[test]
    fn plan_that_could_not_see_all_is_not_settled() {
        let text = |plan: &Plan| text(plan, false, Paint::PLAIN);
        assert_eq!(text(&Plan::default()), "This host is as `run` wants it.\n");
        assert!(is_settled(&Plan::default()));
        let blind = Plan {
            unseen: vec!["the container: no dockerd".to_owned()],
            ..Plan::default()
        };
        let told = "Not seen       the container: no dockerd\n\
                    This host is as `run` wants it, as far as could be seen.\n";
        assert_eq!(text(&blind), told);
        assert!(!is_settled(&blind));
        assert!(!is_settled(&starting_envoy()));
    }

    #[test]
    fn document_has_every_kind_of_effect() {
        assert_eq!(document(starting_envoy(), false)["changes"][0].get("detail"), None);
        let document = document(starting_envoy(), true);
        assert_eq!(document["summary"]["starts"], json!(["Envoy, /e"]));
        assert_eq!(document["summary"]["leaves_alone"], json!([]));
        assert_eq!(document["changes"][0]["detail"]["of"], "Envoy's bootstrap");
        assert_eq!(document["version"], 1);
    }
}
