//! What a worker thread and the loop say to each other about one channel, and the gate that stops all workers between two steps
//! while a snapshot is taken.

use crate::failure::Failure;
use crate::frame::{kind, MAX_PAYLOAD};
use crate::libc;
use crate::link::Link;
use crate::payload::Writer;
use crate::sys::Waker;
use std::collections::VecDeque;
use std::os::unix::io::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

const MAX_QUEUED: usize = 64 * 1024;

/// Stops workers at a step's edge.
pub struct Gate {
    state: Mutex<(bool, usize)>,
    opened: Condvar,
    pub waker: Waker,
}

impl Gate {
    pub fn new(waker: Waker) -> Gate {
        Gate { state: Mutex::new((false, 0)), opened: Condvar::new(), waker }
    }
    pub fn close(&self) {
        lock(&self.state).0 = true;
    }
    pub fn open(&self) {
        lock(&self.state).0 = false;
        self.opened.notify_all();
    }
    /// Whether nobody is in the middle of a step.
    pub fn is_still(&self) -> bool {
        lock(&self.state).1 == 0
    }
    pub fn enter(&self) {
        let mut state = lock(&self.state);
        while state.0 {
            state = wait(&self.opened, state);
        }
        state.1 += 1;
    }
    pub fn leave(&self) {
        let mut state = lock(&self.state);
        state.1 -= 1;
        if state.0 && state.1 == 0 {
            self.waker.wake();
        }
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

pub fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(|e| e.into_inner())
}

#[derive(Default)]
struct Queues {
    out: VecDeque<(u8, Vec<u8>)>,
    out_bytes: usize,
    credit: u64,
    input: VecDeque<Vec<u8>>,
    input_ended: bool,
    cancelled: bool,
    finished: bool,
}

/// What a worker and the loop share about one channel.
pub struct Pipe {
    queues: Mutex<Queues>,
    changed: Condvar,
    pub gate: Arc<Gate>,
    /// Ends a wait for something of the kernel's.
    alarm: Option<Waker>,
}

/// The channel is gone: clean up and end.
#[derive(Debug)]
pub struct Cancelled;

impl From<Cancelled> for Failure {
    fn from(_: Cancelled) -> Failure {
        Failure::new("GuestFailed", "the caller has gone")
    }
}

impl Pipe {
    pub fn new(gate: &Arc<Gate>, window: u64, alarm: Option<Waker>) -> Arc<Pipe> {
        let queues = Queues { credit: window, ..Queues::default() };
        Arc::new(Pipe { queues: Mutex::new(queues), changed: Condvar::new(), gate: gate.clone(), alarm })
    }

    // The loop's side.

    pub fn credit(&self, bytes: u64) {
        lock(&self.queues).credit += bytes;
        self.changed.notify_all();
    }
    pub fn input(&self, bytes: Vec<u8>) {
        lock(&self.queues).input.push_back(bytes);
        self.changed.notify_all();
    }
    pub fn end_input(&self) {
        lock(&self.queues).input_ended = true;
        self.changed.notify_all();
    }
    pub fn cancel(&self) {
        lock(&self.queues).cancelled = true;
        self.changed.notify_all();
        if let Some(alarm) = &self.alarm {
            alarm.wake();
        }
    }
    pub fn is_finished(&self) -> bool {
        let queues = lock(&self.queues);
        queues.finished && (queues.out.is_empty() || queues.cancelled)
    }
    /// Moves what the worker has to say to the link, while that has room.
    pub fn pump(&self, channel: u32, link: &mut Link) {
        let mut queues = lock(&self.queues);
        let mut moved = false;
        while link.has_room() {
            match queues.out.pop_front() {
                Some((kind, payload)) => {
                    queues.out_bytes -= payload.len();
                    link.send(kind, channel, &payload);
                    moved = true;
                }
                None => break,
            }
        }
        if moved {
            self.changed.notify_all();
        }
    }

    // The worker's side.

    /// The last word: the thread does not touch the pipe again.
    pub fn finish(&self) {
        lock(&self.queues).finished = true;
        self.gate.waker.wake();
    }

    fn push(&self, queues: &mut Queues, kind: u8, payload: Vec<u8>) {
        queues.out_bytes += payload.len();
        queues.out.push_back((kind, payload));
        self.gate.waker.wake();
    }
    pub fn say(&self, kind: u8, payload: Vec<u8>) {
        self.push(&mut lock(&self.queues), kind, payload);
    }

    /// Waits, outside the gate, until the closure gives something.
    fn until<T>(&self, mut ready: impl FnMut(&mut Queues) -> Option<T>) -> Result<T, Cancelled> {
        self.gate.leave();
        let mut queues = lock(&self.queues);
        let result = loop {
            if queues.cancelled {
                break Err(Cancelled);
            }
            if let Some(value) = ready(&mut queues) {
                break Ok(value);
            }
            queues = wait(&self.changed, queues);
        };
        drop(queues);
        self.gate.enter();
        result
    }

    /// Sends stream bytes, as fast as the host consumes them.
    pub fn data(&self, mut bytes: &[u8]) -> Result<(), Cancelled> {
        while !bytes.is_empty() {
            let n = self.until(|q| {
                let n = (bytes.len() as u64).min(q.credit).min(MAX_PAYLOAD as u64) as usize;
                if n == 0 || q.out_bytes >= MAX_QUEUED {
                    return None;
                }
                q.credit -= n as u64;
                Some(n)
            })?;
            self.say(kind::DATA, bytes[..n].to_vec());
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// The next bytes from the host; None at their end.
    pub fn receive(&self) -> Result<Option<Vec<u8>>, Cancelled> {
        let received = self.until(|q| match q.input.pop_front() {
            Some(bytes) => Some(Some(bytes)),
            None if q.input_ended => Some(None),
            None => None,
        })?;
        if let Some(bytes) = &received {
            let mut w = Writer::new();
            w.u8(0).u32(bytes.len() as u32);
            self.say(kind::CREDIT, w.done());
        }
        Ok(received)
    }

    /// Sends an event without flow control; false when too many wait already.
    pub fn event(&self, payload: Vec<u8>) -> bool {
        let mut queues = lock(&self.queues);
        if queues.out_bytes >= MAX_QUEUED {
            return false;
        }
        self.push(&mut queues, kind::EVENT, payload);
        true
    }

    /// Waits, outside the gate, until the descriptor is readable.
    pub fn readable(&self, fd: RawFd) -> Result<(), Cancelled> {
        let alarm = self.alarm.as_ref().map_or(-1, Waker::fd);
        let mut fds = [fd, alarm].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        self.gate.leave();
        unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
        self.gate.enter();
        if lock(&self.queues).cancelled {
            Err(Cancelled)
        } else {
            Ok(())
        }
    }

    /// An edge between two steps of long work: waits here while a snapshot is taken.
    pub fn step(&self) -> Result<(), Cancelled> {
        self.until(|_| Some(()))
    }
}
