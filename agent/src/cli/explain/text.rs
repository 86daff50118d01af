//! The explanation for people: what decides and what to do first, then the chain. Pure.

use super::chain::{Chain, Level, Step};
use super::target::Target;
use crate::terminal::{Paint, Tone, one_line};

pub(super) fn render(target: &Target, chain: &Chain, paint: Paint) -> String {
    let decision = chain.decision();
    let head = match decision {
        Some(step) => {
            let cause = step.cause.map_or("", |cause| cause.name());
            let tone = tone(step.level);
            let remedy = step.remedy.as_deref().unwrap_or_default();
            format!(
                "{target}  {}\n  {}: {}\n  To do: {}\n",
                paint.paint(tone, cause),
                step.subject,
                one_line(&step.evidence),
                one_line(remedy)
            )
        }
        None => format!(
            "{target}  {}\n  Nothing on this VM keeps the call from its end.\n",
            paint.paint(Tone::Good, "fine")
        ),
    };
    let widest = chain.steps.iter().map(|step| step.subject.len()).max().unwrap_or(0);
    let line = |step: &Step| {
        let is_decision = decision.is_some_and(|decision| std::ptr::eq(decision, step));
        let mark = if is_decision { "→" } else { " " };
        let level = format!("{:<7}", word(step.level));
        let level = paint.paint(tone(step.level), &level);
        format!(
            "{mark} {level} {:<widest$}  {}\n",
            step.subject,
            one_line(&step.evidence)
        )
    };
    let lines: String = chain.steps.iter().map(line).collect();
    format!("{head}\n{lines}")
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Note => "note",
        Level::Suspect => "suspect",
        Level::Fault => "FAULT",
    }
}

fn tone(level: Level) -> Tone {
    match level {
        Level::Ok => Tone::Good,
        Level::Note | Level::Suspect => Tone::Warning,
        Level::Fault => Tone::Bad,
    }
}
