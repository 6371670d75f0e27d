//! Pseudo terminals.

use crate::libc;
use crate::sys::{self, check};
use std::io;
use std::os::unix::io::{AsRawFd, OwnedFd, RawFd};

/// What a terminal in its usual mode takes for the end of input.
pub const END_OF_FILE: u8 = 4;

/// A terminal of this size that belongs to the user: (master, slave).
pub fn open(cols: u16, rows: u16, uid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = sys::open("/dev/ptmx", flags)?;
    let mut number: libc::c_int = 0;
    let unlocked: libc::c_int = 0;
    unsafe {
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlocked))?;
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &mut number))?;
    }
    let slave = sys::open(&format!("/dev/pts/{}", number), flags)?;
    // Not every kernel lets a terminal change hands; the open descriptors work all the same.
    unsafe { libc::fchown(slave.as_raw_fd(), uid, u32::MAX) };
    resize(master.as_raw_fd(), cols, rows)?;
    Ok((master, slave))
}

pub fn resize(master: RawFd, cols: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    check(unsafe { libc::ioctl(master, libc::TIOCSWINSZ, &size) }).map(|_| ())
}
