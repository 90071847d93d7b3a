//! Plain charts as SVG text, for pages that must stand alone.

use std::fmt::Write as _;

/// Colours of Okabe and Ito (2008): told apart by colour-blind readers too.
pub const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// A run of points.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Points in the chart's units.
    pub points: Vec<(f64, f64)>,
    /// Whether the points are marked.
    pub marks: bool,
}

/// A chart of lines.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Under the horizontal axis.
    pub x: String,
    /// Beside the vertical axis.
    pub y: String,
    /// Least and largest horizontal value.
    pub x_range: (f64, f64),
    /// Least and largest vertical value.
    pub y_range: (f64, f64),
    /// A grey dashed line from the first to the second point.
    pub guide: Option<[(f64, f64); 2]>,
    /// The lines.
    pub series: Vec<Series>,
}

/// Text for XML and HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 48.0;

impl Chart {
    /// A chart of shares, both axes 0 to 1.
    pub fn unit(title: &str, x: &str, y: &str) -> Self {
        Self {
            title: title.into(),
            x: x.into(),
            y: y.into(),
            x_range: (0.0, 1.0),
            y_range: (0.0, 1.0),
            guide: None,
            series: Vec::new(),
        }
    }

    /// Adds a line.
    pub fn line(mut self, name: impl Into<String>, points: Vec<(f64, f64)>, marks: bool) -> Self {
        self.series.push(Series { name: name.into(), points, marks });
        self
    }

    /// The chart as an `<svg>` element.
    pub fn svg(&self) -> String {
        let (inner_w, inner_h) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let share = |v: f64, (low, high): (f64, f64)| {
            if high > low && v.is_finite() { ((v - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 }
        };
        let place = |(x, y): (f64, f64)| {
            (LEFT + share(x, self.x_range) * inner_w, TOP + (1.0 - share(y, self.y_range)) * inner_h)
        };
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n<title>{0}</title>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{0}</text>\n",
            escape(&self.title)
        );
        for step in 0..=5 {
            let at = f64::from(step) / 5.0;
            let value = |(low, high): (f64, f64)| number(low + (high - low) * at, high - low);
            let (x, y) = (LEFT + at * inner_w, TOP + (1.0 - at) * inner_h);
            let (right, bottom) = (LEFT + inner_w, TOP + inner_h);
            let _ = write!(
                text,
                "<path d=\"M{x:.1} {TOP}V{bottom:.1}M{LEFT} {y:.1}H{right:.1}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                bottom + 16.0,
                value(self.x_range),
                LEFT - 6.0,
                y + 4.0,
                value(self.y_range)
            );
        }
        let middle = TOP + inner_h / 2.0;
        let _ = write!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(14 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
            LEFT + inner_w / 2.0,
            HEIGHT - 10.0,
            escape(&self.x),
            escape(&self.y)
        );
        if let Some([a, b]) = self.guide {
            let (a, b) = (place(a), place(b));
            let _ = writeln!(
                text,
                "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"#888\" stroke-dasharray=\"5 4\" fill=\"none\"/>",
                a.0, a.1, b.0, b.1
            );
        }
        for (i, series) in self.series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let path: Vec<String> =
                series.points.iter().map(|p| place(*p)).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            if path.len() > 1 {
                let _ = writeln!(
                    text,
                    "<path d=\"M{}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>",
                    path.join("L")
                );
            }
            for (x, y) in series.points.iter().filter(|_| series.marks || path.len() == 1).map(|p| place(*p))
            {
                let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
            }
        }
        self.legend(&mut text);
        text.push_str("</svg>\n");
        text
    }

    /// Names of the lines, in the corner that most curves leave free: the lower right one.
    fn legend(&self, text: &mut String) {
        let named: Vec<(usize, &str)> = self
            .series
            .iter()
            .enumerate()
            .map(|(i, s)| (i, s.name.as_str()))
            .filter(|s| !s.1.is_empty())
            .collect();
        let longest = named.iter().map(|(_, name)| name.chars().count()).max().unwrap_or(0) as f64;
        let (width, height) = (longest * 6.6 + 40.0, named.len() as f64 * 17.0 + 8.0);
        if named.is_empty() {
            return;
        }
        let (x, y) = (WIDTH - RIGHT - width - 6.0, HEIGHT - BOTTOM - height - 6.0);
        let _ = writeln!(
            text,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"white\" \
             fill-opacity=\"0.85\" stroke=\"#bbb\"/>"
        );
        for (row, (i, name)) in named.into_iter().enumerate() {
            let line = y + 16.0 + row as f64 * 17.0;
            let _ = writeln!(
                text,
                "<path d=\"M{:.1} {:.1}h22\" stroke=\"{}\" stroke-width=\"2\"/><text x=\"{:.1}\" y=\"{line:.1}\">{}</text>",
                x + 6.0,
                line - 4.0,
                COLOURS[i % COLOURS.len()],
                x + 34.0,
                escape(name)
            );
        }
    }
}

/// Horizontal bars with a name and a value each, from 0 to the largest.
pub fn bars(title: &str, unit: &str, rows: &[(String, f64)]) -> String {
    let (left, width, step) = (210.0, 640.0, 18.0);
    let height = 34.0 + rows.len() as f64 * step + 8.0;
    let largest = rows.iter().map(|r| r.1).filter(|v| v.is_finite()).fold(1e-12, f64::max);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n<title>{0}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{0}</text>\n",
        escape(title)
    );
    for (i, (name, value)) in rows.iter().enumerate() {
        let y = 34.0 + i as f64 * step;
        let long = (value / largest).clamp(0.0, 1.0) * (width - left - 90.0);
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{left}\" y=\"{:.1}\" width=\"{long:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{} {unit}</text>",
            left - 6.0,
            y + 13.0,
            escape(name),
            y + 2.0,
            step - 4.0,
            COLOURS[0],
            left + long + 6.0,
            y + 13.0,
            number(*value, largest)
        );
    }
    text.push_str("</svg>\n");
    text
}

/// A value with as many places as the range asks for.
fn number(value: f64, range: f64) -> String {
    let places = if range >= 50.0 {
        0
    } else if range >= 5.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.places$}");
    match text.strip_suffix(".0").or_else(|| text.strip_suffix(".00")) {
        Some(whole) => whole.into(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_they_belong() {
        let chart = Chart::unit("A < B", "x", "y").line("one & two", vec![(0.0, 0.0), (1.0, 1.0)], false);
        let svg = chart.svg();
        // The corners of the inner rectangle: 58 to 446, 332 to 34.
        assert!(svg.contains("M58.0 332.0L446.0 34.0"), "{svg}");
        assert!(svg.contains("A &lt; B") && svg.contains("one &amp; two"));
        // Nothing leaves the picture, whatever the values.
        let wild =
            Chart::unit("t", "x", "y").line("", vec![(f64::NAN, 7.0), (-3.0, f64::INFINITY)], true).svg();
        assert!(!wild.contains("NaN") && !wild.contains("inf"), "{wild}");
    }

    #[test]
    fn bars_are_proportional() {
        let svg = bars("t", "dB", &[("a".into(), 10.0), ("b".into(), 5.0)]);
        assert!(svg.contains("width=\"340.0\"") && svg.contains("width=\"170.0\""), "{svg}");
        assert!(svg.contains("10 dB") && svg.contains("5 dB"));
    }
}
