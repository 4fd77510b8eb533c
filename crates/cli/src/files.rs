//! Files that somebody names: read only if they are files, written wholly or not at all.

use std::fs::{self, File, FileType};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// How many links to a file that is not there yet are followed.
const MAX_LINKS: u32 = 40;

/// A file's text, unless it is longer than it can be meant to be.
pub(crate) fn read_text(path: &Path, most_bytes: u64) -> io::Result<String> {
    // Asked before opening, because to open a pipe waits for its writer.
    let kind = fs::metadata(path)?.file_type();
    if !kind.is_file() {
        let reason = format!("it is {}, not a file", kind_name(kind));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let mut text = String::new();
    let read = File::open(path)?
        .take(most_bytes + 1)
        .read_to_string(&mut text)?;
    if read as u64 > most_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// What lies at a path, if something other than a file does: `a folder`.
pub(crate) fn other_than_file(path: &Path) -> Option<&'static str> {
    let kind = fs::metadata(path).ok()?.file_type();
    (!kind.is_file()).then(|| kind_name(kind))
}

fn kind_name(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_dir() {
        "a folder"
    } else if kind.is_file() {
        "a file"
    } else {
        "something else"
    }
}

/// Writes a file that is there wholly or not at all. Links are followed; pipes and devices are
/// written to.
pub(crate) fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    match fs::metadata(path) {
        Ok(old) if old.is_file() => {
            let path = fs::canonicalize(path).with_context(cannot)?;
            replace(&path, Some(&old), text).with_context(cannot)
        }
        Ok(old) if old.is_dir() => bail!("{}: it is a folder: name a file", cannot()),
        Ok(_) => {
            let file = File::options().write(true).open(path);
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .with_context(cannot)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            replace(&end_of_links(path), None, text).with_context(cannot)
        }
        Err(error) => Err(error).with_context(cannot),
    }
}

/// Where links lead to, though no file is there.
fn end_of_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(to) = fs::read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    path
}

/// Puts a file in the place of another, or where none is.
fn replace(path: &Path, old: Option<&fs::Metadata>, text: &str) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    // Whom others may read it is left to the umask, as of any file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    if old.is_some() {
        // What may not be written may not be replaced either.
        File::options().write(true).open(path)?;
    }
    let mut file = builder.prefix(".brigade-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    if let Some(old) = old {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        write_file(&path, "one").unwrap();
        write_file(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = folder.path().join("no/page.html");
        assert!(write_file(&missing, "").is_err());
    }

    #[test]
    fn a_folder_is_neither_read_nor_written() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", write_file(folder.path(), "page").unwrap_err());
        assert!(error.ends_with("it is a folder: name a file"), "{error}");
        let error = read_text(folder.path(), 100).unwrap_err().to_string();
        assert_eq!(error, "it is a folder, not a file");
        assert_eq!(other_than_file(folder.path()), Some("a folder"));
        assert_eq!(other_than_file(&folder.path().join("no")), None);
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{PermissionsExt, symlink};
        use std::process::Command;

        use super::*;

        #[test]
        fn links_stay_and_what_they_name_is_replaced() {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::create_dir(at("real")).unwrap();
            fs::write(at("real/page.html"), "one").unwrap();
            symlink("real/page.html", at("link")).unwrap();
            symlink("link", at("second")).unwrap();
            symlink("real/new.html", at("dangling")).unwrap();
            symlink("loop", at("loop")).unwrap();
            write_file(&at("second"), "two").unwrap();
            write_file(&at("dangling"), "new").unwrap();
            assert_eq!(fs::read_to_string(at("real/page.html")).unwrap(), "two");
            assert_eq!(fs::read_to_string(at("real/new.html")).unwrap(), "new");
            for link in ["link", "second", "dangling"] {
                assert!(at(link).is_symlink(), "{link}");
            }
            assert!(write_file(&at("loop"), "").is_err());
            assert!(at("loop").is_symlink());
        }

        #[test]
        fn the_mode_stays() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("page.html");
            fs::write(&path, "one").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
            write_file(&path, "two").unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o640);
        }

        #[test]
        fn a_pipe_is_written_to_and_not_read() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("pipe");
            assert!(
                Command::new("mkfifo")
                    .arg(&path)
                    .status()
                    .unwrap()
                    .success()
            );
            let error = read_text(&path, 100).unwrap_err().to_string();
            assert_eq!(error, "it is a pipe, not a file");
            let reader = std::thread::spawn({
                let path = path.clone();
                move || fs::read_to_string(path).unwrap()
            });
            write_file(&path, "page").unwrap();
            assert_eq!(reader.join().unwrap(), "page");
            assert_eq!(other_than_file(&path), Some("a pipe"));
        }
    }
}
