//! Holding user processes still while a snapshot is taken, and in a copy until HELLO has told it who it is. Every thread is
//! stopped as a debugger stops it: parents, shells and job control see nothing of that, and no signal is sent. A stop is part of
//! the snapshot. What a debugger of the user's traces already cannot be held, and runs on.

use crate::libc;
use crate::sys;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// While processes start others faster than they are found.
const MAX_ROUNDS: usize = 32;
/// How long to wait for threads that were asked to stop. They do not run on, at the latest when the kernel next lets them.
const PATIENCE: Duration = Duration::from_millis(250);

enum Thread {
    /// Told to stop, not yet seen to.
    Asked,
    /// With the signal that was about to be delivered, or 0.
    Stopped(libc::c_int),
}

#[derive(Default)]
pub struct Hold {
    threads: BTreeMap<libc::pid_t, Thread>,
    /// Set while threads are to be held; those that stop later are let go at once.
    deadline: Option<Instant>,
}

fn request(what: libc::c_uint, thread: libc::pid_t, data: libc::c_int) -> bool {
    let none = std::ptr::null_mut::<libc::c_void>();
    unsafe { libc::ptrace(what, thread, none, data as usize as *mut libc::c_void) == 0 }
}

/// The numbers that name entries of a directory of /proc.
fn numbers(directory: &str) -> Vec<libc::pid_t> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether the kernel has the thread wait for something that no signal ends: mostly for its own child to exec, which is held.
/// It stops on the way out.
fn is_blocked(thread: libc::pid_t) -> bool {
    let stat = sys::read_small(&format!("/proc/{}/stat", thread), 4096).unwrap_or_default();
    String::from_utf8_lossy(&stat).rsplit_once(')').map_or(false, |(_, rest)| rest.starts_with(" D"))
}

impl Hold {
    /// Asks every thread of every process but the agent's to stop. Only PID 1 does, whose processes they are.
    pub fn begin(&mut self, now: Instant) {
        self.deadline = Some(now + PATIENCE);
        if std::process::id() != 1 {
            return;
        }
        for _ in 0..MAX_ROUNDS {
            let mut found = false;
            for process in numbers("/proc").into_iter().filter(|process| *process != 1) {
                for thread in numbers(&format!("/proc/{}/task", process)) {
                    if !self.threads.contains_key(&thread) && request(libc::PTRACE_SEIZE, thread, 0) {
                        request(libc::PTRACE_INTERRUPT, thread, 0);
                        self.threads.insert(thread, Thread::Asked);
                        found = true;
                    }
                }
            }
            if !found {
                return;
            }
        }
    }

    /// What the kernel says of a child or of a held thread. True when it concerned the hold alone.
    pub fn heard(&mut self, thread: libc::pid_t, status: libc::c_int) -> bool {
        if !libc::WIFSTOPPED(status) {
            self.threads.remove(&thread);
            return false;
        }
        // An event is the stop that was asked for; without one it is a signal, which must not get lost.
        let is_event = status >> 16 != 0;
        let signal = if is_event { 0 } else { libc::WSTOPSIG(status) };
        if self.deadline.is_some() {
            self.threads.insert(thread, Thread::Stopped(signal));
        } else {
            self.threads.remove(&thread);
            request(libc::PTRACE_DETACH, thread, signal);
        }
        true
    }

    /// Whether all that can be held is held.
    pub fn is_complete(&self, now: Instant) -> bool {
        self.deadline.map_or(false, |deadline| deadline <= now)
            || self.threads.iter().all(|(thread, state)| matches!(state, Thread::Stopped(_)) || is_blocked(*thread))
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Lets all go on where they were.
    pub fn end(&mut self) {
        self.deadline = None;
        self.threads.retain(|thread, state| match state {
            Thread::Stopped(signal) => {
                request(libc::PTRACE_DETACH, *thread, *signal);
                false
            }
            Thread::Asked => true,
        });
    }
}
