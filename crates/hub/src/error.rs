//! What can go wrong on the way to a file.

use std::io;

use brigade_gguf::GgufError;

/// Why a request to a server brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct FetchError {
    text: String,
    /// Whether the same request may do better in a moment.
    pub retry: bool,
}

impl FetchError {
    /// One that stays.
    pub fn lasting(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            retry: false,
        }
    }

    /// One that may pass.
    pub fn passing(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            retry: true,
        }
    }

    pub(crate) fn broken() -> Self {
        Self::passing("the connection broke before the whole answer had come")
    }
}

impl From<FetchError> for io::Error {
    fn from(error: FetchError) -> Self {
        Self::other(error)
    }
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind;
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(error) => match error.kind() {
                // Not the end of the file, which is what it would be taken for.
                ErrorKind::UnexpectedEof => Self::broken(),
                ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                    Self::passing("the server did not answer in time")
                }
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionRefused
                | ErrorKind::BrokenPipe
                | ErrorKind::Interrupted => Self::passing(error.to_string()),
                _ => Self::lasting(error.to_string()),
            },
        }
    }
}

impl From<ureq::Error> for FetchError {
    /// In words for who named the file.
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Io(error) => error.into(),
            ureq::Error::Timeout(_) => Self::passing("the server did not answer in time"),
            ureq::Error::HostNotFound => Self::lasting("no such server"),
            // Without the address, which may have a password in it.
            ureq::Error::BadUri(_) => Self::lasting("not the address of a file on a web server"),
            error => Self::lasting(error.to_string()),
        }
    }
}

/// Why a name led to no model.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A server did not give what was asked for.
    #[error("{place}: {error}")]
    Fetch {
        /// The file or repository.
        place: String,
        /// What happened.
        error: FetchError,
    },
    /// What a server gave is no model.
    #[error("{place}: {error}")]
    Gguf {
        /// The file.
        place: String,
        /// What is wrong with it.
        error: GgufError,
    },
    /// What the hub said of a repository makes no sense.
    #[error("{place}: the hub's answer is not a list of files: {reason}")]
    Listing {
        /// The repository.
        place: String,
        /// Why not.
        reason: String,
    },
    /// A repository without a GGUF file.
    #[error(
        "hf:{repo} has no GGUF file: look for a repository of the same model with GGUF in its name"
    )]
    NoGguf {
        /// `owner/name`.
        repo: String,
    },
    /// A repository without the quantization that was asked for.
    #[error("hf:{repo} has no {asked}; it has {}", there.join(", "))]
    NoQuantization {
        /// `owner/name`.
        repo: String,
        /// What was asked for.
        asked: String,
        /// What there is, with sizes.
        there: Vec<String>,
    },
    /// Several files that may be meant.
    #[error("{reference} may mean any of {}: name one, such as {example}", there.join(", "))]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// What there is, with sizes.
        there: Vec<String>,
        /// One of them as it can be typed.
        example: String,
    },
    /// A model in several files, of which one is not there.
    #[error("hf:{repo} lacks part {number} of {count} of {name}: the upload may be unfinished")]
    MissingPart {
        /// `owner/name`.
        repo: String,
        /// The model's name in the repository.
        name: String,
        /// The part, from 1.
        number: u32,
        /// Parts in all.
        count: u32,
    },
    /// A part of a model whose name does not say where the others are.
    #[error(
        "{place}: one of {count} parts of a model, but its name does not end in \
         -0000N-of-{count:05}.gguf"
    )]
    SplitName {
        /// The file.
        place: String,
        /// Parts in all.
        count: u32,
    },
    /// A model that Ollama does not have here.
    #[error("{}", not_in_ollama(asked, there))]
    NotInOllama {
        /// What was asked for.
        asked: String,
        /// What it has.
        there: Vec<String>,
    },
    /// Another version, or another quantization, is on this machine.
    #[error("{error}; on this machine there is {}", there.join(", "))]
    ButHere {
        /// Why what was asked for cannot be had.
        error: Box<HubError>,
        /// What is here of the repository.
        there: Vec<String>,
    },
    /// A path is no name of a remote model.
    #[error("{0} is a file of this machine, not of a server")]
    NotRemote(String),
}

fn not_in_ollama(asked: &str, there: &[String]) -> String {
    if there.is_empty() {
        return format!(
            "{asked} is not here: Ollama has no model, or keeps them where OLLAMA_MODELS does not say"
        );
    }
    format!("{asked} is not here; Ollama has {}", there.join(", "))
}
