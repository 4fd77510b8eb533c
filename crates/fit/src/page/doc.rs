//! A page as blocks: written once, shown in the terminal and as HTML.

use serde::{Serialize, Serializer};

use crate::evidence::Estimate;
use crate::memory::Item;
use crate::verdict::Tier;

/// A page, the answer first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Doc {
    /// What kind of page it is, such as `Combo`.
    pub kind: &'static str,
    /// The question that it answers.
    pub title: String,
    /// The answer, in one to three sentences.
    pub answer: Vec<String>,
    /// The numbers that a reader looks for first.
    pub figures: Vec<Figure>,
    /// All of it.
    pub sections: Vec<Section>,
}

/// A number with its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub label: String,
    /// With its unit.
    pub value: String,
    /// What to know about it; may be empty.
    pub note: String,
}

/// A part of a page.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its heading.
    pub title: String,
    /// What is in it.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Block {
    /// A paragraph.
    Text {
        /// The paragraph.
        text: String,
    },
    /// A small heading.
    Heading {
        /// The heading.
        text: String,
    },
    /// Lines that are kept as they are.
    Code {
        /// The lines.
        text: String,
    },
    /// Sentences.
    List {
        /// The sentences.
        items: Vec<String>,
    },
    /// Names and what they mean.
    Pairs {
        /// The pairs.
        pairs: Vec<(String, String)>,
    },
    /// Rows and columns.
    Table(Table),
    /// What lies where, bar by bar.
    Memory(MemoryBars),
    /// Lines over an axis.
    Chart(Chart),
}

/// Rows and columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Table {
    /// What it shows, for readers who don't see it.
    pub caption: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// A column's head.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// Its title.
    pub title: String,
    /// Where its cells stand.
    pub align: Align,
}

/// Where cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A row, with remarks below it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// One for each column.
    pub cells: Vec<Cell>,
    /// Why it is so; may be empty.
    pub note: String,
}

/// What stands in a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "cell", rename_all = "kebab-case")]
pub enum Cell {
    /// Words or a number.
    Text {
        /// The text; empty where nothing is known.
        text: String,
    },
    /// A name with a page of its own.
    Link {
        /// The name.
        text: String,
        /// Its page.
        to: Target,
    },
    /// A fit tier.
    Tier {
        /// The tier.
        tier: Tier,
    },
    /// A share of effective memory.
    Use {
        /// The share, 1 for all of it.
        share: f64,
    },
    /// A number with its interval and evidence.
    Rate {
        /// The number.
        estimate: Estimate,
    },
}

/// A page of the site.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A combo, by id.
    Combo(String),
    /// A model, by id.
    Model(String),
    /// A machine, by id.
    Machine(String),
    /// The list of pages.
    Index,
    /// When several machines are worth it.
    Guide,
    /// How all of it is computed.
    Method,
}

impl Target {
    /// Its file within the site. Ids of the catalog are made of letters, digits, dots and hyphens;
    /// anything else becomes a hyphen.
    pub fn path(&self) -> String {
        let file = |folder: &str, id: &str| {
            let plain = |c: char| {
                if c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_' {
                    c
                } else {
                    '-'
                }
            };
            format!(
                "{folder}/{}.html",
                id.chars().map(plain).collect::<String>()
            )
        };
        match self {
            Self::Combo(id) => file("combos", id),
            Self::Model(id) => file("models", id),
            Self::Machine(id) => file("machines", id),
            Self::Index => "index.html".into(),
            Self::Guide => "guide.html".into(),
            Self::Method => "method.html".into(),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.path())
    }
}

/// What lies where, bar by bar, on one scale.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryBars {
    /// What it shows.
    pub caption: String,
    /// The bars.
    pub bars: Vec<MemoryBar>,
}

/// A memory and what it holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryBar {
    /// Whose it is.
    pub label: String,
    /// All of it.
    pub memory_bytes: u64,
    /// What a model may use at most.
    pub limit_bytes: u64,
    /// What is wise to plan with.
    pub effective_bytes: u64,
    /// What it holds.
    pub items: Vec<Item>,
}

/// Lines over an axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chart {
    /// What it shows.
    pub caption: String,
    /// The horizontal axis, which doubles at each step.
    pub x: &'static str,
    /// The vertical axis, from 0.
    pub y: &'static str,
    /// The points, by x.
    pub points: Vec<Point>,
}

/// A point with its interval, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Where it stands; above 0.
    pub x: f64,
    /// The best single number.
    pub mid: f64,
    /// The interval.
    pub band: Option<(f64, f64)>,
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// A number, where there is one.
    pub fn rate(estimate: Option<Estimate>) -> Self {
        estimate.map_or_else(|| Self::text("–"), |estimate| Self::Rate { estimate })
    }

    /// A share, where there is one.
    pub fn share(share: Option<f64>) -> Self {
        share.map_or_else(|| Self::text("–"), |share| Self::Use { share })
    }

    /// A model with its page.
    pub fn model(name: &str, id: &str) -> Self {
        Self::Link {
            text: name.to_owned(),
            to: Target::Model(id.to_owned()),
        }
    }
}

impl Row {
    /// A row without a remark.
    pub fn new(cells: Vec<Cell>) -> Self {
        Self {
            cells,
            note: String::new(),
        }
    }

    /// The row with a remark below it.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

impl Table {
    /// A table with these columns; a title that starts with `>` is of numbers.
    pub fn new(caption: impl Into<String>, titles: &[&str]) -> Self {
        let column = |title: &&str| match title.strip_prefix('>') {
            Some(title) => Column {
                title: title.to_owned(),
                align: Align::Right,
            },
            None => Column {
                title: (*title).to_owned(),
                align: Align::Left,
            },
        };
        Self {
            caption: caption.into(),
            columns: titles.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row::new(cells));
    }

    /// The table with these rows.
    #[must_use]
    pub fn rows(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.rows.extend(rows);
        self
    }
}

impl Block {
    /// A paragraph.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// A small heading.
    pub fn heading(text: impl Into<String>) -> Self {
        Self::Heading { text: text.into() }
    }
}

impl Section {
    /// A section.
    pub fn new(id: &'static str, title: impl Into<String>, blocks: Vec<Block>) -> Self {
        Self {
            id,
            title: title.into(),
            blocks,
        }
    }
}

impl Figure {
    /// A number with its name and a remark.
    pub fn new(
        label: impl Into<String>,
        value: impl Into<String>,
        note: impl Into<String>,
    ) -> Self {
        Self {
            label: label.into(),
            value: value.into(),
            note: note.into(),
        }
    }
}
