//! What the planner's commands share: from what is typed to the planner's types, and files.

mod asked;
mod called;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use brigade_fit::catalog::Catalog;
use brigade_fit::cluster::Cluster;
use brigade_fit::emit::Nodes;
use brigade_fit::html;
use brigade_fit::machine::Machine;
use brigade_fit::model::Model;
use brigade_fit::page::Page;
use brigade_fit::speed::SpeedModel;
use brigade_fit::text::{self, Style};
use brigade_hub::{ModelRef, url};

pub(crate) use asked::Asked;

pub(crate) use crate::files::{read_text, write_file};
use crate::{files, hub, output, this_machine};

/// How machines are written, for the help of what takes them.
pub(crate) const MACHINES_HELP: &str = "\
Machines are names joined by `+`, with options after commas or blanks:
  4x mac-mini-m4-pro-64gb, link=tb5         four machines and the link between them
  2x rtx-3090, ram=64gb, cpu=ryzen-9-9950x  one host with two GPUs, its RAM and its CPU
  two rtx 3090 ram=64gb                     counts and options, written otherwise
  rtx-4090 + rtx-3090, link=10gbe           two hosts
  mac-mini-m4-pro-64gb, wired=60000         a Mac with iogpu.wired_limit_mb, in MiB
`brigade names` lists machines, GPUs, CPUs, links, models and combos.

Quantizations: --quant Q4_K_M, --quant Q8_0, --quant mlx-4bit";

/// The catalog, with the rows of a folder's files in place of its own.
pub(crate) fn catalog(over: Option<&Path>) -> anyhow::Result<Catalog> {
    let mut files = BTreeMap::new();
    if let Some(folder) = over {
        let cannot = || format!("cannot read the catalog in {}", folder.display());
        for entry in folder.read_dir().with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            let known = path
                .extension()
                .is_some_and(|end| end == "toml" || end == "csv");
            let Some(name) = path.file_name().and_then(OsStr::to_str).filter(|_| known) else {
                continue;
            };
            let text = read_text(&path, MAX_CATALOG_BYTES)
                .with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(name.to_owned(), text);
        }
        if files.is_empty() {
            let names: Vec<&str> = Catalog::file_names().collect();
            bail!(
                "{} has no file of the catalog: those are {}",
                folder.display(),
                names.join(", ")
            );
        }
    }
    Ok(Catalog::from_files(&files)?)
}

/// Whose machines a model is to run on.
#[derive(Debug, clap::Args)]
pub(crate) struct On {
    /// A combo, or machines such as "4x mac-mini-m4-pro-64gb, link=tb5" [default: this machine]
    #[arg(long, value_name = "COMBO|MACHINES")]
    pub(crate) on: Option<String>,
    /// The machines of this node's cluster as they are now, with the links between them
    #[cfg(all(unix, feature = "engine"))]
    #[arg(long, conflicts_with = "on")]
    pub(crate) cluster: bool,
}

impl On {
    /// The machines, with notes on how they were seen.
    pub(crate) fn machines(&self, catalog: &Catalog) -> anyhow::Result<Cluster> {
        #[cfg(all(unix, feature = "engine"))]
        if self.cluster {
            return crate::commands::cluster::machines(catalog);
        }
        cluster(catalog, self.on.as_deref())
    }

    /// Whether they run Brigade already.
    #[cfg_attr(
        not(all(unix, feature = "engine")),
        expect(clippy::unused_self, reason = "there is no --cluster in this build")
    )]
    pub(crate) fn nodes(&self) -> Nodes {
        #[cfg(all(unix, feature = "engine"))]
        if self.cluster {
            return Nodes::Up;
        }
        Nodes::ToStart
    }
}

/// A combo or machines by their text; without one, this machine, with notes on how it was seen.
fn cluster(catalog: &Catalog, on: Option<&str>) -> anyhow::Result<Cluster> {
    if let Some(text) = on {
        let cluster = catalog.cluster(text)?;
        let hints = cluster.left_out().into_iter();
        for hint in hints.chain(catalog.missing_ports(&cluster)) {
            output::note(&hint);
        }
        return Ok(cluster);
    }
    let (machine, notes) = here(catalog);
    for note in notes {
        output::note(&note);
    }
    Ok(alone(machine))
}

/// This machine, with what it was measured to do and notes on how it was seen.
#[cfg(feature = "engine")]
fn here(catalog: &Catalog) -> (Machine, Vec<String>) {
    use crate::about;
    let facts = about::facts(catalog, None);
    let (mut machine, mut notes) = this_machine::machine(&facts, catalog);
    let home = brigade_node::home_dir().ok();
    let known = home.and_then(|home| about::calibration(&home, &facts, facts.cores as u32));
    if known.is_none() {
        notes.push("`brigade calibrate` measures what it does, for closer figures".to_owned());
    }
    about::calibrate(&mut machine, known);
    (machine, notes)
}

#[cfg(not(feature = "engine"))]
fn here(catalog: &Catalog) -> (Machine, Vec<String>) {
    this_machine::machine(&this_machine::facts(catalog, None), catalog)
}

/// A cluster of this machine alone.
pub(crate) fn alone(machine: Machine) -> Cluster {
    let mut cluster = Cluster::alone(machine);
    cluster.name = format!("this machine ({})", cluster.name);
    for node in &mut cluster.nodes {
        "this-machine".clone_into(&mut node.name);
    }
    cluster
}

/// The speed model, with the catalog's parameters.
pub(crate) fn speed(catalog: &Catalog) -> SpeedModel<'_> {
    SpeedModel::new(catalog)
}

/// A model of the catalog, or one in a file.
pub(crate) fn model(catalog: &Catalog, name: &str) -> anyhow::Result<Model> {
    let known = catalog.model(name);
    match known {
        Ok(model) => {
            if called::another(model, name) {
                output::note(&format!(
                    "'{name}' has the layers and widths of {}, whose facts are used",
                    model.name
                ));
            }
            Ok(model.clone())
        }
        Err(unknown) => model_in_file(name)?.ok_or_else(|| unknown.into()),
    }
}

/// The model as whoever runs it knows it: one that was named by another model's name has that
/// name, and none of the repositories of the model that it is of the shape of.
pub(crate) fn as_named(mut model: Model, name: &str) -> Model {
    let found = model.aliases.iter().any(|alias| called::is(alias, name));
    if found && called::another(&model, name) {
        name.clone_into(&mut model.id);
        name.clone_into(&mut model.name);
        model.repo = None;
    }
    model
}

/// How a page is shown.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Show {
    /// Print one JSON document
    #[arg(long, conflicts_with = "html")]
    pub(crate) json: bool,
    /// Write the page to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

impl Show {
    pub(crate) fn page(&self, page: &impl Page) -> anyhow::Result<()> {
        if let Some(path) = &self.html {
            write_file(path, &html::page(page)?)?;
            output::note(&format!("the page is at {}", path.display()));
            return Ok(());
        }
        if self.json {
            return output::document(&format!("{}\n", serde_json::to_string(page)?));
        }
        let columns = output::terminal().map_or(text::WIDTH, |(columns, _)| columns);
        output::page(&text::render(page, style(), columns))
    }
}

/// Colour where somebody looks and does not mind.
fn style() -> Style {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if std::io::stdout().is_terminal() && !unwanted {
        Style::Ansi
    } else {
        Style::Plain
    }
}

/// The most of a file of the catalog.
const MAX_CATALOG_BYTES: u64 = 64 << 20;

/// The most of a `config.json`.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// A model from a file, a hub's repository or the address of a file, read today; `None` where the
/// name is none of these.
fn model_in_file(name: &str) -> anyhow::Result<Option<Model>> {
    let ends_in = |ending| {
        let found = Path::new(file_name(name)).extension();
        found.is_some_and(|found| found.eq_ignore_ascii_case(ending))
    };
    let is_config = ends_in("json");
    let reference: ModelRef = name.parse()?;
    let mut model = match &reference {
        ModelRef::Url(at) if is_config => {
            Model::from_config(&hub::client().config(at)?, &id(name))?
        }
        ModelRef::Url(_) | ModelRef::Hub(_) | ModelRef::Ollama(_) => {
            let client = hub::client();
            if let Some(source) = client.caches().find(&reference)? {
                let path = source.path().display();
                output::note(&format!("read the header of {path}"));
                let own = match &reference {
                    ModelRef::Ollama(_) => plain(name),
                    _ => id(&source.path().to_string_lossy()),
                };
                let mut model = Model::from_gguf(source.model(), &own)?;
                model.date = date(SystemTime::now());
                return Ok(Some(model));
            }
            let resolved = client.resolve(&reference)?;
            output::note(&format!(
                "read {} of {}: the headers only",
                output::bytes(resolved.received_bytes),
                output::bytes(resolved.model.file_bytes())
            ));
            Model::from_gguf(&resolved.model, &resolved.name)?
        }
        ModelRef::Path(path) if is_config => {
            let text = read_text(path, MAX_CONFIG_BYTES);
            let text = text.with_context(|| format!("cannot read {name}"))?;
            Model::from_config(&text, &id(name))?
        }
        ModelRef::Path(path) if ends_in("gguf") || path.is_file() => {
            let source = brigade_gguf::Source::open(path)?;
            Model::from_gguf(source.model(), &id(name))?
        }
        ModelRef::Path(path) => match files::other_than_file(path) {
            Some("a folder") => {
                bail!("{name} is a folder: name the GGUF file or the config.json in it")
            }
            Some(kind) => bail!("{name} is {kind}: name a GGUF file or a config.json"),
            None => return Ok(None),
        },
    };
    model.date = date(SystemTime::now());
    Ok(Some(model))
}

/// The day, in Greenwich, as `2026-11-24`.
fn date(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    // Years are counted from March, so that the leap day is the last.
    let days = since.as_secs() / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..=9 => (year + era * 400, month + 3),
        _ => (year + era * 400 + 1, month - 9),
    };
    format!("{year:04}-{month:02}-{day:02}")
}

/// What a model in a file is called: the file's name without the ending and the number of its
/// part; for a `config.json`, what it lies in.
fn id(name: &str) -> String {
    let file = file_name(name);
    let (stem, ending) = file.rsplit_once('.').unwrap_or((file, ""));
    if !ending.eq_ignore_ascii_case("json") {
        let part = stem.find("-of-").and_then(|end| stem[..end].rfind('-'));
        return plain(part.map_or(stem, |start| &stem[..start]));
    }
    let name = if url::is_url(name) {
        &url::shown(name)
    } else {
        name
    };
    let above = name.split(['/', std::path::MAIN_SEPARATOR]).rev().skip(1);
    let folder = above
        .take_while(|folder| !folder.is_empty() && !folder.contains(':'))
        .find(|folder| !["resolve", "blob", "raw", "main", "."].contains(folder));
    plain(folder.unwrap_or(stem))
}

/// Without what a terminal would act on.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|character| !character.is_control())
        .collect()
}

fn file_name(name: &str) -> &str {
    if url::is_url(name) {
        url::file_name(name)
    } else {
        name.rsplit(std::path::MAIN_SEPARATOR)
            .next()
            .unwrap_or(name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_of_models_in_files() {
        let cases = [
            ("models/SmolLM2-135M.Q4_1.gguf", "SmolLM2-135M.Q4_1"),
            ("/a/big-00002-of-00003.gguf", "big"),
            (
                "https://h/Qwen/Qwen3-8B/resolve/main/config.json",
                "Qwen3-8B",
            ),
            ("Qwen3-8B/config.json", "Qwen3-8B"),
            ("config.json", "config"),
            ("https://h/config.json", "h"),
            ("https://token@h/config.json", "h"),
            ("a\u{1b}[31m.gguf", "a[31m"),
        ];
        for (name, expected) in cases {
            assert_eq!(id(name), expected, "{name}");
        }
    }

    #[test]
    fn days() {
        let days = [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (1_795_478_400, "2026-11-24"),
            (4_107_542_400, "2100-03-01"),
        ];
        for (seconds, expected) in days {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn what_is_no_file() {
        assert!(model_in_file("llama-3.3-70b").unwrap().is_none());
        assert!(model_in_file("Qwen/Qwen3-8B").unwrap().is_none());
        let folder = tempfile::tempdir().unwrap();
        let error = model_in_file(folder.path().to_str().unwrap()).unwrap_err();
        assert!(error.to_string().contains(" is a folder: "), "{error}");
        let error = format!("{:#}", model_in_file("missing.gguf").unwrap_err());
        assert!(error.starts_with("missing.gguf: cannot read"), "{error}");
        let error = format!("{:#}", model_in_file("no/config.json").unwrap_err());
        assert!(error.starts_with("cannot read no/config.json"), "{error}");
    }
}
