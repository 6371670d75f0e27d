//! Work that may block (files, above all) runs on threads of its own, with the rights of the user it is for.

use crate::failure::{Failure, Outcome};
use crate::frame::kind;
use crate::libc;
use crate::pipe::{lock, wait, Pipe};
use crate::sys;
use crate::users::User;
use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex};

/// Room for deep calls; only what is touched costs memory.
const STACK: usize = 256 * 1024;

/// What a worker does: speaks through the pipe, and ends with REPLY or END sent by itself, or with the failure that is to be sent.
pub type Job = Box<dyn FnOnce(&Pipe) -> Outcome<()> + Send>;

/// Threads that wait for the next job: starting one costs more than most jobs.
const MAX_IDLE: usize = 2;

struct Pool {
    jobs: Vec<(Arc<Pipe>, Job)>,
    idle: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { jobs: Vec::new(), idle: 0 });
static JOBS: Condvar = Condvar::new();

/// Has the job done by a thread.
pub fn start(pipe: Arc<Pipe>, job: Job) -> std::io::Result<()> {
    let mut pool = lock(&POOL);
    pool.jobs.push((pipe, job));
    if pool.idle >= pool.jobs.len() {
        JOBS.notify_one();
        return Ok(());
    }
    let started = std::thread::Builder::new().stack_size(STACK).spawn(work).map(|_| ());
    if started.is_err() {
        pool.jobs.pop();
    }
    started
}

fn work() {
    loop {
        let mut pool = lock(&POOL);
        let (pipe, job) = loop {
            if !pool.jobs.is_empty() {
                break pool.jobs.remove(0);
            }
            if pool.idle >= MAX_IDLE {
                return;
            }
            pool.idle += 1;
            pool = wait(&JOBS, pool);
            pool.idle -= 1;
        };
        drop(pool);
        pipe.gate.enter();
        if let Err(failure) = job(&pipe) {
            pipe.say(kind::ERROR, failure.encode());
        }
        pipe.gate.leave();
        let is_root = become_root();
        pipe.finish();
        if !is_root {
            return;
        }
    }
}

thread_local! {
    /// Whose rights this thread has, when they are not root's.
    static IS_USER: Cell<bool> = Cell::new(false);
}

/// Gives this thread, and no other, the user's rights over files. Only the effective ids change: with the real and saved ones
/// still root's, the user's processes may not signal this thread, which would reach the whole agent.
pub fn become_user(user: &User) -> Outcome<()> {
    if user.uid == 0 && user.gid == 0 && user.groups.is_empty() {
        return Ok(());
    }
    IS_USER.with(|is_user| is_user.set(true));
    if set_groups(user.gid, &user.groups) && set_user(user.uid) {
        Ok(())
    } else {
        Err(Failure::errno(&format!("cannot act as user {:?}", user.name), sys::errno()))
    }
}

/// Takes root's rights back.
fn become_root() -> bool {
    !IS_USER.with(|is_user| is_user.replace(false)) || (set_user(0) && set_groups(0, &[]))
}

// Raw calls: glibc would change all threads.

const KEEP: libc::c_long = -1;

fn set_user(uid: u32) -> bool {
    unsafe { libc::syscall(libc::SYS_setresuid, KEEP, libc::c_long::from(uid), KEEP) == 0 }
}

fn set_groups(gid: u32, groups: &[u32]) -> bool {
    unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, KEEP, libc::c_long::from(gid), KEEP) == 0
    }
}
