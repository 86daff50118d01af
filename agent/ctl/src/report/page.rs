//! The page: how it ended, the picture, each step in each cluster, and what else was told.

use std::fmt::Write as _;

use anyhow::Result;

use super::Run;
use super::lines::{Judged, Told};
use crate::gate::Figures;

pub(super) fn text(run: &Run, picture: &str) -> Result<String> {
    let mut text = String::new();
    let service = run.told.iter().find_map(|(_, told)| match told {
        Told::Running { service } => Some(service.as_str()),
        _ => None,
    });
    writeln!(text, "# From the VM to pods: {}\n", plain(service.unwrap_or("a run")))?;
    writeln!(text, "From {} to {}. {}\n", run.from, run.to, plain(&end(run)))?;
    writeln!(
        text,
        "![Shares, rates, errors and latency over time]({})\n",
        picture.replace(' ', "%20")
    )?;
    writeln!(text, "## Steps\n")?;
    writeln!(
        text,
        "The last verdict of each step; calls, success and p99 are those of its window, of the pods and of the VM.\n"
    )?;
    writeln!(
        text,
        "| pods | cluster | held | measured | calls | success | p99 | verdict |"
    )?;
    writeln!(text, "|--:|---|--:|--:|--:|--:|--:|---|")?;
    for step in steps(run) {
        row(&mut text, &step)?;
    }
    writeln!(text, "\n## What was told\n")?;
    for (at, told) in &run.told {
        if let Some(sentence) = sentence(told) {
            writeln!(text, "- {}: {}", time(*at), plain(&sentence))?;
        }
    }
    Ok(text)
}

fn end(run: &Run) -> String {
    let ends = run.told.iter().rev().find_map(|(_, told)| match told {
        Told::Failed { because } => Some(format!("It ended before the last step: {because}.")),
        Told::Done { what } => Some(format!("It ended well: {what}.")),
        _ => None,
    });
    ends.unwrap_or_else(|| "Its end was not recorded.".to_owned())
}

/// One share in one cluster.
struct Step<'a> {
    from: f64,
    to: f64,
    last: &'a Judged,
}

/// Steps in the order in which each was judged first; a share that was come back to is a step of its own.
fn steps(run: &Run) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for cluster in run.clusters() {
        let mut open: Option<Step<'_>> = None;
        for (at, told) in &run.told {
            let Told::Judged(judged) = told else { continue };
            if judged.cluster != cluster {
                continue;
            }
            match &mut open {
                Some(step) if step.last.share == judged.share => (step.to, step.last) = (*at, judged),
                _ => steps.extend(open.replace(Step {
                    from: *at,
                    to: *at,
                    last: judged,
                })),
            }
        }
        steps.extend(open);
    }
    steps.sort_by(|a, b| a.from.total_cmp(&b.from));
    steps
}

fn row(text: &mut String, step: &Step<'_>) -> Result<()> {
    let Judged { pods, vm, .. } = step.last;
    let both = |of: &dyn Fn(&Figures) -> Option<String>| {
        let one = |side: &Option<Figures>| side.as_ref().and_then(of).unwrap_or_else(|| "–".to_owned());
        format!("{} / {}", one(pods), one(vm))
    };
    let measured = step
        .last
        .measured()
        .map_or_else(|| "–".to_owned(), |part| format!("{part:.1} %"));
    writeln!(
        text,
        "| {} | {} | {} | {measured} | {} | {} | {} | {}: {} |",
        step.last.share,
        plain(&step.last.cluster),
        time(step.to - step.from),
        both(&|side| Some(format!("{:.0}", side.requests))),
        both(&|side| side.success.map(|part| format!("{:.2} %", part * 100.0))),
        both(&|side| side.p99.map(|time| format!("{time:.0} ms"))),
        plain(&step.last.verdict),
        plain(&step.last.because),
    )?;
    Ok(())
}

fn sentence(told: &Told) -> Option<String> {
    Some(match told {
        Told::Arrived {
            cluster,
            proxies,
            milliseconds,
        } => format!("{cluster}: all {proxies} proxies have the step, after {milliseconds} ms"),
        Told::Settled { cluster, milliseconds } => format!("{cluster}: the step was given {milliseconds} ms"),
        Told::TakenBack { because } => format!("all calls are the VM's again: {because}"),
        Told::Failed { because } => because.clone(),
        Told::Done { what } => what.clone(),
        Told::Running { .. } | Told::Judged(_) | Told::Other => return None,
    })
}

/// `text` as one line in which nothing is Markdown.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '\n' => plain.push(' '),
            '|' | '<' | '>' | '`' | '*' | '_' | '[' | ']' | '\\' => plain.extend(['\\', c]),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

/// `1:05`, minutes and seconds.
pub(super) fn time(seconds: f64) -> String {
    let whole = std::time::Duration::from_secs_f64(seconds.max(0.0)).as_secs();
    format!("{}:{:02}", whole / 60, whole % 60)
}
