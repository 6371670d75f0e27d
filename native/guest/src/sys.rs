//! The system calls that std does not offer, as small functions.

use crate::libc;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

pub fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub fn log(message: std::fmt::Arguments) {
    let line = format!("icebox guest: {}\n", message);
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

pub fn set_nonblocking(fd: RawFd) {
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        if flags >= 0 && flags & libc::O_NONBLOCK == 0 {
            libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK);
        }
    }
}

/// Of a descriptor that was made here and has no other flags.
pub fn set_only_nonblocking(fd: RawFd) {
    unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) };
}

/// A pipe closed on exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

pub fn open(path: &str, flags: libc::c_int) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(path)?;
    let fd = check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })?;
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What one try to read gave.
pub enum Got {
    Bytes(usize),
    End,
    Later,
}

pub fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<Got> {
    got(|| unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Fills the pieces one after the other.
pub fn read_pieces<'a>(fd: RawFd, pieces: impl Iterator<Item = &'a mut [MaybeUninit<u8>]>) -> io::Result<Got> {
    let pieces: Vec<libc::iovec> =
        pieces.map(|piece| libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece.len() }).collect();
    got(|| unsafe { libc::readv(fd, pieces.as_ptr(), pieces.len() as libc::c_int) })
}

fn got(mut read: impl FnMut() -> isize) -> io::Result<Got> {
    loop {
        let n = read();
        if n > 0 {
            return Ok(Got::Bytes(n as usize));
        }
        if n == 0 {
            return Ok(Got::End);
        }
        match errno() {
            libc::EINTR => continue,
            libc::EAGAIN => return Ok(Got::Later),
            other => return Err(io::Error::from_raw_os_error(other)),
        }
    }
}

/// Bytes written; 0 when the other side has no room now.
pub fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        if n >= 0 {
            return Ok(n as usize);
        }
        match errno() {
            libc::EINTR => continue,
            libc::EAGAIN => return Ok(0),
            other => return Err(io::Error::from_raw_os_error(other)),
        }
    }
}

/// Wakes a poll from another thread.
pub struct Waker {
    fd: OwnedFd,
}

impl Waker {
    pub fn new() -> io::Result<Waker> {
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        Ok(Waker { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        let _ = write(self.fd(), &one);
    }
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        let _ = read(self.fd(), &mut count);
    }
}

/// Nanoseconds since the epoch.
pub fn realtime() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// A small file's contents. Never waits, whatever stands at the path: FIFOs and devices are refused.
pub fn read_small(path: &str, max: usize) -> io::Result<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut contents = Vec::new();
    file.take(max as u64).read_to_end(&mut contents)?;
    Ok(contents)
}
