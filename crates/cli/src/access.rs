//! Who may use the API, as options of a command.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use brigade_api::{ApiKeys, Settings};

#[derive(Debug, clap::Args)]
pub(crate) struct Access {
    /// Ask every request for one of the keys in this file, which `brigade key` writes
    #[arg(long, value_name = "PATH")]
    pub(crate) api_key_file: Option<PathBuf>,
    #[arg(
        long,
        value_name = "ORIGIN",
        help = "Let web pages of this origin use the API, such as https://chat.example"
    )]
    cors_origin: Vec<String>,
    /// End a request that takes longer than this many seconds
    #[arg(long, default_value_t = 3600, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    request_timeout: u64,
}

impl Access {
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let keys = self.api_key_file.as_ref().map(|path| {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the keys in {}", path.display()))?;
            let keys = ApiKeys::parse(&text)
                .with_context(|| format!("cannot use the keys in {}", path.display()))?;
            if keys.is_empty() {
                bail!("{} has no keys; `brigade key` makes one", path.display());
            }
            Ok(keys)
        });
        Ok(Settings {
            keys: keys.transpose()?,
            cors_origins: self.cors_origin.clone(),
            timeout: Some(Duration::from_secs(self.request_timeout)),
        })
    }
}
