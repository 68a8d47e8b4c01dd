//! What a comparison says: numbers, lines for people, and pictures.

use llamita::Tokenizer;
use serde::Serialize;

use super::{Story, Tokens, Worst};
use crate::divergence::{Estimate, Sorted};
use crate::load::LoadedModel;
use crate::options::CacheChoice;
use crate::output::{Table, list};
use crate::plot::{Axis, Colour, Panel, Scale, Series, Style};
use crate::stories::{self, Stories};
use crate::units::{bytes, counted, digits, grouped, rate};
use crate::vocabulary::Text;

/// What was compared, and how; of A, then of B.
pub struct Setting<'a> {
    pub models: &'a [LoadedModel<'a>; 2],
    /// That of A.
    pub tokenizer: &'a Tokenizer<'a>,
    pub caches: [CacheChoice; 2],
    pub threads: [usize; 2],
    pub seconds: [f64; 2],
    /// The longest story in tokens.
    pub limits: [usize; 2],
    /// Stories that were longer.
    pub cut: usize,
}

/// What was found.
#[derive(Serialize)]
pub struct Report {
    a: Side,
    b: Side,
    same_vocabulary: bool,
    /// Of the perplexity by token, or by byte where the vocabularies differ; in percent of A's.
    perplexity_change: Change,
    agreement: Option<Agreement>,
    kl: Option<Kl>,
    stories: usize,
    /// Stories that were longer than the context.
    cut: usize,
    /// Of the predicted text.
    bytes: usize,
}

/// One of the models.
#[derive(Serialize)]
struct Side {
    path: String,
    kind: String,
    file_bytes: u64,
    vocab_size: usize,
    /// Nats.
    nll_per_token: f64,
    perplexity: f64,
    bits_per_byte: f64,
    perplexity_per_byte: f64,
    /// Predicted tokens: BOS is given.
    tokens: usize,
    context: usize,
    /// The format of keys and values.
    kv: &'static str,
    threads: usize,
    seconds: f64,
    tok_per_s: Option<f64>,
}

#[derive(Serialize)]
struct Change {
    percent: f64,
    /// 95 %, by the spread from story to story.
    interval: Option<[f64; 2]>,
}

/// Of the tokens that the models hold for the most probable.
#[derive(Serialize)]
struct Agreement {
    share: f64,
    /// 95 %.
    interval: [f64; 2],
    agreed: usize,
    tokens: usize,
}

/// D(A‖B) by token, in nats.
#[derive(Serialize)]
struct Kl {
    mean: f64,
    median: f64,
    p99: f64,
    max: f64,
    at: Place,
}

/// The token with the largest divergence.
#[derive(Serialize)]
struct Place {
    /// From 1, as the text has them.
    story: usize,
    /// From 1, BOS not counted.
    token: usize,
    /// The text before it, from a few tokens back.
    after: String,
    /// What the text has there.
    text: String,
    /// What the models hold for the most probable.
    a: String,
    b: String,
}

/// Tokens of the text that are shown before a token.
const SHOWN: usize = 12;

impl Report {
    /// The report on what was found of the stories, which are given as the tokens of A.
    pub fn new(setting: &Setting<'_>, stories: &Stories, found: &[Story], tokens: Option<&Tokens>) -> Self {
        let mut all = Story::default();
        found.iter().for_each(|story| all.add(story));
        // What a model's perplexity is counted by.
        let units = |story: &Story| if tokens.is_some() { story.tokens[0] } else { story.bytes } as f64;
        let more = |story: &Story| story.nll[1] - story.nll[0];
        let percent = |nats: f64| 100.0 * nats.exp_m1();
        let by_story: Vec<_> = found.iter().map(|story| (more(story), units(story))).collect();
        let spread = Estimate::ratio(&by_story).map(|estimate| estimate.map(percent).interval);
        Self {
            a: setting.side(0, &all),
            b: setting.side(1, &all),
            same_vocabulary: tokens.is_some(),
            perplexity_change: Change { percent: percent(more(&all) / units(&all)), interval: spread },
            agreement: tokens.map(Agreement::new),
            kl: tokens.map(|tokens| Kl::new(tokens, setting.tokenizer, stories)),
            stories: found.len(),
            cut: setting.cut,
            bytes: all.bytes,
        }
    }

    /// What the pictures are of.
    pub fn title(&self) -> String {
        let name = |side: &Side| {
            let name = std::path::Path::new(&side.path).file_name().unwrap_or_default();
            name.display().to_string()
        };
        let Change { percent, .. } = self.perplexity_change;
        format!("A {}, B {}: perplexity {percent:+.2} %", name(&self.a), name(&self.b))
    }

    /// The report as lines.
    pub fn text(&self) -> String {
        let Self { a, b, .. } = self;
        let name = |side: &Side| {
            format!("{}, {}, {}, keys and values {}", side.path, side.kind, bytes(side.file_bytes), side.kv)
        };
        let models = list(&[("A", name(a)), ("B", name(b))]);

        let mut table = Table::new(["", "A", "B", "change"]);
        let mut row = |name, values: [f64; 2], decimals, change: Option<String>| {
            let change = change.unwrap_or_else(|| change_text(100.0 * (values[1] / values[0] - 1.0)));
            let [a, b] = values.map(|value| format!("{value:.decimals$}"));
            table.row([name, &a, &b, &change]);
        };
        let Change { percent, interval } = self.perplexity_change;
        let change = match interval {
            Some([low, high]) => format!("{percent:+.2} % ({low:+.2} to {high:+.2})"),
            None => format!("{percent:+.2} %"),
        };
        if self.same_vocabulary {
            row("nats per token", [a.nll_per_token, b.nll_per_token], 5, None);
            row("perplexity", [a.perplexity, b.perplexity], 4, Some(change));
        } else {
            row("perplexity by byte", [a.perplexity_per_byte, b.perplexity_per_byte], 4, Some(change));
        }
        row("bits per byte", [a.bits_per_byte, b.bits_per_byte], 5, None);
        let [tokens_a, tokens_b] = [a, b].map(|side| grouped(side.tokens as u64));
        table.row(["tokens", &tokens_a, &tokens_b, ""]);
        let [speed_a, speed_b] = [a, b].map(|side| side.tok_per_s.map_or_else(|| "-".to_owned(), digits));
        let faster = a.tok_per_s.zip(b.tok_per_s).map(|(a, b)| change_text(100.0 * (b / a - 1.0)));
        table.row(["tokens per second", &speed_a, &speed_b, &faster.unwrap_or_default()]);

        let mut facts = Vec::new();
        if !self.same_vocabulary {
            let sizes = format!(
                "{} tokens in A, {} in B: compared by byte, and not token by token",
                a.vocab_size, b.vocab_size
            );
            facts.push(("vocabularies", sizes));
        }
        if let Some(Agreement { share, interval: [low, high], .. }) = self.agreement {
            let [share, low, high] = [share, low, high].map(|share| 100.0 * share);
            facts.push(("same greedy token", format!("{share:.2} % ({low:.2} to {high:.2})")));
        }
        if let Some(kl) = &self.kl {
            let [mean, median, p99, max] = [kl.mean, kl.median, kl.p99, kl.max].map(nats);
            let numbers = format!("mean {mean}, median {median}, 99th percentile {p99}, largest {max} nats");
            facts.push(("KL divergence", numbers));
            facts.push(("largest", kl.at.text()));
        }
        let cut = if self.cut == 0 { "none".to_owned() } else { self.cut.to_string() };
        let context = if a.context == b.context {
            counted(a.context, "token")
        } else {
            format!("what {} and {} tokens hold", a.context, b.context)
        };
        facts.push(("stories", format!("{}, {cut} cut to {context}", self.stories)));
        facts.push(("bytes", grouped(self.bytes as u64)));
        format!("{models}\n{}\n{}", table.lines(), list(&facts))
    }
}

/// A change in percent; of one that is close to none, as much as can be told from none.
fn change_text(percent: f64) -> String {
    if percent.abs() < 100.0 { format!("{percent:+.2} %") } else { format!("{percent:+.0} %") }
}

/// A divergence, which may be as small as rounding.
fn nats(kl: f64) -> String {
    if kl == 0.0 || kl >= 0.001 { format!("{kl:.4}") } else { format!("{kl:.1e}") }
}

impl Setting<'_> {
    fn side(&self, side: usize, all: &Story) -> Side {
        let model = &self.models[side];
        let (nll, tokens, seconds) = (all.nll[side], all.tokens[side], self.seconds[side]);
        Side {
            path: model.file.path.display().to_string(),
            kind: model.kind().to_string(),
            file_bytes: model.file.stored_len(),
            vocab_size: model.config().vocab_size,
            nll_per_token: nll / tokens as f64,
            perplexity: (nll / tokens as f64).exp(),
            bits_per_byte: stories::bits_per_byte(nll, all.bytes),
            perplexity_per_byte: (nll / all.bytes as f64).exp(),
            tokens,
            context: self.limits[side],
            kv: self.caches[side].name(),
            threads: self.threads[side],
            seconds,
            tok_per_s: rate(tokens, seconds),
        }
    }
}

impl Agreement {
    fn new(tokens: &Tokens) -> Self {
        let (agreed, count) = (tokens.agreed, tokens.kl.len());
        let Estimate { value, interval } = Estimate::share(agreed, count);
        Self { share: value, interval, agreed, tokens: count }
    }
}

impl Kl {
    fn new(tokens: &Tokens, tokenizer: &Tokenizer<'_>, stories: &Stories) -> Self {
        let sorted = Sorted::new(tokens.kl.clone());
        Self {
            mean: sorted.mean(),
            median: sorted.quantile(0.5),
            p99: sorted.quantile(0.99),
            max: sorted.quantile(1.0),
            at: Place::new(&tokens.worst, tokenizer, stories),
        }
    }
}

impl Place {
    fn new(worst: &Worst, tokenizer: &Tokenizer<'_>, stories: &Stories) -> Self {
        let &Worst { story, token, greedy: [a, b], .. } = worst;
        let story_tokens = &stories.tokens[story];
        let before = &story_tokens[token.saturating_sub(SHOWN + 1)..token];
        let mut after = Text::default();
        for pair in before.windows(2) {
            after.push(tokenizer, pair[0], pair[1]);
        }
        let last = story_tokens[token - 1];
        let text = |token| {
            let mut text = Text::default();
            text.push(tokenizer, last, token);
            text.finish();
            let text = text.into_string();
            // Marks have no text: a story's end, for example.
            if text.is_empty() { String::from_utf8_lossy(tokenizer.piece(token)).into_owned() } else { text }
        };
        let [text, a, b] = [story_tokens[token], a, b].map(text);
        Self { story: story + 1, token, after: after.into_string(), text, a, b }
    }

    fn text(&self) -> String {
        let Self { story, token, after, text, a, b } = self;
        let [a, b, text, after] = [a, b, text, after].map(|text| format!("{text:?}"));
        format!("story {story}, token {token}, after {after}: A expects {a}, B {b}, the text has {text}")
    }
}

/// Divergences below this are rounding, and not drawn.
const ROUNDING: f64 = 1e-9;
/// Points of a curve, and bars side by side, that can be told apart.
const DRAWN: usize = 240;

/// The pictures: divergences by their share of the tokens, if there are any, and how stories differ.
pub fn panels(found: &[Story], tokens: Option<Tokens>) -> Vec<Panel> {
    let by_token = tokens.is_some();
    let mut panels: Vec<_> = tokens.map(|tokens| divergences(&Sorted::new(tokens.kl))).into_iter().collect();
    panels.push(by_story(found, by_token));
    panels
}

/// The quantiles of the divergence, with more room the closer they are to the largest one.
fn divergences(sorted: &Sorted) -> Panel {
    // A share of 0.9 lies at 1, one of 0.99 at 2, and so on.
    let place = |share: f64| -(1.0 - share).log10();
    // The least ones are as small as chance has it, and would take half of the picture.
    let (first, last) = (place(0.01), (sorted.len() as f64).log10().max(1.0));
    let shares =
        [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
    let marks = shares.iter().filter(|mark| place(mark.0) <= last + 0.01);
    let marks = marks.map(|&(share, text)| (place(share), text.to_owned())).collect();
    let points = (0..=DRAWN).map(|i| {
        let at = first + (last - first) * i as f64 / DRAWN as f64;
        (at, sorted.quantile(1.0 - 10_f64.powf(-at)))
    });
    let mean = sorted.mean();
    let line = |name: String, style, colour, points| Series { name, style, colour, points };
    Panel {
        title: "Divergence of the next token".to_owned(),
        x: Axis { label: "share of tokens with less".to_owned(), scale: Scale::Marks(marks) },
        y: Axis { label: "D(A‖B), nats".to_owned(), scale: Scale::Log },
        series: vec![
            line(
                format!("mean {}", nats(mean)),
                Style::Line,
                Colour::Grey,
                [0.0, last].map(|at| (at, mean)).into_iter().filter(|point| point.1 > ROUNDING).collect(),
            ),
            line(
                "quantiles".to_owned(),
                Style::Line,
                Colour::Blue,
                points.filter(|point| point.1 > ROUNDING).collect(),
            ),
        ],
    }
}

/// The stories in the order of how much worse B predicts them.
fn by_story(found: &[Story], by_token: bool) -> Panel {
    let mut all = Story::default();
    found.iter().for_each(|story| all.add(story));
    let change = |story: &Story| {
        let nats = story.nll[1] - story.nll[0];
        if by_token { nats / story.tokens[0] as f64 } else { stories::bits_per_byte(nats, story.bytes) }
    };
    let predicted = found.iter().filter(|story| story.tokens[0] > 0 && story.bytes > 0);
    let sorted = Sorted::new(predicted.map(change).collect());
    let bars = sorted.len().min(DRAWN);
    let last = bars.saturating_sub(1) as f64;
    let points = (0..bars).map(|i| (i as f64, sorted.quantile(i as f64 / last.max(1.0))));
    let quarters = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share * last, format!("{} %", 100.0 * share)));
    let unit = if by_token { "nats/token" } else { "bits/byte" };
    let all = change(&all);
    Panel {
        title: "Stories by how much worse B predicts them".to_owned(),
        x: Axis {
            label: format!("share of {} stories", grouped(sorted.len() as u64)),
            scale: Scale::Marks(quarters.into()),
        },
        y: Axis { label: format!("B − A, {unit}"), scale: Scale::Linear },
        series: vec![
            Series {
                name: String::new(),
                style: Style::Bars,
                colour: Colour::Blue,
                points: points.collect(),
            },
            Series {
                name: format!("all {all:+.4} {unit}"),
                style: Style::Line,
                colour: Colour::Orange,
                points: vec![(0.0, all), (last, all)],
            },
        ],
    }
}
