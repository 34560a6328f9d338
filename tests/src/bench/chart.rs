//! The bar chart of the messages, as SVG. It follows the reader's light or dark mode.

use std::fmt::Write as _;

use super::report::{Contender, Report};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 210.0;
/// What is left beside the longest bar for its label.
const RIGHT: f64 = 170.0;
const TOP: f64 = 64.0;
const BAR: f64 = 26.0;
const STEP: f64 = 44.0;

const STYLE: &str = "\
    text { font: 14px system-ui, sans-serif; fill: #1f2328 }\n\
    .title { font-size: 16px; font-weight: 600 }\n\
    .note { font-size: 12px; fill: #59636e }\n\
    .bar { fill: #8c959f }\n\
    .own { fill: #0969da }\n\
    .range { stroke: #1f2328; stroke-width: 1.5 }\n\
    @media (prefers-color-scheme: dark) {\n\
      text { fill: #f0f6fc }\n\
      .note { fill: #9198a1 }\n\
      .bar { fill: #656c76 }\n\
      .own { fill: #4493f8 }\n\
      .range { stroke: #f0f6fc }\n\
    }\n";

/// Draws the contenders' messages per second: the median as a bar, the least and the most as a line on it.
#[must_use]
pub fn messages(report: &Report) -> String {
    let count = f64::from(u32::try_from(report.messages.len()).unwrap_or(u32::MAX));
    let height = TOP + count * STEP + 30.0;
    let most = report.messages.iter().map(|contender| contender.messages_per_second.max).fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Messages per second\">\n<style>\n{STYLE}</style>\n\
         <text class=\"title\" x=\"16\" y=\"28\">Messages per second, {} bytes each, none missing</text>\n\
         <text class=\"note\" x=\"16\" y=\"48\">One nats-server, mutual TLS 1.3, {} processors; medians of {} paired rounds, \
         ratios to the first</text>\n",
        report.payload_bytes, report.host.processors, report.rounds
    );
    let mut y = TOP;
    for contender in &report.messages {
        bar(&mut svg, contender, y, scale);
        y += STEP;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(
        svg,
        "<text class=\"note\" x=\"16\" y=\"{:.0}\">Bar: median. Line: least to most. Label: median, and its ratio to the \
         baseline of the same round.</text>\n</svg>",
        height - 12.0
    );
    svg
}

fn bar(svg: &mut String, contender: &Contender, y: f64, scale: f64) {
    let rate = contender.messages_per_second;
    let class = if contender.name.starts_with("this bus") { "bar own" } else { "bar" };
    let (middle, from, to) = (y + BAR / 2.0, LEFT + rate.min * scale, LEFT + rate.max * scale);
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n\
         <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"3\"/>\n\
         <line class=\"range\" x1=\"{from:.1}\" y1=\"{middle:.0}\" x2=\"{to:.1}\" y2=\"{middle:.0}\"/>\n\
         <text x=\"{:.1}\" y=\"{:.0}\">{} ({:.2} ×)</text>",
        LEFT - 12.0,
        middle + 5.0,
        contender.name,
        rate.median * scale,
        to.max(LEFT + rate.median * scale) + 8.0,
        middle + 5.0,
        thousands(rate.median),
        contender.ratio.median,
    );
}

/// A whole number with commas.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([7.4, 999.6, 12_345.0, 1_234_567.0].map(thousands), ["7", "1,000", "12,345", "1,234,567"]);
    }
}
