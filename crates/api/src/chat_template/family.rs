//! Whose way of writing a conversation a template is, read off the marks that it writes.

use crate::{reasoning, tools};

/// Marks that all stand in the templates of one family and in no template of those below it.
const FAMILIES: [(&str, &[&str]); 13] = [
    ("Harmony", &["<|start|>", "<|channel|>"]),
    ("ChatML", &["<|im_start|>"]),
    ("Llama 3", &["<|start_header_id|>"]),
    ("Llama 4", &["<|header_start|>"]),
    ("Gemma", &["<start_of_turn>"]),
    ("Command R", &["<|START_OF_TURN_TOKEN|>"]),
    ("Granite", &["<|start_of_role|>"]),
    ("DeepSeek", &["<｜Assistant｜>"]),
    ("GLM", &["<|observation|>"]),
    ("Llama 2", &["[INST]", "<<SYS>>"]),
    ("Mistral", &["[INST]"]),
    ("Phi", &["<|user|>", "<|end|>"]),
    ("Zephyr", &["<|user|>"]),
];

/// What a chat template says of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateFacts {
    /// The family, if it is one of those that are known.
    pub family: Option<&'static str>,
    /// How calls of tools are known in answers.
    pub tools: ToolCalls,
    /// Whether the model thinks aloud.
    pub thinks: bool,
}

/// Whether tools can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolCalls {
    /// Yes.
    Read,
    /// The template takes tools, and calls come in a form that is not read.
    Unread,
    /// The template does not know tools.
    None,
}

impl TemplateFacts {
    /// Reads them off a template's text.
    pub fn of(template: &str) -> Self {
        let has = |marks: &[&str]| marks.iter().all(|mark| template.contains(mark));
        let family = FAMILIES.iter().find(|(_, marks)| has(marks));
        Self {
            family: family.map(|(name, _)| *name),
            tools: match tools::Support::of(template) {
                tools::Support::Calls(_) => ToolCalls::Read,
                tools::Support::UnknownFormat => ToolCalls::Unread,
                tools::Support::None => ToolCalls::None,
            },
            thinks: reasoning::thinks(template),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_by_their_marks() {
        for (template, family) in [
            ("<|im_start|>user\n{{ m }}<|im_end|>", Some("ChatML")),
            ("<|start_header_id|>user<|end_header_id|>", Some("Llama 3")),
            ("{{ bos_token }}[INST] {{ m }} [/INST]", Some("Mistral")),
            (
                "[INST] <<SYS>>{{ s }}<</SYS>> {{ m }} [/INST]",
                Some("Llama 2"),
            ),
            ("<start_of_turn>user\n{{ m }}<end_of_turn>", Some("Gemma")),
            ("<|user|>{{ m }}<|end|><|assistant|>", Some("Phi")),
            ("<|user|>\n{{ m }}</s>\n<|assistant|>", Some("Zephyr")),
            ("<|user|>{{ m }}<|assistant|><|observation|>", Some("GLM")),
            ("<|start|>assistant<|channel|>final", Some("Harmony")),
            ("User: {{ m }}", None),
        ] {
            assert_eq!(TemplateFacts::of(template).family, family, "{template}");
        }
    }

    #[test]
    fn tools_and_thoughts() {
        let plain = TemplateFacts::of("<|im_start|>");
        assert_eq!((plain.tools, plain.thinks), (ToolCalls::None, false));
        let qwen =
            TemplateFacts::of("{% if tools %}<tool_call>{% endif %}<think></think><|im_start|>");
        assert_eq!((qwen.tools, qwen.thinks), (ToolCalls::Read, true));
        let other = TemplateFacts::of("{{ tools }}");
        assert_eq!(other.tools, ToolCalls::Unread);
    }
}
