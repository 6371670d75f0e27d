//! The loop: what arrives on the link is handled, what is ready is moved, and nothing is done while a snapshot is taken.

mod quiet;
mod requests;

use crate::dial::Dial;
use crate::exec::{Defaults, Execs, Side};
use crate::frame::Frame;
use crate::hold::Hold;
use crate::libc;
use crate::link::Link;
use crate::pipe::{Gate, Pipe};
use crate::sys::{self, check, Waker};
use crate::worker::Job;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Threads that do blocking work at the same time; more requests wait.
const MAX_WORKERS: usize = 128;
/// How long to wait for a host when the stream itself has ended.
const ENDED_WAIT: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Booted, no HELLO yet.
    Fresh,
    Running,
    /// Finishing what is under way.
    Draining,
    /// Waiting for user processes to stand still.
    Holding,
    /// Until RELEASE in the source, HELLO in a copy.
    Held,
}

pub struct Agent {
    link: Link,
    state: State,
    /// There was a HELLO: without one, nothing is done for anybody.
    greeted: bool,
    /// Who is told when all is still.
    quiescing: Option<u32>,
    hold: Hold,
    execs: Execs,
    defaults: Defaults,
    dials: BTreeMap<u32, Dial>,
    pipes: BTreeMap<u32, Arc<Pipe>>,
    /// Pipes of all threads, those of channels that are gone too.
    working: Vec<Arc<Pipe>>,
    watching: Vec<Arc<Pipe>>,
    waiting: VecDeque<(u32, Arc<Pipe>, Job)>,
    gate: Arc<Gate>,
    /// Requests, and what follows them on their channels, that wait for the end of a snapshot.
    held: VecDeque<Frame>,
    children: OwnedFd,
}

#[derive(Clone, Copy)]
enum Source {
    Input,
    Output,
    Children,
    Waker,
    Exec(u64, Side),
    Dial(u32),
}

impl Agent {
    pub fn new() -> io::Result<Agent> {
        let children = unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            check(libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut()))?;
            let mut one: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut one);
            libc::sigaddset(&mut one, libc::SIGCHLD);
            OwnedFd::from_raw_fd(check(libc::signalfd(-1, &one, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?)
        };
        Ok(Agent {
            link: Link::new(0, 1),
            state: State::Fresh,
            greeted: false,
            quiescing: None,
            hold: Hold::default(),
            execs: Execs::new(),
            defaults: Defaults::default(),
            dials: BTreeMap::new(),
            pipes: BTreeMap::new(),
            working: Vec::new(),
            watching: Vec::new(),
            waiting: VecDeque::new(),
            gate: Arc::new(Gate::new(Waker::new()?)),
            held: VecDeque::new(),
            children,
        })
    }

    /// Waits until something can be done, and does it.
    pub fn turn(&mut self) {
        let (sources, mut fds, timeout) = self.interest();
        let timeout = timeout.map_or(-1, |t| t.as_millis().min(60_000) as libc::c_int + 1);
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout) };
        let mut dialled = BTreeMap::new();
        let mut input = self.link.ended;
        if ready > 0 {
            for (source, fd) in sources.iter().zip(&fds).filter(|(_, fd)| fd.revents != 0) {
                match *source {
                    Source::Input => input = true,
                    Source::Output => {}
                    Source::Children => self.reap(),
                    Source::Waker => self.gate.waker.clear(),
                    Source::Exec(id, side) => self.execs.ready(id, side),
                    Source::Dial(channel) => {
                        dialled.insert(channel, fd.revents);
                    }
                }
            }
        }
        if input {
            let mut messages = Vec::new();
            self.link.receive(&mut messages);
            for message in messages {
                self.handle(message);
            }
        }
        let now = Instant::now();
        if self.moves() {
            self.execs.tick(now);
            self.execs.settle();
            let link = &mut self.link;
            self.dials.retain(|channel, dial| !dial.turn(*channel, dialled.get(channel).copied().unwrap_or(0), link));
        }
        self.drain();
        self.send();
    }

    /// Whether processes and connections are served: not while a snapshot is taken.
    fn moves(&self) -> bool {
        matches!(self.state, State::Fresh | State::Running)
    }

    fn interest(&mut self) -> (Vec<Source>, Vec<libc::pollfd>, Option<Duration>) {
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let mut want = |fd, events, source| {
            sources.push(source);
            fds.push(libc::pollfd { fd, events, revents: 0 });
        };
        let now = Instant::now();
        want(self.children.as_raw_fd(), libc::POLLIN, Source::Children);
        want(self.gate.waker.fd(), libc::POLLIN, Source::Waker);
        if !self.link.ended {
            if self.link.wants_input() {
                want(self.link.input, libc::POLLIN, Source::Input);
            }
            if self.link.wants_output() {
                want(self.link.output, libc::POLLOUT, Source::Output);
            }
        }
        let mut deadline = None;
        if self.moves() {
            self.execs.interest(now, |fd, events, id, side| want(fd, events, Source::Exec(id, side)));
            for (channel, dial) in &self.dials {
                let events = dial.interest(&self.link);
                if events != 0 {
                    want(dial.fd(), events, Source::Dial(*channel));
                }
            }
            deadline = self.execs.next_deadline();
        }
        if self.state == State::Holding {
            deadline = self.hold.deadline();
        }
        let deadline = deadline.into_iter().chain(self.link.deadline()).min();
        let mut timeout = deadline.map(|d| d.saturating_duration_since(now));
        if self.link.ended {
            timeout = Some(timeout.map_or(ENDED_WAIT, |t| t.min(ENDED_WAIT)));
        }
        (sources, fds, timeout)
    }

    /// Collects every child that ended: the agent's own, and orphans of the whole sandbox.
    fn reap(&mut self) {
        // Only wakes: whoever has ended is found below. The signal is pending once, however many there are.
        let mut info = [0u8; 1024];
        let _ = sys::read(self.children.as_raw_fd(), &mut info);
        loop {
            let mut status = 0;
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WALL) };
            if pid <= 0 {
                return;
            }
            if !self.hold.heard(pid, status) {
                self.execs.reaped(pid, status);
            }
        }
    }

    /// Fills the link from everything that streams, and empties it as far as the host takes it.
    fn send(&mut self) {
        loop {
            for (channel, pipe) in &self.pipes {
                pipe.pump(*channel, &mut self.link);
            }
            self.execs.pump(&mut self.link);
            self.pipes.retain(|_, pipe| !pipe.is_finished());
            self.working.retain(|pipe| !pipe.is_finished());
            while self.working.len() < MAX_WORKERS {
                match self.waiting.pop_front() {
                    Some((channel, pipe, job)) => self.begin(channel, pipe, job),
                    None => break,
                }
            }
            if !self.link.wants_output() || self.link.ended {
                return;
            }
            self.link.flush();
            if self.link.blocked || self.link.ended {
                return;
            }
        }
    }
}
