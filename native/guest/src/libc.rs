//! The part of the C library that the agent uses, as x86_64 Linux and glibc have it. std links that library anyway; declaring
//! these few by hand spares the build a registry, so that a distribution's compiler alone is enough.
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case)]

pub use std::ffi::c_void;
pub use std::os::raw::{c_char, c_int, c_long, c_short, c_uint, c_ulong};
use std::os::raw::{c_uchar, c_ushort};

pub type pid_t = c_int;
pub type nfds_t = c_ulong;
type size_t = usize;
type ssize_t = isize;
type mode_t = c_uint;
type socklen_t = c_uint;

pub const AF_INET: c_int = 2;
pub const AF_INET6: c_int = 10;
pub const AT_FDCWD: c_int = -100;
pub const AT_REMOVEDIR: c_int = 0x200;
pub const CLOCK_REALTIME: c_int = 0;
pub const CLONE_VFORK: c_int = 0x4000;
pub const CLONE_VM: c_int = 0x100;
pub const EFD_CLOEXEC: c_int = O_CLOEXEC;
pub const EFD_NONBLOCK: c_int = O_NONBLOCK;
pub const F_DUPFD_CLOEXEC: c_int = 1030;
pub const F_GETFL: c_int = 3;
pub const F_SETFL: c_int = 4;
pub const IN_ATTRIB: u32 = 0x4;
pub const IN_CLOEXEC: c_int = O_CLOEXEC;
pub const IN_CREATE: u32 = 0x100;
pub const IN_DELETE: u32 = 0x200;
pub const IN_IGNORED: u32 = 0x8000;
pub const IN_ISDIR: u32 = 0x4000_0000;
pub const IN_MODIFY: u32 = 0x2;
pub const IN_MOVED_FROM: u32 = 0x40;
pub const IN_MOVED_TO: u32 = 0x80;
pub const IN_NONBLOCK: c_int = O_NONBLOCK;
pub const IN_Q_OVERFLOW: u32 = 0x4000;
pub const IPPROTO_TCP: c_int = 6;
pub const MAP_ANONYMOUS: c_int = 0x20;
pub const MAP_FAILED: *mut c_void = !0 as *mut c_void;
pub const MAP_PRIVATE: c_int = 0x2;
pub const MAP_STACK: c_int = 0x2_0000;
pub const M_ARENA_MAX: c_int = -8;
pub const M_MMAP_THRESHOLD: c_int = -3;
pub const O_CLOEXEC: c_int = 0x8_0000;
pub const O_DIRECTORY: c_int = 0x1_0000;
pub const O_NOCTTY: c_int = 0x100;
pub const O_NOFOLLOW: c_int = 0x2_0000;
pub const O_NONBLOCK: c_int = 0x800;
pub const O_RDONLY: c_int = 0;
pub const O_RDWR: c_int = 2;
pub const POLLERR: c_short = 0x8;
pub const POLLHUP: c_short = 0x10;
pub const POLLIN: c_short = 0x1;
pub const POLLOUT: c_short = 0x4;
pub const PROT_READ: c_int = 1;
pub const PROT_WRITE: c_int = 2;
pub const PR_CAPBSET_DROP: c_int = 24;
pub const PR_SET_CHILD_SUBREAPER: c_int = 36;
pub const PTRACE_DETACH: c_uint = 17;
pub const PTRACE_INTERRUPT: c_uint = 0x4207;
pub const PTRACE_SEIZE: c_uint = 0x4206;
pub const RLIMIT_NOFILE: c_int = 7;
pub const RUSAGE_CHILDREN: c_int = -1;
pub const SFD_CLOEXEC: c_int = O_CLOEXEC;
pub const SFD_NONBLOCK: c_int = O_NONBLOCK;
pub const SHUT_WR: c_int = 1;
pub const SIGCHLD: c_int = 17;
pub const SIGKILL: c_int = 9;
pub const SIGPIPE: c_int = 13;
pub const SIG_DFL: size_t = 0;
pub const SIG_SETMASK: c_int = 2;
pub const SOCK_CLOEXEC: c_int = O_CLOEXEC;
pub const SOCK_NONBLOCK: c_int = O_NONBLOCK;
pub const SOCK_STREAM: c_int = 1;
pub const SOL_SOCKET: c_int = 1;
pub const SO_ERROR: c_int = 4;
pub const SYS_capget: c_long = 125;
pub const SYS_capset: c_long = 126;
pub const SYS_close_range: c_long = 436;
pub const SYS_setgroups: c_long = 116;
pub const SYS_setresgid: c_long = 119;
pub const SYS_setresuid: c_long = 117;
pub const TCP_NODELAY: c_int = 1;
pub const TIOCGPTN: c_ulong = 0x8004_5430;
pub const TIOCSCTTY: c_ulong = 0x540e;
pub const TIOCSPTLCK: c_ulong = 0x4004_5431;
pub const TIOCSWINSZ: c_ulong = 0x5414;
pub const WNOHANG: c_int = 1;
pub const __WALL: c_int = 0x4000_0000;
pub const _SC_CLK_TCK: c_int = 2;
pub const _SC_NPROCESSORS_ONLN: c_int = 84;

pub const ENOENT: c_int = 2;
pub const EINTR: c_int = 4;
pub const EIO: c_int = 5;
pub const EAGAIN: c_int = 11;
pub const ENOMEM: c_int = 12;
pub const EACCES: c_int = 13;
pub const EEXIST: c_int = 17;
pub const EXDEV: c_int = 18;
pub const ENOTDIR: c_int = 20;
pub const EISDIR: c_int = 21;
pub const EINVAL: c_int = 22;
pub const ENFILE: c_int = 23;
pub const EMFILE: c_int = 24;
pub const ENOSPC: c_int = 28;
pub const ENOTEMPTY: c_int = 39;
pub const ELOOP: c_int = 40;
pub const ECONNREFUSED: c_int = 111;
pub const EINPROGRESS: c_int = 115;
pub const EDQUOT: c_int = 122;

#[repr(C)]
pub struct iovec {
    pub iov_base: *mut c_void,
    pub iov_len: size_t,
}
#[repr(C)]
pub struct pollfd {
    pub fd: c_int,
    pub events: c_short,
    pub revents: c_short,
}
#[repr(C)]
#[derive(Clone, Copy)]
pub struct timespec {
    pub tv_sec: i64,
    pub tv_nsec: c_long,
}
#[repr(C)]
#[derive(Clone, Copy)]
pub struct timeval {
    pub tv_sec: i64,
    pub tv_usec: c_long,
}
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rlimit {
    pub rlim_cur: c_ulong,
    pub rlim_max: c_ulong,
}
#[repr(C)]
pub struct rusage {
    pub ru_utime: timeval,
    pub ru_stime: timeval,
    counts: [c_long; 14],
}
#[repr(C)]
pub struct sigset_t {
    bits: [c_ulong; 16],
}
#[repr(C)]
pub struct in_addr {
    pub s_addr: u32,
}
#[repr(C)]
pub struct sockaddr_in {
    pub sin_family: c_ushort,
    pub sin_port: u16,
    pub sin_addr: in_addr,
    pub sin_zero: [u8; 8],
}
#[repr(C)]
pub struct in6_addr {
    pub s6_addr: [u8; 16],
}
#[repr(C)]
pub struct sockaddr_in6 {
    pub sin6_family: c_ushort,
    pub sin6_port: u16,
    pub sin6_flowinfo: u32,
    pub sin6_addr: in6_addr,
    pub sin6_scope_id: u32,
}
#[repr(C)]
pub struct statvfs {
    pub f_bsize: c_ulong,
    pub f_frsize: c_ulong,
    pub f_blocks: u64,
    pub f_bfree: u64,
    pub f_bavail: u64,
    pub f_files: u64,
    pub f_ffree: u64,
    pub f_favail: u64,
    pub f_fsid: c_ulong,
    pub f_flag: c_ulong,
    pub f_namemax: c_ulong,
    spare: [c_int; 6],
}
#[repr(C)]
pub struct winsize {
    pub ws_row: c_ushort,
    pub ws_col: c_ushort,
    pub ws_xpixel: c_ushort,
    pub ws_ypixel: c_ushort,
}
#[repr(C)]
pub struct dirent {
    pub d_ino: u64,
    pub d_off: i64,
    pub d_reclen: c_ushort,
    pub d_type: c_uchar,
    pub d_name: [c_char; 256],
}
#[repr(C)]
pub struct Dir {
    private: [u8; 0],
}

pub const fn WTERMSIG(status: c_int) -> c_int {
    status & 0x7f
}
pub const fn WIFSIGNALED(status: c_int) -> bool {
    WTERMSIG(status) != 0 && WTERMSIG(status) != 0x7f
}
pub const fn WEXITSTATUS(status: c_int) -> c_int {
    (status >> 8) & 0xff
}
pub const fn WIFSTOPPED(status: c_int) -> bool {
    status & 0xff == 0x7f
}
pub const fn WSTOPSIG(status: c_int) -> c_int {
    (status >> 8) & 0xff
}

extern "C" {
    pub fn __errno_location() -> *mut c_int;
    pub fn _exit(status: c_int) -> !;
    pub fn chdir(path: *const c_char) -> c_int;
    pub fn chown(path: *const c_char, uid: u32, gid: u32) -> c_int;
    pub fn getxattr(path: *const c_char, name: *const c_char, value: *mut c_void, size: size_t) -> ssize_t;
    pub fn lchown(path: *const c_char, uid: u32, gid: u32) -> c_int;
    pub fn listxattr(path: *const c_char, names: *mut c_char, size: size_t) -> ssize_t;
    pub fn lsetxattr(
        path: *const c_char,
        name: *const c_char,
        value: *const c_void,
        size: size_t,
        flags: c_int,
    ) -> c_int;
    pub fn clock_gettime(clock: c_int, time: *mut timespec) -> c_int;
    pub fn clock_settime(clock: c_int, time: *const timespec) -> c_int;
    pub fn clone(
        run: extern "C" fn(*mut c_void) -> c_int,
        stack: *mut c_void,
        flags: c_int,
        argument: *mut c_void,
        ...
    ) -> c_int;
    pub fn closedir(directory: *mut Dir) -> c_int;
    pub fn connect(fd: c_int, address: *const c_void, size: socklen_t) -> c_int;
    pub fn dup2(from: c_int, to: c_int) -> c_int;
    pub fn eventfd(value: c_uint, flags: c_int) -> c_int;
    pub fn execve(path: *const c_char, argv: *const *const c_char, env: *const *const c_char) -> c_int;
    pub fn fchmod(fd: c_int, mode: mode_t) -> c_int;
    pub fn fchown(fd: c_int, uid: u32, gid: u32) -> c_int;
    pub fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    pub fn fdopendir(fd: c_int) -> *mut Dir;
    pub fn futimens(fd: c_int, times: *const timespec) -> c_int;
    pub fn getrandom(buffer: *mut c_void, size: size_t, flags: c_uint) -> ssize_t;
    pub fn getrlimit(resource: c_int, limit: *mut rlimit) -> c_int;
    pub fn getrusage(who: c_int, usage: *mut rusage) -> c_int;
    pub fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, size: *mut socklen_t) -> c_int;
    pub fn inotify_add_watch(fd: c_int, path: *const c_char, mask: u32) -> c_int;
    pub fn inotify_init1(flags: c_int) -> c_int;
    pub fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    pub fn kill(pid: pid_t, signal: c_int) -> c_int;
    pub fn mallopt(parameter: c_int, value: c_int) -> c_int;
    pub fn mmap(at: *mut c_void, size: size_t, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    pub fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    pub fn openat(directory: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
    pub fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
    pub fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int;
    pub fn prctl(option: c_int, ...) -> c_int;
    pub fn ptrace(request: c_uint, ...) -> c_long;
    pub fn read(fd: c_int, buffer: *mut c_void, size: size_t) -> ssize_t;
    pub fn readv(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t;
    pub fn readdir(directory: *mut Dir) -> *mut dirent;
    pub fn sethostname(name: *const c_char, size: size_t) -> c_int;
    pub fn setrlimit(resource: c_int, limit: *const rlimit) -> c_int;
    pub fn setsid() -> pid_t;
    pub fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, size: socklen_t) -> c_int;
    pub fn shutdown(fd: c_int, how: c_int) -> c_int;
    pub fn sigaddset(set: *mut sigset_t, signal: c_int) -> c_int;
    pub fn sigemptyset(set: *mut sigset_t) -> c_int;
    pub fn sigfillset(set: *mut sigset_t) -> c_int;
    pub fn signal(signal: c_int, handler: size_t) -> size_t;
    pub fn signalfd(fd: c_int, set: *const sigset_t, flags: c_int) -> c_int;
    pub fn sigprocmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int;
    pub fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    #[link_name = "statvfs"]
    pub fn statvfs_path(path: *const c_char, stat: *mut statvfs) -> c_int;
    pub fn syncfs(fd: c_int) -> c_int;
    pub fn syscall(number: c_long, ...) -> c_long;
    pub fn sysconf(name: c_int) -> c_long;
    pub fn umask(mode: mode_t) -> mode_t;
    pub fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int;
    pub fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t;
    pub fn write(fd: c_int, buffer: *const c_void, size: size_t) -> ssize_t;
}
