//! Files of a service on disk: what is there compared with what the templates give, and written.

use crate::templates::Rendered;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
pub(crate) struct FileError {
    path: PathBuf,
    source: Error,
}

impl FileError {
    fn at(path: &Path) -> impl FnOnce(Error) -> Self {
        move |source| Self { path: path.to_owned(), source }
    }
}

/// Whether the file in `folder` is there with this text, and can be run if it should.
pub(crate) fn is_current(folder: &Path, file: &Rendered) -> Result<bool, FileError> {
    let path = folder.join(&file.path);
    let found = std::fs::read(&path).and_then(|bytes| Ok((bytes, path.metadata()?.permissions().mode())));
    match found {
        Ok((bytes, mode)) => Ok(bytes == file.text.as_bytes() && (mode & 0o100 != 0) == file.is_executable),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::at(&path)(error)),
    }
}

/// Whether there is anything in its place.
pub(crate) fn is_there(folder: &Path, file: &Rendered) -> bool {
    folder.join(&file.path).symlink_metadata().is_ok()
}

/// Writes the file below `folder`, with the folders it lies in.
pub(crate) fn write(folder: &Path, file: &Rendered) -> Result<(), FileError> {
    let path = folder.join(&file.path);
    let written = || {
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(&path, &file.text)?;
        let mut permissions = path.metadata()?.permissions();
        // Whoever may read it may run it.
        let (mode, readers) = (permissions.mode() & !0o111, (permissions.mode() & 0o444) >> 2);
        permissions.set_mode(if file.is_executable { mode | readers } else { mode });
        std::fs::set_permissions(&path, permissions)
    };
    written().map_err(FileError::at(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("it is there").permissions().mode() & 0o111
    }

    #[test]
    fn a_file_is_current_when_text_and_mode_are_those_of_its_template() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |text: &str, is_executable| Rendered { path: "a/b".into(), text: text.into(), is_executable };
        let is_current = |file: &Rendered| is_current(dir.path(), file).expect("read");
        assert!(!is_current(&file("one", false)));
        write(dir.path(), &file("one", true)).expect("written");
        assert!(is_current(&file("one", true)) && mode(&dir.path().join("a/b")) & 0o100 != 0);
        assert!(!is_current(&file("two", true)) && !is_current(&file("one", false)));
        write(dir.path(), &file("one", false)).expect("written");
        assert!(is_current(&file("one", false)) && mode(&dir.path().join("a/b")) == 0);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("a"), "a file").expect("written");
        let file = Rendered { path: "a/b".into(), text: String::new(), is_executable: false };
        let error = write(dir.path(), &file).expect_err("a file is no folder");
        assert!(error.to_string().ends_with("a/b"), "{error}");
    }
}
