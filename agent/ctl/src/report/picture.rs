//! The picture: a column for each cluster, and in it shares, rates, errors and latency over the same time.

use std::fmt::Write as _;

use anyhow::Result;

use super::Run;
use super::lines::{Judged, Told};
use super::page::time;
use crate::gate::Figures;

/// Sizes in pixels.
const COLUMN: f64 = 460.0;
const PANEL: f64 = 130.0;
const HEAD: f64 = 56.0;
/// Room for numbers left of a panel, and for its title above.
const LEFT: f64 = 58.0;
const ABOVE: f64 = 34.0;
const RIGHT: f64 = 16.0;

const VM: &str = "#3b6fb6";
const PODS: &str = "#d9731a";
const WANTED: &str = "#8a8a8a";
const BAD: &str = "#c62828";

/// Points of a line over seconds; one that is absent is a gap.
type Line = Vec<(f64, Option<f64>)>;

/// One panel of a cluster.
struct Panel {
    title: &'static str,
    unit: &'static str,
    /// The least value that the top stands for.
    least: f64,
    /// Lines with their colors and dashes.
    lines: Vec<(&'static str, &'static str, Line)>,
}

pub(super) fn draw(run: &Run) -> Result<String> {
    let clusters = run.clusters();
    let columns = clusters.len() as f64;
    let width = COLUMN * columns;
    let height = HEAD + 4.0 * (PANEL + ABOVE) + 30.0;
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>"
    )?;
    legend(&mut svg)?;
    for (at, cluster) in clusters.iter().enumerate() {
        let left = COLUMN * at as f64 + LEFT;
        writeln!(
            svg,
            "<text x=\"{left}\" y=\"46\" font-weight=\"bold\">{}</text>",
            escaped(cluster)
        )?;
        for (row, panel) in panels(run, cluster).iter().enumerate() {
            let top = HEAD + row as f64 * (PANEL + ABOVE) + ABOVE;
            draw_panel(&mut svg, run, panel, left, top)?;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn legend(svg: &mut String) -> Result<()> {
    let entries = [
        ("VM", VM, ""),
        ("pods", PODS, ""),
        ("wanted", WANTED, "5 3"),
        ("taken back", BAD, "2 2"),
    ];
    for (at, (name, color, dashes)) in entries.iter().enumerate() {
        let x = LEFT + at as f64 * 90.0;
        writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"18\" x2=\"{}\" y2=\"18\" stroke=\"{color}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"/>\n<text x=\"{}\" y=\"22\">{name}</text>",
            x + 20.0,
            x + 26.0
        )?;
    }
    Ok(())
}

fn panels(run: &Run, cluster: &str) -> [Panel; 4] {
    let judged: Vec<(f64, &Judged)> = run
        .told
        .iter()
        .filter_map(|(at, told)| match told {
            Told::Judged(judged) if judged.cluster == cluster => Some((*at, judged)),
            _ => None,
        })
        .collect();
    let line = |of: &dyn Fn(&Judged) -> Option<f64>| judged.iter().map(|(at, it)| (*at, of(it))).collect::<Line>();
    let sides = |of: &dyn Fn(&Judged, Figures) -> Option<f64>| {
        vec![
            (VM, "", line(&|it| of(it, it.vm?))),
            (PODS, "", line(&|it| of(it, it.pods?))),
        ]
    };
    let per_second = |it: &Judged, side: Figures| (it.window > 0.0).then(|| side.requests / it.window);
    [
        Panel {
            title: "share of the pods",
            unit: " %",
            least: 100.0,
            lines: vec![
                (WANTED, "5 3", wanted(run, &judged)),
                (PODS, "", line(&Judged::measured)),
            ],
        },
        Panel {
            title: "calls a second",
            unit: "",
            least: 1.0,
            lines: sides(&per_second),
        },
        Panel {
            title: "calls that fail",
            unit: " %",
            least: 1.0,
            lines: sides(&|_, side| side.success.map(|part| (1.0 - part) * 100.0)),
        },
        Panel {
            title: "99th percentile",
            unit: " ms",
            least: 10.0,
            lines: sides(&|_, side| side.p99),
        },
    ]
}

/// Shares as stairs: a step is whole from its beginning.
fn wanted(run: &Run, judged: &[(f64, &Judged)]) -> Line {
    let share = |judged: &Judged| f64::from(judged.share.of_pods());
    let mut line = Line::new();
    for (at, judged) in judged {
        if let Some((_, Some(before))) = line.last().copied() {
            line.push((*at, Some(before)));
        }
        line.push((*at, Some(share(judged))));
    }
    let taken_back = run.told.iter().find(|(_, told)| matches!(told, Told::TakenBack { .. }));
    if let (Some((at, _)), Some((_, last))) = (taken_back, line.last().copied()) {
        line.extend([(*at, last), (*at, Some(0.0)), (run.length(), Some(0.0))]);
    }
    line
}

/// Where a panel is, and what its edges mean.
struct Place {
    left: f64,
    top: f64,
    /// Seconds at the right edge.
    length: f64,
    /// The value at the upper edge.
    highest: f64,
}

impl Place {
    const WIDTH: f64 = COLUMN - LEFT - RIGHT;

    fn x(&self, seconds: f64) -> f64 {
        self.left + seconds / self.length * Self::WIDTH
    }

    fn y(&self, value: f64) -> f64 {
        self.top + PANEL * (1.0 - value / self.highest)
    }
}

fn draw_panel(svg: &mut String, run: &Run, panel: &Panel, left: f64, top: f64) -> Result<()> {
    let values = panel
        .lines
        .iter()
        .flat_map(|(_, _, line)| line)
        .filter_map(|(_, value)| *value);
    let place = Place {
        left,
        top,
        length: run.length().max(1.0),
        highest: rounded_up(values.fold(panel.least, f64::max)),
    };
    draw_axes(svg, panel, &place)?;
    for (at, _) in run
        .told
        .iter()
        .filter(|(_, told)| matches!(told, Told::TakenBack { .. }))
    {
        let (x, bottom) = (place.x(*at), top + PANEL);
        writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"{BAD}\" stroke-dasharray=\"2 2\"/>"
        )?;
    }
    for (color, dashes, line) in &panel.lines {
        for part in line.split(|(_, value)| value.is_none()).filter(|part| !part.is_empty()) {
            let point =
                |(at, value): &(f64, Option<f64>)| Some(format!("{:.1},{:.1}", place.x(*at), place.y((*value)?)));
            let mut points: Vec<String> = part.iter().filter_map(point).collect();
            // One alone would draw nothing.
            if let [only] = points.as_slice() {
                points.push(only.clone());
            }
            writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-linecap=\"round\" \
                 stroke-dasharray=\"{dashes}\"/>",
                points.join(" ")
            )?;
        }
    }
    Ok(())
}

/// Title, lines of the lowest, middle and highest value, and the times of beginning, middle and end.
fn draw_axes(svg: &mut String, panel: &Panel, place: &Place) -> Result<()> {
    let (left, right) = (place.left, place.left + Place::WIDTH);
    writeln!(
        svg,
        "<text x=\"{left}\" y=\"{}\" fill=\"#333\">{}</text>",
        place.top - 8.0,
        panel.title
    )?;
    for part in [0.0, 0.5, 1.0] {
        let (value, at) = (place.highest * part, place.length * part);
        let y = place.y(value);
        writeln!(
            svg,
            "<line x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n<text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\" fill=\"#666\">{value}{}</text>\n<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" \
             font-size=\"10\" fill=\"#666\">{}</text>",
            left - 6.0,
            y + 4.0,
            panel.unit,
            place.x(at),
            place.top + PANEL + 13.0,
            time(at)
        )?;
    }
    Ok(())
}

/// The next 1, 2 or 5 times a power of ten.
fn rounded_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|top| *top >= value)
        .unwrap_or(value)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}
