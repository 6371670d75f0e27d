//! HELLO: who this guest is from now on, what time it is, and randomness that no other guest has.

use crate::failure::{Failure, Outcome};
use crate::libc;
use crate::payload::{Malformed, Reader};
use crate::sys;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

pub struct Hello {
    pub time: u64,
    pub entropy: Vec<u8>,
    pub hostname: String,
    pub machine_id: String,
    pub env: Vec<(String, String)>,
    pub user: String,
    pub cwd: String,
}

impl Hello {
    pub fn read(r: &mut Reader) -> Result<Hello, Malformed> {
        Ok(Hello {
            time: r.u64()?,
            entropy: r.take(32)?.to_vec(),
            hostname: r.text()?,
            machine_id: r.text()?,
            env: r.list(|r| Ok((r.text()?, r.text()?)))?,
            user: r.text()?,
            cwd: r.text()?,
        })
    }
}

/// A clock further off than this is set, nanoseconds.
const CLOCK_TOLERANCE: u64 = 100_000_000;
/// Marks our line in /etc/hosts.
const MARK: &str = "# icebox";

/// Makes the identity true. An agent that is not PID 1 runs on somebody's machine and leaves that as it is.
pub fn assume(hello: &Hello) -> Outcome<()> {
    if std::process::id() != 1 {
        return Ok(());
    }
    set_clock(hello.time);
    mix_in(&hello.entropy);
    let name = hello.hostname.as_bytes();
    if unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } != 0 {
        return Err(Failure::errno("sethostname", sys::errno()));
    }
    let wanted = |e: io::Error, path: &str| Failure::io(path, &e);
    replace("/etc/machine-id", &format!("{}\n", hello.machine_id), 0o444).map_err(|e| wanted(e, "/etc/machine-id"))?;
    // Without these two the sandbox works, only less nicely: no reason to lose it.
    let hosts = sys::read_small("/etc/hosts", 1 << 20).unwrap_or_default();
    let hosts = hosts_with(&String::from_utf8_lossy(&hosts), &hello.hostname);
    for (path, contents) in [("/etc/hostname", format!("{}\n", hello.hostname)), ("/etc/hosts", hosts)] {
        if let Err(error) = replace(path, &contents, 0o644) {
            sys::log(format_args!("{}: {}", path, error));
        }
    }
    Ok(())
}

fn set_clock(time: u64) {
    if time.abs_diff(sys::realtime()) > CLOCK_TOLERANCE {
        let t = libc::timespec { tv_sec: (time / 1_000_000_000) as i64, tv_nsec: (time % 1_000_000_000) as i64 };
        if unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &t) } != 0 {
            sys::log(format_args!("the clock is off and cannot be set: {}", io::Error::last_os_error()));
        }
    }
}

fn mix_in(entropy: &[u8]) {
    #[repr(C)]
    struct PoolInfo {
        entropy_count: libc::c_int,
        buf_size: libc::c_int,
        buf: [u8; 32],
    }
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    if let Ok(mut device) = fs::OpenOptions::new().write(true).open("/dev/urandom") {
        use std::os::unix::io::AsRawFd;
        let mut info = PoolInfo { entropy_count: 256, buf_size: 32, buf: [0; 32] };
        info.buf.copy_from_slice(entropy);
        unsafe {
            // Credited and used at once where the kernel allows it; mixed in by plain writing where it does not.
            if libc::ioctl(device.as_raw_fd(), RNDADDENTROPY as _, &info) != 0 {
                let _ = device.write_all(entropy);
            }
            libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG as _);
        }
    }
}

/// Gives a file these contents. By rename; in place when there is no room for a second file, since a full disk must not make a
/// sandbox impossible to resume.
fn replace(path: &str, contents: &str, mode: u32) -> io::Result<()> {
    if sys::read_small(path, contents.len() + 1).map_or(false, |now| now == contents.as_bytes()) {
        return Ok(());
    }
    let temporary = format!("{}.icebox", path);
    let by_rename = || {
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(contents.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        fs::rename(&temporary, path)
    };
    by_rename().or_else(|error| {
        let _ = fs::remove_file(&temporary);
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let mut file = fs::OpenOptions::new().write(true).custom_flags(flags).open(path).map_err(|_| error)?;
        file.write_all(contents.as_bytes())?;
        file.set_len(contents.len() as u64)
    })
}

/// /etc/hosts in which the host name is found, so that sudo and others need not ask anybody.
fn hosts_with(hosts: &str, hostname: &str) -> String {
    let mut lines: Vec<String> = hosts.lines().filter(|l| !l.ends_with(MARK)).map(str::to_string).collect();
    let names_localhost = |l: &String| l.split_whitespace().skip(1).any(|n| n == "localhost");
    if !lines.iter().any(names_localhost) {
        lines.insert(0, "127.0.0.1\tlocalhost".to_string());
        lines.insert(1, "::1\tlocalhost".to_string());
    }
    lines.push(format!("127.0.1.1\t{} {}", hostname, MARK));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::{hosts_with, Hello};
    use crate::golden;
    use crate::payload::Reader;

    #[test]
    fn hello_is_read_as_agreed() {
        let frame = golden::frame("hello");
        let mut r = Reader::new(&frame.payload);
        assert_eq!((r.u8(), r.u32()), (Ok(1), Ok(262_144)));
        let hello = Hello::read(&mut r).expect("hello");
        assert_eq!((hello.time, hello.entropy), (1_790_000_000_123_000_000, vec![0xab; 32]));
        assert_eq!(
            (hello.hostname.as_str(), hello.machine_id.as_str()),
            ("guesttest", "0123456789abcdef0123456789abcdef")
        );
        let env = [("A", "1"), ("B", "é")].map(|(k, v)| (k.to_string(), v.to_string()));
        assert_eq!((hello.env, hello.user.as_str(), hello.cwd.as_str()), (env.to_vec(), "root", ""));
    }

    #[test]
    fn hosts_names_this_host_once() {
        let first = hosts_with("", "one");
        assert_eq!(first, "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\tone # icebox\n");
        let own = "10.0.0.1\tdb\n127.0.0.1 localhost\n";
        assert_eq!(hosts_with(&hosts_with(own, "one"), "two"), format!("{}127.0.1.1\ttwo # icebox\n", own));
    }
}
