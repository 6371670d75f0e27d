//! Starting a process as another user, fast: the child borrows the agent's memory until it execs (as vfork does), so nothing is
//! copied, and between clone and exec it makes system calls only.

use crate::failure::{Failure, Outcome};
use crate::libc::{self, c_char, c_int, c_void};
use crate::users::User;
use std::ffi::CString;
use std::os::unix::io::RawFd;

/// What Docker leaves to a container: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service,
/// net_raw, sys_chroot, mknod, audit_write, setfcap.
const CAPABILITIES: [u32; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

/// Bounds what processes started from here on can ever have. The agent itself keeps what it has: the bounding set and the
/// inheritable set matter to exec alone, and it never execs. Before any thread is made.
pub fn limit_capabilities() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const PR_CAP_AMBIENT: c_int = 47;
    const PR_CAP_AMBIENT_CLEAR_ALL: libc::c_ulong = 4;
    unsafe {
        libc::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        for capability in 0..64u32 {
            if !CAPABILITIES.contains(&capability) {
                libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0);
            }
        }
        let mut header = Header { version: 0x2008_0522, pid: 0 };
        let mut data = [Data::default(); 2];
        if libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) == 0 {
            data[0].inheritable = 0;
            data[1].inheritable = 0;
            libc::syscall(libc::SYS_capset, &header, data.as_ptr());
        }
    }
}

pub struct Program<'a> {
    /// Paths to try, in order.
    pub paths: &'a [CString],
    pub argv: &'a [CString],
    pub env: &'a [CString],
    /// Directories to try, in order.
    pub cwds: &'a [CString],
    pub user: &'a User,
    pub stdio: [RawFd; 3],
    /// stdin is a terminal that becomes the controlling one.
    pub terminal: bool,
}

/// Shared with the child until it execs.
struct Task {
    paths: *const *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
    cwds: *const *const c_char,
    uid: u32,
    gid: u32,
    groups: *const u32,
    group_count: usize,
    /// It is what the agent is: root, without further groups.
    same_user: bool,
    stdio: [c_int; 3],
    terminal: bool,
    /// The agent's own is raised.
    files: libc::rlimit,
    cwd: usize,
    failure: Option<(Stage, c_int)>,
}

#[derive(Clone, Copy)]
enum Stage {
    User,
    Cwd,
    Exec,
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

unsafe fn give_up(task: &mut Task, stage: Stage, errno: c_int) -> ! {
    task.failure = Some((stage, errno));
    libc::_exit(127)
}

extern "C" fn child(task: *mut c_void) -> c_int {
    // The parent stands still until exec or exit. Raw calls where glibc would tell the other threads, and no call too many:
    // under gVisor each costs some 20 µs.
    unsafe {
        let task = &mut *task.cast::<Task>();
        libc::setsid();
        for (target, fd) in (0..).zip(task.stdio) {
            libc::dup2(fd, target);
        }
        if task.terminal {
            libc::ioctl(0, libc::TIOCSCTTY, 0);
        }
        if task.files.rlim_cur != task.files.rlim_max {
            libc::setrlimit(libc::RLIMIT_NOFILE, &task.files);
        }
        if !task.same_user
            && (libc::syscall(libc::SYS_setgroups, task.group_count, task.groups) != 0
                || libc::syscall(libc::SYS_setresgid, task.gid, task.gid, task.gid) != 0
                || libc::syscall(libc::SYS_setresuid, task.uid, task.uid, task.uid) != 0)
        {
            give_up(task, Stage::User, *libc::__errno_location());
        }
        while libc::chdir(*task.cwds.add(task.cwd)) != 0 {
            let errno = *libc::__errno_location();
            task.cwd += 1;
            if (*task.cwds.add(task.cwd)).is_null() {
                give_up(task, Stage::Cwd, errno);
            }
        }
        // The agent blocks every signal, which is not for the program.
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        let mut refusal = libc::ENOENT;
        let mut path = task.paths;
        while !(*path).is_null() {
            libc::execve(*path, task.argv, task.env);
            match *libc::__errno_location() {
                libc::ENOENT | libc::ENOTDIR => {}
                // A refusal says more than that a later directory has no such file.
                libc::EACCES => refusal = libc::EACCES,
                errno => give_up(task, Stage::Exec, errno),
            }
            path = path.add(1);
        }
        give_up(task, Stage::Exec, refusal)
    }
}

/// Starts programs, one at a time. Owns the stack that children stand on until they exec.
pub struct Spawner {
    stack: *mut c_void,
    /// The limit of open files that programs get: what the agent was given.
    files: libc::rlimit,
}

const STACK: usize = 64 * 1024;

impl Spawner {
    pub fn new() -> Spawner {
        let stack = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STACK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        assert!(stack != libc::MAP_FAILED, "no memory for a stack");
        let mut files = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut files);
            libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: files.rlim_max, ..files });
        }
        Spawner { stack, files }
    }

    /// Returns the pid and which of `cwds` was taken. Returns once the program runs or could not be started.
    pub fn spawn(&mut self, program: &Program) -> Outcome<(libc::pid_t, usize)> {
        let paths = pointers(program.paths);
        let argv = pointers(program.argv);
        let env = pointers(program.env);
        let cwds = pointers(program.cwds);
        let mut task = Task {
            paths: paths.as_ptr(),
            argv: argv.as_ptr(),
            env: env.as_ptr(),
            cwds: cwds.as_ptr(),
            uid: program.user.uid,
            gid: program.user.gid,
            groups: program.user.groups.as_ptr(),
            group_count: program.user.groups.len(),
            same_user: program.user.uid == 0 && program.user.gid == 0 && program.user.groups.is_empty(),
            stdio: program.stdio,
            terminal: program.terminal,
            files: self.files,
            cwd: 0,
            failure: None,
        };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let shared: *mut Task = &mut task;
        let pid = unsafe { libc::clone(child, self.stack.cast::<u8>().add(STACK).cast(), flags, shared.cast()) };
        if pid < 0 {
            return Err(Failure::errno("cannot start a process", crate::sys::errno()));
        }
        // Written by the child, behind the compiler's back.
        let task = unsafe { std::ptr::read_volatile(shared) };
        let (stage, errno) = match task.failure {
            None => return Ok((pid, task.cwd)),
            Some(failure) => failure,
        };
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        let text = |s: Option<&CString>| s.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        Err(match stage {
            Stage::User => Failure::errno(&format!("cannot become user {:?}", program.user.name), errno),
            Stage::Cwd => Failure::errno(&format!("working directory {:?}", text(program.cwds.first())), errno),
            Stage::Exec => Failure::errno(&format!("cannot run {:?}", text(program.argv.first())), errno),
        })
    }
}
