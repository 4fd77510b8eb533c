//! The cache folder: models and tools that outlive a clone.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The cache folder, by the rule that the `brigade` binary uses too. It may not exist yet.
pub(crate) fn dir() -> Result<PathBuf> {
    from_environment(|name| std::env::var_os(name), cfg!(target_os = "macos"))
        .context("no cache folder: set BRIGADE_CACHE (neither it nor HOME is set)")
}

fn from_environment(get: impl Fn(&str) -> Option<OsString>, macos: bool) -> Option<PathBuf> {
    let folder = |name: &str| get(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(own) = folder("BRIGADE_CACHE") {
        return std::path::absolute(own).ok();
    }
    // The XDG specification says to ignore a relative path.
    if let Some(xdg) = folder("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
        return Some(xdg.join("brigade"));
    }
    let caches = if macos { "Library/Caches" } else { ".cache" };
    Some(folder("HOME")?.join(caches).join("brigade"))
}

/// Makes the cache folder and holds its lock until the result is dropped, so that two tasks at once never
/// fetch the same file.
pub(crate) fn lock(cache: &Path) -> Result<File> {
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let path = cache.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!(
                "      waiting for another task that fills {}",
                cache.display()
            );
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir_with(variables: &[(&str, &str)], macos: bool) -> Option<PathBuf> {
        from_environment(
            |name| {
                variables
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| OsString::from(value))
            },
            macos,
        )
    }

    #[test]
    fn first_variable_that_is_set_wins() {
        let all = [
            ("BRIGADE_CACHE", "/b"),
            ("XDG_CACHE_HOME", "/x"),
            ("HOME", "/h"),
        ];
        assert_eq!(dir_with(&all, false), Some("/b".into()));
        assert_eq!(dir_with(&all[1..], false), Some("/x/brigade".into()));
        assert_eq!(dir_with(&all[2..], false), Some("/h/.cache/brigade".into()));
        assert_eq!(
            dir_with(&all[2..], true),
            Some("/h/Library/Caches/brigade".into())
        );
        assert_eq!(dir_with(&[], false), None);
    }

    #[test]
    fn empty_and_relative_values() {
        let odd = [
            ("BRIGADE_CACHE", ""),
            ("XDG_CACHE_HOME", "x"),
            ("HOME", "/h"),
        ];
        assert_eq!(dir_with(&odd, false), Some("/h/.cache/brigade".into()));
        assert!(
            dir_with(&[("BRIGADE_CACHE", "here")], false)
                .unwrap()
                .is_absolute()
        );
    }
}
