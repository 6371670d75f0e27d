//! Moving bytes between processes, rings and sessions.

use super::process::Exec;
use super::request::Overflow;
use super::session::Lag;
use super::Execs;
use crate::libc;
use crate::link::Link;
use crate::sys::{self, Got};
use std::collections::BTreeMap;
use std::os::unix::io::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// Exited execs that are remembered.
const MAX_EXITED: usize = 1000;
/// Kept output of all exited execs together; the oldest goes first.
const MAX_EXITED_OUTPUT: usize = 16 << 20;
/// Of each stream, what is still read once the process has exited and others write on.
const MAX_AFTER_EXIT: u64 = 1 << 20;
/// How long a process with overflow `drop` waits for a session that is attached but takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a descriptor in the poll set belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Stdin,
    Output(usize),
}

impl Execs {
    /// What to poll for. Not while nothing may move.
    pub fn interest(&mut self, now: Instant, mut want: impl FnMut(RawFd, libc::c_short, u64, Side)) {
        let mut lags: BTreeMap<u64, [Lag; 2]> = BTreeMap::new();
        for session in self.sessions.values() {
            let lag = lags.entry(session.exec).or_default();
            for (i, lag) in lag.iter_mut().enumerate() {
                lag.add(session, i);
            }
        }
        for exec in self.active.values_mut() {
            if !exec.stdin.closed && !exec.stdin.buffer.is_empty() {
                if let Some(fd) = exec.stdin_fd() {
                    want(fd, libc::POLLOUT, exec.id, Side::Stdin);
                }
            }
            let lag = lags.get(&exec.id).cloned().unwrap_or_default();
            for (i, lag) in lag.iter().enumerate() {
                let room = exec.room(i, lag);
                let stream = &mut exec.streams[i];
                if let Some(fd) = stream.fd.as_ref().filter(|_| !stream.quiet) {
                    if room > 0 {
                        stream.patience = None;
                        want(fd.as_raw_fd(), libc::POLLIN, exec.id, Side::Output(i));
                    } else if exec.overflow == Overflow::Drop && stream.patience.is_none() {
                        stream.patience = Some(now + PATIENCE);
                    }
                }
            }
        }
    }

    /// A descriptor of the poll set is ready.
    pub fn ready(&mut self, id: u64, side: Side) {
        match side {
            Side::Stdin => self.feed(id),
            Side::Output(i) => {
                self.collect(id, i);
            }
        }
    }

    /// Moves stdin on to the process, as much as it takes.
    fn feed(&mut self, id: u64) {
        let exec = match self.active.get_mut(&id) {
            Some(exec) => exec,
            None => return,
        };
        let mut moved = 0;
        if let Some(fd) = exec.stdin_fd() {
            while !exec.stdin.buffer.is_empty() {
                match sys::write(fd, exec.stdin.buffer.as_slices().0) {
                    Ok(0) => break,
                    Ok(n) => {
                        exec.stdin.buffer.drain(..n);
                        moved += n as u64;
                    }
                    Err(_) => {
                        moved += exec.stdin.buffer.len() as u64;
                        exec.close_stdin();
                    }
                }
            }
        }
        if exec.stdin.buffer.is_empty() {
            exec.stdin.buffer.shrink_to(4096);
        }
        for session in self.sessions.values_mut().filter(|s| s.exec == id) {
            let given = session.stdin_held.min(moved);
            moved -= given;
            session.stdin_held -= given;
            session.stdin_grant += given;
        }
    }

    /// Reads once from an output stream. False when there is nothing more at this moment, or no room.
    fn collect(&mut self, id: u64, i: usize) -> bool {
        let mut lag = Lag::default();
        for session in self.sessions.values().filter(|s| s.exec == id) {
            lag.add(session, i);
        }
        let exec = match self.active.get_mut(&id) {
            Some(exec) => exec,
            None => return false,
        };
        let room = exec.room(i, &lag).min(self.scratch.len() as u64) as usize;
        let stream = &mut exec.streams[i];
        let fd = match &stream.fd {
            Some(fd) if room > 0 => fd.as_raw_fd(),
            _ => return false,
        };
        match sys::read(fd, &mut self.scratch[..room]) {
            Ok(Got::Bytes(n)) => {
                stream.ring.push(&self.scratch[..n]);
                if exec.exit.is_some() {
                    exec.after_exit += n as u64;
                }
                true
            }
            Ok(Got::Later) => false,
            // A terminal nobody has open reads as EIO. Closing it while its process lives would hang that up: many programs
            // close everything shortly before they exit.
            Ok(Got::End) | Err(_) if exec.terminal && exec.exit.is_none() => {
                stream.quiet = true;
                false
            }
            Ok(Got::End) | Err(_) => {
                stream.fd = None;
                stream.ring.shrink();
                if exec.terminal {
                    exec.close_stdin();
                }
                false
            }
        }
    }

    /// Ends what is over: closes stdin that was sent whole, takes the last output of exited processes, retires records.
    pub fn settle(&mut self) {
        let ids: Vec<u64> = self.active.keys().copied().collect();
        let mut over = Vec::new();
        for id in ids {
            if let Some(exec) = self.active.get_mut(&id) {
                exec.settle_stdin();
                if exec.exit.is_some() && !exec.stdin.closed {
                    exec.close_stdin();
                }
            }
            if self.active.get(&id).map_or(false, |e| e.exit.is_some() && !e.drained) {
                for i in 0..2 {
                    while self.active.get(&id).map_or(false, |e| e.after_exit < MAX_AFTER_EXIT) && self.collect(id, i) {
                    }
                }
                // What is left now waits for room in the ring: the next round goes on.
                let full = (0..2).any(|i| self.is_full(id, i));
                if let Some(exec) = self.active.get_mut(&id) {
                    exec.drained = !full || exec.after_exit >= MAX_AFTER_EXIT;
                }
            }
            if self.active.get(&id).map_or(false, |e| e.drained && e.streams.iter().all(|s| s.fd.is_none())) {
                over.push(id);
            }
        }
        for id in &over {
            if let Some(mut exec) = self.active.remove(id) {
                exec.env = Vec::new();
                self.retired.insert(*id, exec);
            }
        }
        if !over.is_empty() || self.retired.len() > MAX_EXITED {
            self.forget();
        }
    }

    fn is_full(&self, id: u64, i: usize) -> bool {
        let mut lag = Lag::default();
        for session in self.sessions.values().filter(|s| s.exec == id) {
            lag.add(session, i);
        }
        self.active.get(&id).map_or(false, |exec| exec.streams[i].fd.is_some() && exec.room(i, &lag) == 0)
    }

    /// Keeps what is remembered of exited execs within bounds. What a session is reading stays.
    fn forget(&mut self) {
        let attached: Vec<u64> = self.sessions.values().map(|s| s.exec).collect();
        let surplus = self.retired.len().saturating_sub(MAX_EXITED);
        let old: Vec<u64> = self.retired.keys().copied().filter(|id| !attached.contains(id)).take(surplus).collect();
        for id in old {
            self.retired.remove(&id);
        }
        let size = |e: &Exec| e.streams.iter().map(|s| s.ring.len()).sum::<usize>();
        let mut total: usize = self.retired.values().map(size).sum();
        for exec in self.retired.values_mut() {
            if total <= MAX_EXITED_OUTPUT {
                break;
            }
            if !attached.contains(&exec.id) {
                total -= size(exec);
                exec.streams.iter_mut().for_each(|s| s.ring.clear());
            }
        }
    }

    /// Queues what sessions may be sent, a frame for each in turn, while the link has room.
    pub fn pump(&mut self, link: &mut Link) {
        loop {
            let after = self.sessions.range(self.turn.saturating_add(1)..).map(|(c, _)| *c);
            let order: Vec<u32> = after.chain(self.sessions.range(..=self.turn).map(|(c, _)| *c)).collect();
            let mut moved = false;
            for channel in order {
                if !link.has_room() {
                    return;
                }
                let session = match self.sessions.get_mut(&channel) {
                    Some(session) => session,
                    None => continue,
                };
                let id = session.exec;
                let (sent, ended) = match self.active.get_mut(&id).or_else(|| self.retired.get_mut(&id)) {
                    Some(exec) => session.serve(exec, channel, link),
                    None => (false, true),
                };
                self.turn = channel;
                moved |= sent;
                if ended {
                    self.sessions.remove(&channel);
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// When `tick` has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.active.values().flat_map(|e| e.streams.iter().map(|s| s.patience).chain([e.deadline])).flatten().min()
    }

    /// Kills what ran too long, stops waiting for sessions that take nothing.
    pub fn tick(&mut self, now: Instant) {
        for exec in self.active.values_mut() {
            if exec.deadline.map_or(false, |d| d <= now) {
                exec.deadline = None;
                exec.timed_out = true;
                unsafe { libc::kill(-exec.pid, libc::SIGKILL) };
            }
            for i in 0..2 {
                let stream = &mut exec.streams[i];
                if stream.patience.map_or(false, |p| p <= now) {
                    stream.patience = None;
                    let end = stream.ring.end();
                    for session in self.sessions.values_mut().filter(|s| s.exec == exec.id) {
                        session.stalled[i] |= end - session.next[i] >= exec.keep as u64;
                    }
                }
            }
        }
    }

    /// Time stands still for execs until `resume_time`.
    pub fn stop_time(&mut self, now: Instant) {
        for exec in self.active.values_mut() {
            exec.remaining = exec.deadline.take().map(|d| d.saturating_duration_since(now));
            exec.streams.iter_mut().for_each(|s| s.patience = None);
        }
    }

    pub fn resume_time(&mut self, now: Instant) {
        for exec in self.active.values_mut() {
            exec.deadline = exec.remaining.take().map(|r| now + r);
        }
    }
}
