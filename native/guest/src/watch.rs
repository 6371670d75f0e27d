//! Watching directories by inotify. What happens in a directory between its making and the watch on it is not seen.

use crate::failure::{Failure, Outcome};
use crate::files::{self, asked_for, locate, Extras};
use crate::frame::kind;
use crate::libc;
use crate::payload::{Reader, Writer};
use crate::pipe::Pipe;
use crate::sys::{self, check, Got};
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Directories of one watch.
const MAX_DIRECTORIES: usize = 8192;
const MASK: u32 =
    libc::IN_CREATE | libc::IN_MODIFY | libc::IN_DELETE | libc::IN_MOVED_FROM | libc::IN_MOVED_TO | libc::IN_ATTRIB;

mod change {
    pub const OVERFLOW: u8 = 0;
    pub const CREATE: u8 = 1;
    pub const WRITE: u8 = 2;
    pub const REMOVE: u8 = 3;
    pub const RENAME: u8 = 4;
    pub const CHMOD: u8 = 5;
}

struct Watch {
    fd: OwnedFd,
    recursive: bool,
    directories: HashMap<i32, PathBuf>,
    /// The last file that was written beside its place and then moved there: the move's number and the last letter of its name.
    written: Option<(u32, u8)>,
}

pub fn watch(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    let user = asked_for(&mut r)?;
    let path = locate(&r.text()?, &user)?;
    let recursive = r.u8()? != 0;
    Extras::read(&mut r)?.act(&user)?;
    let fd = check(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) });
    let fd = unsafe { OwnedFd::from_raw_fd(fd.map_err(|e| Failure::io("inotify", &e))?) };
    let mut watch = Watch { fd, recursive, directories: HashMap::new(), written: None };
    watch.add(&path)?;
    if recursive {
        watch.descend(&path);
    }
    pipe.say(kind::REPLY, Vec::new());
    watch.run(pipe)
}

impl Watch {
    fn add(&mut self, path: &Path) -> Outcome<()> {
        let name = path.display().to_string();
        if self.directories.len() >= MAX_DIRECTORIES {
            return Err(Failure::new(
                "TooLarge",
                format!("{}: more than {} directories to watch", name, MAX_DIRECTORIES),
            ));
        }
        let c_path =
            CString::new(path.as_os_str().as_bytes()).map_err(|_| Failure::invalid("a NUL byte in the path"))?;
        let id = unsafe { libc::inotify_add_watch(self.fd.as_raw_fd(), c_path.as_ptr(), MASK) };
        if id < 0 {
            return Err(Failure::errno(&name, sys::errno()));
        }
        self.directories.insert(id, path.to_path_buf());
        Ok(())
    }

    /// The directories below, as far as they can be read and are not too many.
    fn descend(&mut self, path: &Path) {
        let mut pending = vec![path.to_path_buf()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_type().map_or(false, |t| t.is_dir()) && self.add(&entry.path()).is_ok() {
                    pending.push(entry.path());
                }
            }
        }
    }

    fn run(&mut self, pipe: &Pipe) -> Outcome<()> {
        let mut buffer = [0u8; 16 * 1024];
        let mut lost = false;
        loop {
            pipe.readable(self.fd.as_raw_fd())?;
            while let Got::Bytes(n) =
                sys::read(self.fd.as_raw_fd(), &mut buffer).map_err(|e| Failure::io("inotify", &e))?
            {
                let mut rest = &buffer[..n];
                while rest.len() >= 16 {
                    let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
                    let (id, mask, cookie, length) = (word(0) as i32, word(4), word(8), word(12) as usize);
                    let name = &rest[16..(16 + length).min(rest.len())];
                    let name = &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())];
                    let told = self.tell(pipe, id, mask, cookie, name);
                    lost |= !told;
                    rest = &rest[(16 + length).min(rest.len())..];
                }
            }
            if lost && pipe.event(vec![change::OVERFLOW]) {
                lost = false;
            }
        }
    }

    /// False when there was no room to tell.
    fn tell(&mut self, pipe: &Pipe, id: i32, mask: u32, cookie: u32, name: &[u8]) -> bool {
        if mask & libc::IN_Q_OVERFLOW != 0 {
            return false;
        }
        if mask & libc::IN_IGNORED != 0 {
            self.directories.remove(&id);
            return true;
        }
        let directory = match self.directories.get(&id) {
            Some(directory) => directory.clone(),
            None => return true,
        };
        // A write of ours is to be seen as one, and not as what it is made of.
        if name.starts_with(files::TEMPORARY.as_bytes()) {
            if mask & libc::IN_MOVED_FROM != 0 {
                self.written = name.last().map(|letter| (cookie, *letter));
            }
            return true;
        }
        let path = if name.is_empty() { directory } else { directory.join(OsStr::from_bytes(name)) };
        let is_new_directory = mask & libc::IN_ISDIR != 0 && mask & (libc::IN_CREATE | libc::IN_MOVED_TO) != 0;
        if self.recursive && is_new_directory && self.add(&path).is_ok() {
            self.descend(&path);
        }
        let written = self.written.filter(|(moved, _)| mask & libc::IN_MOVED_TO != 0 && *moved == cookie);
        let say = |change: u8| {
            let mut w = Writer::new();
            w.u8(change).bytes(path.as_os_str().as_bytes());
            pipe.event(w.done())
        };
        match written.map(|(_, letter)| char::from(letter)) {
            Some(files::REPLACING) => return say(change::WRITE),
            Some(files::NEW) => return say(change::CREATE) && say(change::WRITE),
            _ => {}
        }
        let change = match mask {
            m if m & (libc::IN_CREATE | libc::IN_MOVED_TO) != 0 => change::CREATE,
            m if m & libc::IN_MODIFY != 0 => change::WRITE,
            m if m & libc::IN_DELETE != 0 => change::REMOVE,
            m if m & libc::IN_MOVED_FROM != 0 => change::RENAME,
            m if m & libc::IN_ATTRIB != 0 => change::CHMOD,
            _ => return true,
        };
        say(change)
    }
}
