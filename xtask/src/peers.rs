//! Brigade beside what people use instead, in one table of the README.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::host::{cpu_name, output_of, root};
use crate::{compile, models};

/// The table stands between these.
const BEGIN: &str = "<!-- cargo xtask peers -->\n";
const END: &str = "<!-- end -->\n";

/// Where the table goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    Print,
    Readme,
}

pub(crate) fn run(goal: Goal) -> Result<()> {
    let binary = compile::release()?;
    let model = models::demo()?;
    let output = Command::new(binary)
        .arg("bench")
        .arg(&model)
        // Eight of each, in some eighteen minutes.
        .args(["--peers", "--rounds", "4", "--pairs", "2"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run brigade")?;
    if !output.status.success() {
        bail!("`brigade bench --peers` failed ({})", output.status);
    }
    let table = String::from_utf8(output.stdout).context("the table is not UTF-8")?;
    let model = model.file_stem().unwrap_or_default().to_string_lossy();
    let text = format!(
        "Tokens a second, {model}, two pinned cores ({}), {}; medians, and of ratios lowest to highest:\n\n{table}",
        cpu_name(),
        output_of("date", &["+%Y-%m-%d"]).context("there is no `date`")?,
    );
    match goal {
        Goal::Print => print!("{text}"),
        Goal::Readme => {
            let path = root().join("README.md");
            let readme = fs::read_to_string(&path)?;
            fs::write(&path, replaced(&readme, &text)?)?;
        }
    }
    Ok(())
}

/// `readme` with `text` as its table.
fn replaced(readme: &str, text: &str) -> Result<String> {
    let marks = readme
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = marks.with_context(|| {
        format!(
            "README.md has no place for the table: {} … {}",
            BEGIN.trim_end(),
            END.trim_end()
        )
    })?;
    Ok(format!("{before}{BEGIN}{text}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_table_changes() {
        let readme = format!("a\n{BEGIN}old\n{END}b\n");
        let new = replaced(&readme, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}new\n{END}b\n"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert!(replaced("a\n", "new\n").is_err());
    }
}
