//! Files, with the rights of the user they are asked for. Runs on worker threads.

use crate::failure::{Failure, Outcome};
use crate::frame::kind;
use crate::libc;
use crate::payload::{Reader, Writer};
use crate::pipe::Pipe;
use crate::sys::{self, Got};
use crate::tree;
use crate::users::{self, Database, User};
use crate::worker::become_user;
use crate::xattr;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::io::AsRawFd;
use std::path::{Path, PathBuf};

/// More entries than this are not listed at once.
const MAX_ENTRIES: usize = 100_000;
/// How many symlinks a path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;
/// Begins the names of files that are being written.
pub const TEMPORARY: &str = ".icebox-";

/// The user a request is for, whose rights this thread then has.
pub fn act_as(r: &mut Reader) -> Outcome<User> {
    let user = asked_for(r)?;
    become_user(&user)?;
    Ok(user)
}

/// The user a request is for.
pub fn asked_for(r: &mut Reader) -> Outcome<User> {
    let wanted = r.text()?;
    users::resolve(if wanted.is_empty() { "root" } else { &wanted })
}

/// What a request may ask for beyond its operation's own fields.
#[derive(Default)]
pub struct Extras {
    /// Done with root's rights; what is made belongs to the user.
    privileged: bool,
    /// Records tell extended attributes whose names begin so, and where symlinks lead.
    attributes: Option<String>,
}

impl Extras {
    /// The last fields of a request. Older hosts do not send them.
    pub fn read(r: &mut Reader) -> Outcome<Extras> {
        if r.is_empty() {
            return Ok(Extras::default());
        }
        Ok(Extras { privileged: r.u8()? != 0, attributes: r.option(|r| r.text())? })
    }

    /// Gives this thread the rights that the request is done with.
    pub fn act(&self, user: &User) -> Outcome<()> {
        if self.privileged {
            Ok(())
        } else {
            become_user(user)
        }
    }

    /// Whom what is made has to be given to.
    fn owner<'a>(&self, user: &'a User) -> Option<&'a User> {
        Some(user).filter(|user| self.privileged && (user.uid, user.gid) != (0, 0))
    }
}

fn give(path: &Path, owner: Option<&User>) -> Outcome<()> {
    if let Some(owner) = owner {
        let c_path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Failure::invalid("a NUL byte"))?;
        if unsafe { libc::lchown(c_path.as_ptr(), owner.uid, owner.gid) } != 0 {
            return Err(at(path)(io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// An absolute path; a relative one starts at the user's home.
pub fn locate(path: &str, user: &User) -> Outcome<PathBuf> {
    if path.is_empty() {
        return Err(Failure::invalid("the path is empty"));
    }
    Ok(Path::new("/").join(&user.home).join(path).components().collect())
}

pub fn at(path: &Path) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| Failure::io(&path.to_string_lossy(), &error)
}

/// What is told of a file.
struct Entry<'a> {
    path: &'a Path,
    kind: u8,
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    owner: String,
    group: String,
    /// Nanoseconds since the epoch.
    modified: i64,
    target: Option<PathBuf>,
}

impl Entry<'_> {
    fn encode(&self, w: &mut Writer) {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        w.bytes(self.path.as_os_str().as_bytes()).bytes(name.as_bytes()).u8(self.kind).u64(self.size);
        w.u32(self.mode).u32(self.uid).u32(self.gid).text(&self.owner).text(&self.group).i64(self.modified);
        match &self.target {
            Some(target) => w.u8(1).bytes(target.as_os_str().as_bytes()),
            None => w.u8(0),
        };
    }
}

fn kind_of(meta: &Metadata) -> u8 {
    let kind = meta.file_type();
    let kinds = [kind.is_file(), kind.is_dir(), kind.is_symlink(), kind.is_fifo(), kind.is_socket()];
    kinds.iter().position(|is| *is).unwrap_or(kinds.len()) as u8
}

fn describe(w: &mut Writer, path: &Path, meta: &Metadata, names: &Database, extras: &Extras) {
    Entry {
        path,
        kind: kind_of(meta),
        size: meta.len(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        owner: names.user(meta.uid()),
        group: names.group(meta.gid()),
        modified: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
        target: if meta.is_symlink() { fs::read_link(path).ok() } else { None },
    }
    .encode(w);
    if let Some(prefix) = &extras.attributes {
        let led = if meta.is_symlink() { fs::canonicalize(path).ok() } else { None };
        match led.and_then(|led| fs::metadata(&led).ok().map(|meta| (led, meta))) {
            Some((led, meta)) => w.u8(1).bytes(led.as_os_str().as_bytes()).u8(kind_of(&meta)).u32(meta.mode() & 0o7777),
            None => w.u8(0),
        };
        let attributes = xattr::get(path, prefix);
        w.u32(attributes.len() as u32);
        for (name, value) in &attributes {
            w.text(name).bytes(value);
        }
    }
}

fn described(path: &Path, extras: &Extras) -> Outcome<Vec<u8>> {
    let meta = fs::symlink_metadata(path).map_err(at(path))?;
    let mut w = Writer::new();
    describe(&mut w, path, &meta, &Database::read(), extras);
    Ok(w.done())
}

pub fn read(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    let user = asked_for(&mut r)?;
    let path = locate(&r.text()?, &user)?;
    let (offset, length) = (r.u64()?, r.option(|r| r.u64())?);
    let extras = Extras::read(&mut r)?;
    extras.act(&user)?;
    // Never waits, whatever stands there.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).map_err(at(&path))?;
    let meta = file.metadata().map_err(at(&path))?;
    if !meta.is_file() {
        return Err(Failure::invalid(format!("{}: not a regular file", path.display())));
    }
    let mut w = Writer::new();
    describe(&mut w, &path, &meta, &Database::read(), &extras);
    pipe.say(kind::REPLY, w.done());
    if offset > 0 {
        file.seek(SeekFrom::Start(offset)).map_err(at(&path))?;
    }
    let mut left = length.unwrap_or(u64::MAX);
    let mut buffer = vec![0u8; crate::frame::MAX_PAYLOAD];
    while left > 0 {
        let n = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match sys::read(file.as_raw_fd(), &mut buffer[..n]).map_err(at(&path))? {
            Got::Bytes(n) => {
                pipe.data(&buffer[..n])?;
                left -= n as u64;
            }
            Got::End | Got::Later => break,
        }
    }
    pipe.say(kind::END, Vec::new());
    Ok(())
}

/// A name beside `path` that nobody has: 64 random bits. Its last letter tells those who watch what takes its place.
pub fn beside(path: &Path, letter: char) -> PathBuf {
    let mut random = [0u8; 8];
    unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    path.with_file_name(format!("{}{:016x}{}", TEMPORARY, u64::from_ne_bytes(random), letter))
}

/// Last letters of temporary names: a new file, one that replaces another, a copy that is moved.
pub const NEW: char = 'n';
pub const REPLACING: char = 'r';
pub const COPIED: char = 'c';

/// Where a write to `path` goes: through its symlinks, as opening it would.
fn followed(path: PathBuf) -> Outcome<PathBuf> {
    let mut path = path;
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or_else(|| Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(Failure::errno(&path.to_string_lossy(), libc::ELOOP))
}

fn make_parents(path: &Path, owner: Option<&User>) -> Outcome<()> {
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|parent| fs::metadata(parent).is_err()).collect();
    if let Some(parent) = missing.first() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(at(parent))?;
    }
    missing.iter().try_for_each(|made| give(made, owner))
}

/// Removes the file unless it was put in its place.
struct Unfinished(PathBuf, bool);
impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.1 {
            let _ = fs::remove_file(&self.0);
        }
    }
}

pub fn write(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    let user = asked_for(&mut r)?;
    let asked = locate(&r.text()?, &user)?;
    let mode = r.option(|r| r.u32())?;
    let extras = Extras::read(&mut r)?;
    let attributes = if r.is_empty() { Vec::new() } else { r.list(|r| Ok((r.text()?, r.bytes()?)))? };
    extras.act(&user)?;
    let owner = extras.owner(&user);
    let path = followed(asked)?;
    make_parents(&path, owner)?;
    // Who may not write the file may not replace it either; and only a regular file is replaced.
    let existing = match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path) {
        Ok(file) => Some(file.metadata().map_err(at(&path))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(at(&path)(error)),
    };
    if existing.as_ref().map_or(false, |m| !m.is_file()) {
        return Err(Failure::invalid(format!("{}: not a regular file", path.display())));
    }
    let temporary = beside(&path, if existing.is_some() { REPLACING } else { NEW });
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(at(&path))?;
    let mut unfinished = Unfinished(temporary, false);
    while let Some(bytes) = pipe.receive()? {
        file.write_all(&bytes).map_err(at(&path))?;
    }
    if extras.privileged {
        if unsafe { libc::fchown(file.as_raw_fd(), user.uid, user.gid) } != 0 {
            return Err(at(&path)(io::Error::last_os_error()));
        }
    } else if let Some(meta) = &existing {
        // Only root can give files away: another's file becomes the writer's.
        unsafe { libc::fchown(file.as_raw_fd(), meta.uid(), meta.gid()) };
    }
    for (name, value) in attributes {
        xattr::set(&unfinished.0, &name, value).map_err(at(&path))?;
    }
    let mode = mode.unwrap_or_else(|| existing.map_or(0o644, |m| m.mode() & 0o7777));
    file.set_permissions(Permissions::from_mode(mode)).map_err(at(&path))?;
    drop(file);
    fs::rename(&unfinished.0, &path).map_err(at(&path))?;
    unfinished.1 = true;
    pipe.say(kind::REPLY, described(&path, &extras)?);
    Ok(())
}

pub fn stat(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    let user = asked_for(&mut r)?;
    let path = locate(&r.text()?, &user)?;
    let extras = Extras::read(&mut r)?;
    extras.act(&user)?;
    pipe.say(kind::REPLY, described(&path, &extras)?);
    Ok(())
}

pub fn list(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    let user = asked_for(&mut r)?;
    let path = locate(&r.text()?, &user)?;
    let depth = r.u32()?;
    let extras = Extras::read(&mut r)?;
    extras.act(&user)?;
    let names = Database::read();
    let mut entries = 0;
    let mut pending = vec![(fs::read_dir(&path).map_err(at(&path))?, 1)];
    // Records have no end of their own: the host must know which these are.
    pipe.say(kind::REPLY, vec![u8::from(extras.attributes.is_some())]);
    let mut w = Writer::new();
    while let Some((directory, level)) = pending.last_mut() {
        let level = *level;
        let entry = match directory.next() {
            Some(Ok(entry)) => entry,
            _ => {
                pending.pop();
                continue;
            }
        };
        let entry = entry.path();
        // What has gone since, or may not be seen, is left out.
        let meta = match fs::symlink_metadata(&entry) {
            Ok(meta) => meta,
            Err(_) => continue,
        };
        entries += 1;
        if entries > MAX_ENTRIES {
            let message = format!("{}: more than {} entries", path.display(), MAX_ENTRIES);
            return Err(Failure::new("TooLarge", message));
        }
        describe(&mut w, &entry, &meta, &names, &extras);
        if w.bytes.len() >= 16 * 1024 {
            pipe.data(&w.done())?;
        }
        if meta.is_dir() && level < depth {
            if let Ok(directory) = fs::read_dir(&entry) {
                pending.push((directory, level + 1));
            }
        }
    }
    pipe.data(&w.done())?;
    pipe.say(kind::END, Vec::new());
    Ok(())
}

pub fn make_directory(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    let user = asked_for(&mut r)?;
    let path = locate(&r.text()?, &user)?;
    let mode = r.option(|r| r.u32())?;
    let extras = Extras::read(&mut r)?;
    extras.act(&user)?;
    let owner = extras.owner(&user);
    let made = match fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => false,
        Ok(_) => return Err(Failure::errno(&path.to_string_lossy(), libc::EEXIST)),
        Err(_) => {
            make_parents(&path, owner)?;
            DirBuilder::new().mode(0o755).create(&path).map_err(at(&path))?;
            give(&path, owner)?;
            if let Some(mode) = mode {
                fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(at(&path))?;
            }
            true
        }
    };
    pipe.say(kind::REPLY, vec![u8::from(made)]);
    Ok(())
}

pub fn rename(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    let user = asked_for(&mut r)?;
    let from = locate(&r.text()?, &user)?;
    let to = locate(&r.text()?, &user)?;
    let extras = Extras::read(&mut r)?;
    extras.act(&user)?;
    make_parents(&to, extras.owner(&user))?;
    match fs::rename(&from, &to) {
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
            // Another file system: a copy beside the target takes its place at once, then the source goes.
            let copy = beside(&to, COPIED);
            let copied = tree::copy(pipe, &from, &copy).and_then(|()| fs::rename(&copy, &to).map_err(at(&to)));
            if let Err(failure) = copied {
                let _ = tree::remove(None, &copy);
                return Err(failure);
            }
            tree::remove(Some(pipe), &from)?;
        }
        Err(error) => {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let subject =
                if missing { from.display().to_string() } else { format!("{} to {}", from.display(), to.display()) };
            return Err(Failure::io(&subject, &error));
        }
        Ok(()) => {}
    }
    pipe.say(kind::REPLY, described(&to, &extras)?);
    Ok(())
}

pub fn symlink(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    let user = act_as(&mut r)?;
    let path = locate(&r.text()?, &user)?;
    let target = r.text()?;
    make_parents(&path, None)?;
    std::os::unix::fs::symlink(target, &path).map_err(at(&path))?;
    pipe.say(kind::REPLY, described(&path, &Extras::default())?);
    Ok(())
}

/// An extended attribute of exactly this path, which need not be UTF-8; a symlink is not followed.
pub fn set_xattr(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    act_as(&mut r)?;
    let path = Path::new(OsStr::from_bytes(r.bytes()?)).to_path_buf();
    let name = r.text()?;
    let value = r.bytes()?;
    xattr::set(&path, &name, value).map_err(at(&path))?;
    pipe.say(kind::REPLY, Vec::new());
    Ok(())
}

pub fn remove(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    let user = asked_for(&mut r)?;
    let path = locate(&r.text()?, &user)?;
    Extras::read(&mut r)?.act(&user)?;
    tree::remove(Some(pipe), &path)?;
    pipe.say(kind::REPLY, Vec::new());
    Ok(())
}

pub fn set_attributes(pipe: &Pipe, body: &[u8]) -> Outcome<()> {
    let mut r = Reader::new(body);
    let user = act_as(&mut r)?;
    let path = locate(&r.text()?, &user)?;
    let mode = r.option(|r| r.u32())?;
    if let Some(owner) = r.option(|r| r.text())? {
        let wanted = users::resolve(&owner)?;
        // As chown does: without a group, the group stays.
        let gid = if owner.contains(':') { wanted.gid } else { u32::MAX };
        let c_path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Failure::invalid("a NUL byte"))?;
        if unsafe { libc::chown(c_path.as_ptr(), wanted.uid, gid) } != 0 {
            return Err(at(&path)(io::Error::last_os_error()));
        }
    }
    if let Some(mode) = mode {
        fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(at(&path))?;
    }
    pipe.say(kind::REPLY, described(&path, &Extras::default())?);
    Ok(())
}

/// Copies a regular file's bytes, mode, owner and time.
pub fn copy_file(pipe: &Pipe, from: &Path, to: &Path) -> Outcome<()> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let mut source = OpenOptions::new().read(true).custom_flags(flags).open(from).map_err(at(from))?;
    let meta = source.metadata().map_err(at(from))?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(at(to))?;
    let mut buffer = vec![0u8; 128 * 1024];
    loop {
        pipe.step()?;
        match source.read(&mut buffer).map_err(at(from))? {
            0 => break,
            n => target.write_all(&buffer[..n]).map_err(at(to))?,
        }
    }
    keep_attributes(&target, &meta);
    Ok(())
}

/// As far as the user may.
pub fn keep_attributes(file: &File, meta: &Metadata) {
    let time = |s: i64, n: i64| libc::timespec { tv_sec: s, tv_nsec: n };
    let times = [time(meta.atime(), meta.atime_nsec()), time(meta.mtime(), meta.mtime_nsec())];
    unsafe {
        libc::fchown(file.as_raw_fd(), meta.uid(), meta.gid());
        libc::fchmod(file.as_raw_fd(), meta.mode() & 0o7777);
        libc::futimens(file.as_raw_fd(), times.as_ptr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use std::ffi::OsStr;

    #[test]
    fn entries_are_written_as_agreed() {
        let entry = Entry {
            path: Path::new(OsStr::from_bytes(b"/a/\xff")),
            kind: 2,
            size: 3,
            mode: 0o777,
            uid: 1,
            gid: 2,
            owner: "u".to_string(),
            group: "2".to_string(),
            modified: -500_000_000,
            target: Some(PathBuf::from("to")),
        };
        let mut w = Writer::new();
        entry.encode(&mut w);
        assert_eq!(w.done(), golden::frame("file-info").payload);
    }
}
