//! Models as people write them: which model a row is about, and what its name says.

use std::collections::{BTreeSet, HashMap};

use crate::catalog::Catalog;
use crate::catalog::named::NamedModel;
use crate::model::{Attention, Model};
use crate::speed::classes::is_recurrent;

/// What decides the speed of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    pub(crate) params_b: f64,
    pub(crate) active_b: f64,
    pub(crate) layers: f64,
    pub(crate) hidden: Option<f64>,
    pub(crate) vocab: Option<f64>,
    pub(crate) tied: bool,
    pub(crate) recurrent: bool,
    /// Whether a token touches some experts only.
    pub(crate) moe: bool,
    /// Bytes of keys and values a token in 16 bits, and the window beyond which they do not grow.
    pub(crate) cache: Vec<(f64, Option<f64>)>,
    /// Bytes of recurrent states of a sequence.
    pub(crate) state_bytes: f64,
    /// Id in the catalog, if it is one of its models.
    pub(crate) model: Option<String>,
}

impl Facts {
    /// Keys and values of this many tokens, and recurrent states, in 10⁹ bytes.
    pub(crate) fn kv_gb(&self, tokens: f64) -> f64 {
        let of = |(bytes, window): &(f64, Option<f64>)| {
            bytes * window.map_or(tokens, |window| tokens.min(window))
        };
        (self.cache.iter().map(of).sum::<f64>() + self.state_bytes) / 1e9
    }
}

/// What a name says by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Stated {
    /// All parameters, in 10⁹: "30b", "350m".
    pub(crate) params_b: Option<f64>,
    /// Parameters that a token touches, in 10⁹: "a3b".
    pub(crate) active_b: Option<f64>,
}

enum Of<'a> {
    Model(&'a Model),
    Named(&'a NamedModel),
}

/// A name that is known.
struct Name<'a> {
    text: String,
    /// Whether it states a size.
    sized: bool,
    of: Of<'a>,
}

/// Finds models in names.
pub(crate) struct Names<'a> {
    /// The longest first.
    known: Vec<Name<'a>>,
    /// Those that begin with these bytes, by index.
    beginning: HashMap<[u8; 2], Vec<usize>>,
}

/// Words of a name that change neither size nor shape.
const FILLERS: [&str; 22] = [
    "coder",
    "code",
    "instruct",
    "chat",
    "it",
    "base",
    "math",
    "vl",
    "omni",
    "thinking",
    "reasoning",
    "meta",
    "preview",
    "uncensored",
    "abliterated",
    "qat",
    "gguf",
    "mlx",
    "dpo",
    "sft",
    "hf",
    "tools",
];

/// Words that make another model of one whose name has no size.
const VARIANTS: [&str; 13] = [
    "flash", "mini", "nano", "lite", "air", "small", "tiny", "micro", "pro", "next", "distill",
    "super", "ultra",
];

impl<'a> Names<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Self {
        let mut known = Vec::new();
        for model in &catalog.models {
            if model.layers.is_empty() || model.params == 0 {
                continue;
            }
            let tail = model
                .repo
                .as_deref()
                .and_then(|repo| repo.rsplit('/').next());
            let own = [model.id.as_str()].into_iter().chain(tail);
            for name in own.chain(model.aliases.iter().map(String::as_str)) {
                known.push(Name::new(name, Of::Model(model)));
            }
        }
        for named in &catalog.named {
            for name in std::iter::once(&named.id).chain(&named.names) {
                known.push(Name::new(name, Of::Named(named)));
            }
        }
        // The catalog's own models stay before those known by name.
        known.sort_by_key(|name| std::cmp::Reverse(name.text.len()));
        let mut beginning: HashMap<[u8; 2], Vec<usize>> = HashMap::new();
        for (index, name) in known.iter().enumerate() {
            if let Some(key) = name.text.as_bytes().first_chunk() {
                beginning.entry(*key).or_default().push(index);
            }
        }
        Self { known, beginning }
    }

    /// Known names that may stand in a text, the longest first.
    fn candidates(&self, text: &str) -> impl Iterator<Item = &Name<'a>> {
        let starts = (0..text.len()).filter(|&at| at == 0 || ends_word(text.as_bytes()[at - 1]));
        let keys = starts.filter_map(|at| text.as_bytes()[at..].first_chunk::<2>());
        let found: BTreeSet<usize> = keys
            .filter_map(|key| self.beginning.get(key))
            .flatten()
            .copied()
            .collect();
        found.into_iter().map(|index| &self.known[index])
    }

    /// The model that a name has in it: the longest known name, if it fits the stated size.
    pub(crate) fn find(&self, name: &str) -> Option<Facts> {
        let stated = stated(name);
        let name = normal(name);
        let words = name.split('-').filter(|word| !FILLERS.contains(word));
        let bare = words.collect::<Vec<_>>().join("-");
        let of = |name: &str| {
            self.candidates(name).find_map(|known| {
                let facts = known.is_in(name).then(|| known.of.facts())?;
                let near = |own: f64, said: f64| (own / said).ln().abs() < 0.36;
                let fits = stated
                    .params_b
                    .is_none_or(|said| near(facts.params_b, said) || near(facts.active_b, said));
                fits.then_some(facts)
            })
        };
        of(&name).or_else(|| of(&bare))
    }
}

impl Of<'_> {
    fn facts(&self) -> Facts {
        match self {
            Self::Model(model) => of_model(model),
            Self::Named(named) => Facts {
                params_b: named.params_b,
                active_b: named.active_params_b.unwrap_or(named.params_b),
                layers: f64::from(named.layers),
                hidden: Some(f64::from(named.hidden)),
                vocab: Some(f64::from(named.vocab)),
                tied: named.tied,
                recurrent: named.recurrent,
                moe: named.active_params_b.is_some(),
                cache: vec![(f64::from(named.kv_bytes), None)],
                state_bytes: 0.0,
                model: None,
            },
        }
    }
}

fn of_model(model: &Model) -> Facts {
    let mut cache: Vec<(f64, Option<f64>)> = Vec::new();
    let mut states = 0.0;
    for layer in &model.layers {
        let grouped = |heads: u32, key: u32, value: u32| {
            2.0 * f64::from(heads) * (f64::from(key) + f64::from(value))
        };
        let (bytes, window) = match layer.attention {
            Attention::Full {
                kv_heads,
                key_dim,
                value_dim,
            } => (grouped(kv_heads, key_dim, value_dim), None),
            Attention::Sliding {
                kv_heads,
                key_dim,
                value_dim,
                window,
            } => (
                grouped(kv_heads, key_dim, value_dim),
                Some(f64::from(window)),
            ),
            Attention::Latent {
                kv_lora_rank,
                rope_dims,
                index_dims,
            } => {
                let values = [kv_lora_rank, rope_dims, index_dims];
                (2.0 * values.map(f64::from).iter().sum::<f64>(), None)
            }
            Attention::Recurrent { state_bytes } => {
                states += state_bytes as f64;
                continue;
            }
            Attention::None => continue,
        };
        match cache.iter_mut().find(|known| known.1 == window) {
            Some(known) => known.0 += bytes,
            None => cache.push((bytes, window)),
        }
    }
    Facts {
        params_b: model.params as f64 / 1e9,
        active_b: multiplied(model) as f64 / 1e9,
        layers: model.layers.len() as f64,
        hidden: Some(f64::from(model.hidden)),
        vocab: Some(f64::from(model.vocab)),
        tied: model.tied_embeddings,
        recurrent: is_recurrent(model),
        moe: model.experts > 0,
        cache,
        state_bytes: states,
        model: Some(model.id.clone()),
    }
}

/// Parameters of layers and tables that a token touches: without tables that are looked up for each
/// layer, which some models have.
fn multiplied(model: &Model) -> u64 {
    let (used, experts) = (model.experts_used, model.experts.max(1));
    let layers = model.layers.iter().map(|layer| {
        let of_experts = u128::from(layer.expert_params) * u128::from(used) / u128::from(experts);
        layer.attention_params + layer.dense_params + of_experts as u64
    });
    let table = u64::from(model.hidden) * u64::from(model.vocab);
    layers.sum::<u64>()
        + if model.tied_embeddings {
            table
        } else {
            2 * table
        }
}

/// What a model is taken to be of which nothing but its size is known.
pub(crate) fn by_size(params_b: f64, active_b: f64) -> Facts {
    let moe = active_b < 0.75 * params_b;
    let depth = if moe { params_b.powf(0.75) } else { params_b };
    // Llama 3 8B and 70B lie on it.
    let layers = 32.0 * (depth / 8.0).powf(0.4);
    Facts {
        params_b,
        active_b,
        layers,
        hidden: None,
        vocab: None,
        tied: false,
        recurrent: false,
        moe,
        cache: vec![(layers * 4096.0, None)],
        state_bytes: 0.0,
        model: None,
    }
}

/// Small letters, words apart by single hyphens; dots stay.
pub(crate) fn normal(name: &str) -> String {
    let lower = name.to_lowercase();
    let lower = lower.strip_suffix(".gguf").unwrap_or(&lower);
    let words = lower.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'));
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// What a name says of its size.
pub(crate) fn stated(name: &str) -> Stated {
    let name = normal(name);
    let number = |word: &str, end: char| word.strip_suffix(end)?.parse::<f64>().ok();
    let plain = |value: &f64| value.is_finite() && *value > 0.0 && *value < 1e5;
    let mut stated = Stated::default();
    for word in name
        .split('-')
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit() || c == 'a'))
    {
        if let Some(active) = word.strip_prefix('a') {
            stated.active_b = stated.active_b.or(number(active, 'b').filter(plain));
        } else {
            let total = number(word, 'b').or_else(|| Some(number(word, 'm')? / 1e3));
            stated.params_b = stated.params_b.or(total.filter(plain));
        }
    }
    stated
}

impl<'a> Name<'a> {
    fn new(name: &str, of: Of<'a>) -> Self {
        let text = normal(name);
        Self {
            sized: stated(&text) != Stated::default(),
            text,
            of,
        }
    }

    /// Whether a text has it, at whole words: not within a number, and, where it has no size, not
    /// before a word that makes another model of it.
    fn is_in(&self, text: &str) -> bool {
        text.match_indices(&self.text).any(|(start, _)| {
            let rest = &text[start + self.text.len()..];
            let mut after = rest.bytes();
            let digit_after = match after.next() {
                Some(b'.') => after.next().is_some_and(|byte| byte.is_ascii_digit()),
                next => next.is_some_and(|byte| byte.is_ascii_digit()),
            };
            let word = rest
                .strip_prefix('-')
                .and_then(|rest| rest.split('-').next());
            (start == 0 || ends_word(text.as_bytes()[start - 1]))
                && !digit_after
                && (self.sized || word.is_none_or(|word| !VARIANTS.contains(&word)))
        })
    }
}

/// Whether a name may begin after this byte.
fn ends_word(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric() && byte != b'.'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_names() {
        for (name, params, active) in [
            ("Qwen3-30B-A3B-Instruct-2507", Some(30.0), Some(3.0)),
            ("LFM2.5-350M-Q4_K_M.gguf", Some(0.35), None),
            ("qwen3.6:27b-mtp", Some(27.0), None),
            ("gemma4:e4b-mlx", None, None),
            ("(70B-class; see source)", Some(70.0), None),
            ("phi-4", None, None),
            ("Mellum2-12B-A2.5B-Thinking", Some(12.0), Some(2.5)),
        ] {
            let found = stated(name);
            assert_eq!((found.params_b, found.active_b), (params, active), "{name}");
        }
    }

    #[test]
    fn the_model_that_a_name_is_about() {
        let catalog = Catalog::embedded().unwrap();
        let names = Names::new(&catalog);
        for (name, id) in [
            (
                "Qwen3-30B-A3B-Instruct-2507-Q4_K_M.gguf",
                Some("qwen3-30b-a3b-2507"),
            ),
            (
                "Qwen_Qwen3-30B-A3B-Thinking-2507-Q4_K_M.gguf",
                Some("qwen3-30b-a3b-2507"),
            ),
            ("Qwen3-30B-A3B-Q4_K_M.gguf", Some("qwen3-30b-a3b")),
            ("Qwen3-4B-Instruct-2507-Q4_K_M.gguf", Some("qwen3-4b-2507")),
            (
                "Qwen3-235B-A22B-Thinking-2507",
                Some("qwen3-235b-a22b-2507"),
            ),
            (
                "DeepSeek-R1-Distill-Qwen-14B",
                Some("deepseek-r1-distill-qwen-14b"),
            ),
            ("DeepSeek-R1-Distill-Llama-8B", Some("llama-3.1-8b")),
            ("QwQ-32B-Q4_K_M", Some("qwq-32b")),
            ("meta-llama/Llama-3.1-8B-Instruct", Some("llama-3.1-8b")),
            ("Qwen2.5-Math-7B", Some("qwen2.5-7b")),
            ("DeepSeek-R1", Some("deepseek-r1")),
            ("DeepSeek-R1-0528-Qwen3-8B", Some("qwen3-8b")),
            ("GLM-4.7-Flash", Some("glm-4.7-flash")),
            ("GLM-5.3-Flash", None),
            ("GLM-5-Flash", None),
            ("Mistral-Small-4-119B-2603", None),
            ("Fara1.5-27B", None),
        ] {
            let found = names
                .find(name)
                .map(|facts| facts.model.unwrap_or_default());
            assert_eq!(found.as_deref(), id, "{name}");
        }
    }
}
