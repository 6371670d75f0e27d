//! Whole directory trees. Without recursion: a hostile depth must not overflow a stack.

use crate::failure::{Failure, Outcome};
use crate::files::{at, copy_file, keep_attributes};
use crate::libc;
use crate::pipe::Pipe;
use crate::sys;
use std::ffi::{CStr, CString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::io::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

struct Level {
    directory: OwnedFd,
    name: CString,
    entries: Vec<CString>,
}

fn enter(parent: RawFd, name: CString) -> io::Result<Level> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    unsafe {
        let directory = OwnedFd::from_raw_fd(sys::check(libc::openat(parent, name.as_ptr(), flags))?);
        // A second descriptor for reading: closedir closes its own.
        let copy = OwnedFd::from_raw_fd(sys::check(libc::fcntl(directory.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3))?);
        let stream = libc::fdopendir(copy.as_raw_fd());
        if stream.is_null() {
            return Err(io::Error::last_os_error());
        }
        let _ = copy.into_raw_fd();
        let mut entries = Vec::new();
        loop {
            let entry = libc::readdir(stream);
            if entry.is_null() {
                break;
            }
            let name = CStr::from_ptr((*entry).d_name.as_ptr());
            if name.to_bytes() != b"." && name.to_bytes() != b".." {
                entries.push(name.to_owned());
            }
        }
        libc::closedir(stream);
        Ok(Level { directory, name, entries })
    }
}

/// Removes what is there, a directory with all it holds. Symlinks are removed, not followed, whoever exchanges them meanwhile.
pub fn remove(pipe: Option<&Pipe>, path: &Path) -> Outcome<()> {
    let meta = fs::symlink_metadata(path).map_err(at(path))?;
    if !meta.is_dir() {
        return fs::remove_file(path).map_err(at(path));
    }
    let root = CString::new(path.as_os_str().as_bytes()).map_err(|_| Failure::invalid("a NUL byte"))?;
    let mut levels = vec![enter(libc::AT_FDCWD, root).map_err(at(path))?];
    while let Some(level) = levels.last_mut() {
        if let Some(pipe) = pipe {
            pipe.step()?;
        }
        let within = level.directory.as_raw_fd();
        if let Some(name) = level.entries.pop() {
            if unsafe { libc::unlinkat(within, name.as_ptr(), 0) } != 0 {
                match sys::errno() {
                    libc::ENOENT => {}
                    libc::EISDIR => levels.push(enter(within, name).map_err(at(path))?),
                    errno => return Err(Failure::errno(&below(path, &levels, &name), errno)),
                }
            }
            continue;
        }
        if let Some(done) = levels.pop() {
            let parent = levels.last().map_or(libc::AT_FDCWD, |l| l.directory.as_raw_fd());
            if unsafe { libc::unlinkat(parent, done.name.as_ptr(), libc::AT_REMOVEDIR) } != 0 {
                let errno = sys::errno();
                if errno != libc::ENOENT {
                    return Err(Failure::errno(&below(path, &levels, &done.name), errno));
                }
            }
        }
    }
    Ok(())
}

fn below(path: &Path, levels: &[Level], name: &CStr) -> String {
    let mut text = path.to_string_lossy().into_owned();
    for part in levels.iter().skip(1).map(|l| l.name.as_c_str()).chain([name]) {
        text = format!("{}/{}", text, part.to_string_lossy());
    }
    text
}

/// Copies files, directories and symlinks with modes, owners and times, as far as the user may.
pub fn copy(pipe: &Pipe, from: &Path, to: &Path) -> Outcome<()> {
    let mut pending = vec![(from.to_path_buf(), to.to_path_buf())];
    let mut directories = Vec::new();
    while let Some((from, to)) = pending.pop() {
        pipe.step()?;
        let meta = fs::symlink_metadata(&from).map_err(at(&from))?;
        if meta.is_dir() {
            DirBuilder::new().mode(0o700).create(&to).map_err(at(&to))?;
            for entry in fs::read_dir(&from).map_err(at(&from))? {
                let name = entry.map_err(at(&from))?.file_name();
                pending.push((from.join(&name), to.join(&name)));
            }
            directories.push((to, meta));
        } else if meta.file_type().is_symlink() {
            let target = fs::read_link(&from).map_err(at(&from))?;
            std::os::unix::fs::symlink(target, &to).map_err(at(&to))?;
        } else if meta.is_file() {
            copy_file(pipe, &from, &to)?;
        } else {
            return Err(Failure::invalid(format!(
                "{}: only files, directories and symlinks move between file systems",
                from.display()
            )));
        }
    }
    // Children first: a directory may be one that not even its owner writes to.
    for (path, meta) in directories.iter().rev() {
        if let Ok(directory) = File::open(path) {
            keep_attributes(&directory, meta);
        }
    }
    Ok(())
}
