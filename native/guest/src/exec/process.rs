//! One exec: its process, what it wrote and what it is sent.

use crate::libc;
use crate::payload::Writer;
use crate::pty;
use crate::ring::Ring;
use std::collections::VecDeque;
use std::os::unix::io::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use super::request::Overflow;
use super::session::Lag;

pub(super) struct Stream {
    pub(super) fd: Option<OwnedFd>,
    /// A terminal that nobody has open at this moment: not read again before the exit.
    pub(super) quiet: bool,
    pub(super) ring: Ring,
    /// Consumed by some session up to here.
    pub(super) acked: u64,
    /// When waiting for a session that lags behind ends.
    pub(super) patience: Option<Instant>,
}

impl Stream {
    pub(super) fn new(fd: Option<OwnedFd>, keep: usize) -> Stream {
        Stream { fd, quiet: false, ring: Ring::new(keep), acked: 0, patience: None }
    }
}

pub(super) struct Stdin {
    /// Absent with a terminal, whose one descriptor serves both ways.
    pub(super) fd: Option<OwnedFd>,
    pub(super) buffer: VecDeque<u8>,
    pub(super) taken: u64,
    /// The last byte taken.
    pub(super) last: u8,
    /// No more will come: close once the buffer is empty.
    pub(super) ending: bool,
    pub(super) closed: bool,
}

pub(super) struct Exec {
    pub(super) id: u64,
    pub(super) pid: libc::pid_t,
    pub(super) argv: Vec<String>,
    /// What was added to the environment.
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) user: String,
    pub(super) tag: Option<String>,
    pub(super) terminal: bool,
    pub(super) started: u64,
    pub(super) keep: usize,
    pub(super) overflow: Overflow,
    pub(super) streams: [Stream; 2],
    pub(super) stdin: Stdin,
    pub(super) deadline: Option<Instant>,
    /// What was left of the time while nothing runs.
    pub(super) remaining: Option<Duration>,
    /// Bytes read after its exit.
    pub(super) after_exit: u64,
    pub(super) timed_out: bool,
    /// Exit code, or 256 + signal.
    pub(super) exit: Option<u32>,
    /// All output up to the exit is in the rings.
    pub(super) drained: bool,
}

impl Exec {
    pub(super) fn stdin_fd(&self) -> Option<RawFd> {
        let fd = if self.terminal { &self.streams[0].fd } else { &self.stdin.fd };
        fd.as_ref().map(|fd| fd.as_raw_fd())
    }

    pub(super) fn close_stdin(&mut self) {
        self.stdin.fd = None;
        self.stdin.buffer = VecDeque::new();
        self.stdin.closed = true;
    }

    /// No more input will come. A terminal is told by its end-of-file character, twice when a line has begun.
    pub(super) fn end_stdin(&mut self) {
        if self.terminal && !self.stdin.ending {
            let line_begun = self.stdin.taken > 0 && self.stdin.last != b'\n';
            self.stdin.buffer.extend(&[pty::END_OF_FILE; 2][..1 + usize::from(line_begun)]);
        }
        self.stdin.ending = true;
    }

    /// Gives end of file once everything before it has gone.
    pub(super) fn settle_stdin(&mut self) {
        let stdin = &self.stdin;
        if stdin.closed || !stdin.ending || !stdin.buffer.is_empty() {
            return;
        }
        self.close_stdin();
    }

    /// Bytes of output that may be read now.
    pub(super) fn room(&self, i: usize, lag: &Lag) -> u64 {
        let stream = &self.streams[i];
        let keep = self.keep as u64;
        let end = stream.ring.end();
        if self.drained {
            u64::MAX
        } else if self.overflow == Overflow::Block {
            keep.saturating_sub(end - lag.acked.unwrap_or(stream.acked).max(stream.ring.base()))
        } else {
            lag.next.map_or(u64::MAX, |next| keep.saturating_sub(end - next.max(stream.ring.base())))
        }
    }
}

pub(super) fn describe(w: &mut Writer, exec: &Exec) {
    w.u64(exec.id).u32(exec.pid as u32).u32(exec.argv.len() as u32);
    for argument in &exec.argv {
        w.text(argument);
    }
    w.text(&exec.cwd).text(&exec.user);
    match &exec.tag {
        Some(tag) => w.u8(1).text(tag),
        None => w.u8(0),
    };
    w.u8(u8::from(exec.terminal)).u64(exec.started);
    w.u64(exec.streams[0].ring.end()).u64(exec.streams[1].ring.end()).u64(exec.stdin.taken);
    match exec.exit {
        Some(exit) => w.u8(1).u32(exit).u8(u8::from(exec.timed_out)),
        None => w.u8(0),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn records_are_written_as_agreed() {
        let mut streams = [Stream::new(None, 4096), Stream::new(None, 4096)];
        streams[0].ring.push(&[0; 10]);
        let exec = Exec {
            id: 1_790_000_000_123,
            pid: 42,
            argv: ["sh", "-c", "echo"].map(str::to_string).to_vec(),
            env: Vec::new(),
            cwd: "/w".to_string(),
            user: "u".to_string(),
            tag: Some("t".to_string()),
            terminal: false,
            started: 1_790_000_000_123_000_000,
            keep: 4096,
            overflow: Overflow::Drop,
            streams,
            stdin: Stdin { fd: None, buffer: VecDeque::new(), taken: 3, last: 0, ending: false, closed: true },
            deadline: None,
            remaining: None,
            after_exit: 0,
            timed_out: true,
            exit: Some(256 + 9),
            drained: true,
        };
        let mut w = Writer::new();
        describe(&mut w, &exec);
        assert_eq!(w.done(), golden::frame("exec-info").payload);
    }
}
