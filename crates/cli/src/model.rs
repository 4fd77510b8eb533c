//! From what a person names to a model that can be started.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use brigade_api::{ChatMessage, ChatTemplate, ModelFacts, Role};
use brigade_gguf::{Architecture, Balance, Layers, Source, head_layers, plan_cuts, plan_even};
use brigade_hub::ModelRef;
use brigade_node::{ClusterSpec, Links, Placement, Text, Tokenizer, VocabularyFacts};

use serde::{Deserialize, Serialize};

use crate::{hub, output};

/// The model of `lab` and `cargo demo` where none is named.
const DEMO_MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Context where none is asked for, unless the model's own is smaller, in tokens.
const DEFAULT_CONTEXT: u32 = 4096;

/// Answers at the same time where nothing else is said.
const STREAMS: u32 = 4;

/// How answers are computed: how many at once, and how far ahead they are guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
pub(crate) struct Decoding {
    /// Answers at the same time, each with a context of its own; more requests wait
    #[arg(long, default_value_t = STREAMS, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) streams: u32,
    /// Guess up to N tokens ahead from what was said before, and have them verified in one step,
    /// where that turns out to be faster (0: never); near-ties may then fall otherwise
    #[arg(long, default_value_t = 0, value_name = "N",
        value_parser = clap::value_parser!(u32).range(0..=16))]
    pub(crate) draft: u32,
}

impl Default for Decoding {
    fn default() -> Self {
        Self {
            streams: STREAMS,
            draft: 0,
        }
    }
}

impl Decoding {
    /// One answer at a time.
    pub(crate) fn alone(draft: u32) -> Self {
        Self { streams: 1, draft }
    }

    /// Fails where the model cannot take guesses back.
    pub(crate) fn check(self, source: &Source) -> anyhow::Result<()> {
        if self.draft > 0 && !can_be_cut(source) {
            bail!(
                "--draft does not work with {}: nothing can be taken back from its KV cache",
                source.header().architecture()?
            );
        }
        Ok(())
    }
}

/// Whether a sequence's KV cache can be cut anywhere. Recurrent states, too, are of architectures
/// that are not known by name.
fn can_be_cut(source: &Source) -> bool {
    Architecture::of(source.model().header()).is_ok_and(Architecture::kv_can_be_cut)
}

/// How a model is spread over nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Engine {
    /// Brigade's pipeline: each node holds a range of layers (default)
    Stages,
    /// llama.cpp's own RPC backend, for every architecture that llama.cpp runs
    LlamaRpc,
}

impl Engine {
    /// That of a placement.
    pub(crate) fn of(placement: &Placement) -> Self {
        match placement {
            Placement::Whole | Placement::Stages(_) => Self::Stages,
            Placement::Rpc(_) => Self::LlamaRpc,
        }
    }
}

/// The model that is meant: a path, or without one the demo model.
pub(crate) fn path(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os("BRIGADE_DEMO_MODEL") {
        return Ok(path.into());
    }
    let path = brigade_node::cache_dir()?.join("models").join(DEMO_MODEL);
    if !path.exists() {
        bail!(
            "the demo model is not at {}; `cargo demo` fetches it, or name a model",
            path.display()
        );
    }
    Ok(path)
}

/// Opens the header of a model by its path or by any other name.
pub(crate) fn open(named: &Path) -> anyhow::Result<Source> {
    match named.to_str() {
        Some(name) => open_named(&name.parse()?),
        None => open_file(named),
    }
}

/// Opens the header of a model. What is on servers only is fetched first.
pub(crate) fn open_named(reference: &ModelRef) -> anyhow::Result<Source> {
    if let ModelRef::Path(path) = reference {
        return open_file(path);
    }
    let client = hub::client();
    if let Some(source) = client.caches().find(reference)? {
        return Ok(source);
    }
    let cache = crate::cache::cache(None)?;
    let mut progress = output::progress();
    let fetched = brigade_node::fetch_model(&client, reference, &cache, |step| {
        progress(step);
        Ok(())
    });
    output::progress_done();
    Ok(fetched?)
}

fn open_file(path: &Path) -> anyhow::Result<Source> {
    // An absolute path means the same to every process.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if absolute.to_str().is_none() {
        bail!(
            "the path {} is not UTF-8; rename the file or link to it",
            absolute.display()
        );
    }
    Source::open(&absolute).map_err(|error| {
        // The name of a model, such as the catalog's: `brigade fit` takes those.
        let is_name = path.extension().is_none() && path.components().count() == 1;
        if is_name && !absolute.exists() {
            anyhow!(
                "there is no file {}: name a GGUF file, hf:owner/repo:QUANT, an address or \
                 ollama:NAME (the names that `brigade fit` knows are for planning)",
                path.display()
            )
        } else {
            error.into()
        }
    })
}

/// A model of which only the headers were read.
#[derive(Debug)]
pub(crate) struct Headers {
    pub(crate) name: String,
    /// Where it lies, for people.
    pub(crate) place: String,
    pub(crate) model: brigade_gguf::Model,
}

/// Reads what stands before a model's weights, wherever it lies.
pub(crate) fn headers(reference: &ModelRef) -> anyhow::Result<Headers> {
    let client = hub::client();
    let here = match reference {
        ModelRef::Path(path) => Some(open_file(path)?),
        _ => client.caches().find(reference)?,
    };
    if let Some(source) = here {
        return Ok(Headers {
            name: name(&source),
            place: source.path().display().to_string(),
            model: source.model().clone(),
        });
    }
    let resolved = client.resolve(reference)?;
    Ok(Headers {
        name: resolved.name,
        place: reference.to_string(),
        model: resolved.model,
    })
}

/// What requests call a model: its file's name without the ending; where that is a hash, as Ollama's
/// are, what its authors call it.
pub(crate) fn name(source: &Source) -> String {
    let path = source.path();
    let is_hash = path
        .file_stem()
        .is_some_and(|stem| stem.as_encoded_bytes().starts_with(b"sha256-"));
    match source.header().name().filter(|_| is_hash) {
        Some(own) => printable(&own.trim().replace(' ', "-")),
        None => name_of(path),
    }
}

/// The same by the file's path.
pub(crate) fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    printable(&stem.to_string_lossy())
}

/// What a terminal would act on has no place in a name.
fn printable(name: &str) -> String {
    let name: String = name
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    if name.is_empty() {
        return "model".to_owned();
    }
    name
}

/// Cuts the model for these nodes, or lets RPC do it where that was asked for or stages do not
/// support the architecture; the second case comes with a sentence that says so.
pub(crate) fn placement(
    source: &Source,
    nodes: u32,
    engine: Option<Engine>,
) -> anyhow::Result<(Placement, Option<String>)> {
    if nodes == 0 {
        bail!("a model needs at least one node");
    }
    match engine {
        Some(Engine::LlamaRpc) => Ok((Placement::Rpc(alike(source, nodes)?), None)),
        None if Architecture::of(source.header()).is_err() => {
            let remark = format!(
                "Stages do not support the architecture '{}' yet: llama-rpc runs it.",
                source.header().architecture()?
            );
            Ok((Placement::Rpc(alike(source, nodes)?), Some(remark)))
        }
        Some(Engine::Stages) | None => Ok((
            Placement::Stages(even(source, nodes, Balance::default())?),
            None,
        )),
    }
}

/// Layer ranges of even work that the architecture allows.
pub(crate) fn even(source: &Source, stages: u32, balance: Balance) -> anyhow::Result<Vec<Layers>> {
    let ranges = divided(source, stages, balance)?;
    brigade_gguf::check_stages(source.header(), &ranges)?;
    Ok(ranges)
}

/// Layer ranges of even work, whatever stages make of the architecture.
pub(crate) fn alike(source: &Source, nodes: u32) -> anyhow::Result<Vec<Layers>> {
    divided(source, nodes, Balance::default())
}

fn divided(source: &Source, stages: u32, balance: Balance) -> anyhow::Result<Vec<Layers>> {
    let header = source.header();
    let (layers, head) = (header.block_count()?, head_layers(header)?);
    Ok(plan_even(layers, head, stages, balance)?)
}

/// Layer ranges between the given cuts.
pub(crate) fn cut(source: &Source, cuts: &[u32]) -> anyhow::Result<Vec<Layers>> {
    let ranges = plan_cuts(source.header().block_count()?, cuts)?;
    brigade_gguf::check_stages(source.header(), &ranges)?;
    Ok(ranges)
}

/// The context that is asked for, checked against what the model was made for, in tokens.
pub(crate) fn context(source: &Source, asked: Option<u32>) -> anyhow::Result<u32> {
    let own = source.header().context_length()?;
    match asked {
        None => Ok(own.min(DEFAULT_CONTEXT)),
        Some(0) => bail!("a context of 0 tokens holds nothing"),
        Some(asked) if asked > own => {
            bail!("the model was made for a context of {own} tokens, {asked} were asked for")
        }
        Some(asked) => Ok(asked),
    }
}

/// The threads of a stage that are asked for, or its share of this machine's cores.
pub(crate) fn threads(asked: Option<u32>, sharing: u32) -> anyhow::Result<u32> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    match asked {
        // ggml's threads wait for each other by spinning: more of them than cores all but stop.
        Some(asked) if asked > cores => bail!(
            "{asked} threads are more than the {cores} cores here, which is many times slower"
        ),
        Some(asked) => Ok(asked),
        None => Ok((cores / sharing).max(1)),
    }
}

/// A spec with the usual settings: the nodes share this machine's cores.
pub(crate) fn spec(
    source: Source,
    placement: Placement,
    context_tokens: u32,
    decoding: Decoding,
    threads: Option<u32>,
) -> anyhow::Result<ClusterSpec> {
    decoding.check(&source)?;
    let sharing = match &placement {
        Placement::Whole => 1,
        Placement::Stages(ranges) | Placement::Rpc(ranges) => ranges.len() as u32,
    };
    Ok(ClusterSpec {
        name: name(&source),
        keeps_prefixes: can_be_cut(&source),
        draft_tokens: decoding.draft,
        source,
        placement,
        context_tokens,
        sequences: decoding.streams,
        chunk_tokens: 64,
        threads: Some(self::threads(threads, sharing)?),
        cache: crate::cache::cache(None)?,
        links: Links::Plain,
    })
}

/// The chat template: the one that is named, else the model's own, if it has one.
pub(crate) fn chat_template(
    source: &Source,
    named: Option<&str>,
    vocabulary: &VocabularyFacts,
) -> anyhow::Result<Option<ChatTemplate>> {
    let Some(template) = named.or(source.header().chat_template()) else {
        return Ok(None);
    };
    ChatTemplate::new(template, &vocabulary.bos, &vocabulary.eos)
        .map(Some)
        .context("the chat template cannot be used")
}

/// What clients may ask about the file.
pub(crate) fn facts(source: &Source) -> anyhow::Result<ModelFacts> {
    let model = source.model();
    let elements = |dims: &[u64]| dims.iter().product::<u64>();
    Ok(ModelFacts {
        architecture: source.header().architecture()?.to_owned(),
        size_bytes: model.file_bytes(),
        parameters: model
            .parts()
            .iter()
            .flat_map(brigade_gguf::Header::tensors)
            .map(|tensor| elements(tensor.dims()))
            .sum(),
        quantization: source
            .header()
            .get_u32("general.file_type")
            .and_then(file_type)
            .map(str::to_owned),
    })
}

/// llama.cpp's names of `general.file_type`.
pub(crate) fn file_type(number: u32) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        32 => "BF16",
        _ => return None,
    })
}

/// The tokens of a conversation, or of the last message alone where the model has no template.
pub(crate) fn conversation(
    messages: &[ChatMessage],
    template: Option<&ChatTemplate>,
    tokenizer: &Tokenizer,
) -> anyhow::Result<Vec<u32>> {
    let text = match (template, messages.last()) {
        (Some(template), _) => Text {
            text: template.render(messages, &[], None, SystemTime::now())?,
            add_special: false,
            parse_special: true,
        },
        (None, last) => Text {
            text: last.map_or_else(String::new, |message| message.content.clone()),
            add_special: true,
            parse_special: false,
        },
    };
    Ok(tokenizer.tokenize(text)?)
}

/// A message of a person.
pub(crate) fn user(content: &str) -> ChatMessage {
    ChatMessage::new(Role::User, content)
}
