//! The loop: what arrives on the link is handled, what is ready is moved, and nothing is done while a snapshot is taken.

use crate::dial::Dial;
use crate::exec::{Defaults, Execs, Side};
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::frame::{kind, Frame};
use crate::hold::Hold;
use crate::identity::{self, Hello};
use crate::libc;
use crate::link::Link;
use crate::metrics;
use crate::payload::{Reader, Writer};
use crate::sys::{self, check, Waker};
use crate::watch;
use crate::worker::{self, Gate, Job, Pipe};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod op {
    pub const HELLO: u8 = 1;
    pub const QUIESCE: u8 = 2;
    pub const RELEASE: u8 = 3;
    pub const EXEC: u8 = 10;
    pub const ATTACH: u8 = 11;
    pub const EXECS: u8 = 12;
    pub const SIGNAL: u8 = 13;
    pub const RESIZE: u8 = 14;
    pub const READ: u8 = 20;
    pub const WRITE: u8 = 21;
    pub const STAT: u8 = 22;
    pub const LIST: u8 = 23;
    pub const MAKE_DIRECTORY: u8 = 24;
    pub const MOVE: u8 = 25;
    pub const REMOVE: u8 = 26;
    pub const SET_ATTRIBUTES: u8 = 27;
    pub const SYMLINK: u8 = 28;
    pub const WATCH: u8 = 29;
    pub const DIAL: u8 = 30;
    pub const METRICS: u8 = 31;
    pub const SET_XATTR: u8 = 32;
}

/// Threads that do blocking work at the same time; more requests wait.
const MAX_WORKERS: usize = 128;
const MAX_WATCHES: usize = 32;
/// Frames held back while a snapshot is taken.
const MAX_HELD: usize = 4096;
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

    fn handle(&mut self, frame: Frame) {
        if frame.kind == kind::ATTACH {
            return self.attach(&frame);
        }
        if frame.epoch != self.link.epoch || frame.epoch == 0 {
            return;
        }
        let channel = frame.channel;
        let control = frame.kind == kind::OPEN && frame.payload.first().map_or(false, |op| *op <= op::RELEASE);
        if !control && self.state != State::Running && !self.is_open(channel) {
            return self.hold_back(frame);
        }
        let mut r = Reader::new(&frame.payload);
        match frame.kind {
            kind::OPEN => {
                if let Err(failure) = self.open(channel, &frame.payload) {
                    self.link.fail(channel, &failure);
                }
            }
            kind::DATA => {
                if self.execs.sessions.contains_key(&channel) {
                    if let Ok(offset) = r.u64() {
                        if let Err(failure) = self.execs.input(channel, offset, r.rest()) {
                            self.execs.sessions.remove(&channel);
                            self.link.fail(channel, &failure);
                        }
                    }
                } else if let Some(pipe) = self.pipes.get(&channel) {
                    pipe.input(frame.payload);
                } else if let Some(dial) = self.dials.get_mut(&channel) {
                    dial.input(&frame.payload);
                }
            }
            kind::CREDIT => {
                if let (Ok(stream), Ok(bytes)) = (r.u8(), r.u32()) {
                    let bytes = u64::from(bytes);
                    self.execs.credit(channel, usize::from(stream), bytes);
                    if let Some(pipe) = self.pipes.get(&channel) {
                        pipe.credit(bytes);
                    }
                    if let Some(dial) = self.dials.get_mut(&channel) {
                        dial.credit(bytes);
                    }
                }
            }
            kind::END => {
                if self.execs.sessions.contains_key(&channel) {
                    if let Ok(offset) = r.u64() {
                        if let Err(failure) = self.execs.end_input(channel, offset) {
                            self.execs.sessions.remove(&channel);
                            self.link.fail(channel, &failure);
                        }
                    }
                } else if let Some(pipe) = self.pipes.get(&channel) {
                    pipe.end_input();
                } else if let Some(dial) = self.dials.get_mut(&channel) {
                    dial.end_input();
                }
            }
            kind::CLOSE => self.close(channel),
            _ => {}
        }
    }

    fn is_open(&self, channel: u32) -> bool {
        self.execs.sessions.contains_key(&channel)
            || self.pipes.contains_key(&channel)
            || self.dials.contains_key(&channel)
    }

    fn close(&mut self, channel: u32) {
        self.execs.sessions.remove(&channel);
        self.dials.remove(&channel);
        self.waiting.retain(|(c, _, _)| *c != channel);
        if let Some(pipe) = self.pipes.remove(&channel) {
            pipe.cancel();
        }
    }

    fn hold_back(&mut self, frame: Frame) {
        if frame.kind == kind::CLOSE {
            self.held.retain(|f| f.channel != frame.channel);
        } else if self.held.len() < MAX_HELD {
            self.held.push_back(frame);
        } else if frame.kind == kind::OPEN {
            let busy = "the guest is being saved and too many requests wait";
            self.link.fail(frame.channel, &Failure::new("TooManyRequests", busy));
        }
    }

    /// A host has attached: what the last one had open ends. Processes and their output stay.
    fn attach(&mut self, frame: &Frame) {
        let epoch = match Reader::new(&frame.payload).u32() {
            Ok(epoch) if epoch != 0 => epoch,
            _ => return,
        };
        self.quiescing = None;
        self.held.clear();
        self.waiting.clear();
        self.execs.sessions.clear();
        self.dials.clear();
        for pipe in self.pipes.values() {
            pipe.cancel();
        }
        self.pipes.clear();
        let mut w = Writer::new();
        w.u8(match self.state {
            State::Fresh => 0,
            State::Running => 1,
            State::Draining | State::Holding | State::Held => 2,
        });
        w.text(env!("CARGO_PKG_VERSION"));
        self.link.attach(epoch, &w.done());
    }

    fn open(&mut self, channel: u32, payload: &[u8]) -> Outcome<()> {
        let mut r = Reader::new(payload);
        let op = r.u8()?;
        let window = u64::from(r.u32()?);
        let answer = match op {
            op::HELLO => {
                let hello = Hello::read(&mut r)?;
                identity::assume(&hello)?;
                self.execs.ids_from(hello.time / 1_000_000);
                self.defaults = Defaults { env: hello.env, user: hello.user, cwd: hello.cwd };
                self.greeted = true;
                self.go_on(channel);
                return Ok(());
            }
            op::QUIESCE => {
                match self.state {
                    State::Held => self.link.send(kind::REPLY, channel, &[]),
                    State::Draining | State::Holding => self.quiescing = Some(channel),
                    State::Fresh | State::Running => {
                        self.gate.close();
                        self.execs.stop_time(Instant::now());
                        self.state = State::Draining;
                        self.quiescing = Some(channel);
                    }
                }
                return Ok(());
            }
            op::RELEASE => {
                self.go_on(channel);
                return Ok(());
            }
            op::EXEC => self.execs.start(&mut r, &self.defaults, channel, window)?,
            op::ATTACH => self.execs.attach(&mut r, channel, window)?,
            op::EXECS => self.execs.list(),
            op::SIGNAL => self.execs.signal(&mut r)?,
            op::RESIZE => self.execs.resize(&mut r)?,
            op::DIAL => {
                let dial = Dial::start(r.u16()?, window)?;
                self.dials.insert(channel, dial);
                return Ok(());
            }
            _ => return self.work(op, channel, window, r.rest()),
        };
        self.link.send(kind::REPLY, channel, &answer);
        Ok(())
    }

    fn work(&mut self, op: u8, channel: u32, window: u64, body: &[u8]) -> Outcome<()> {
        let run: fn(&Pipe, &[u8]) -> Outcome<()> = match op {
            op::READ => files::read,
            op::WRITE => files::write,
            op::STAT => files::stat,
            op::LIST => files::list,
            op::MAKE_DIRECTORY => files::make_directory,
            op::MOVE => files::rename,
            op::REMOVE => files::remove,
            op::SET_ATTRIBUTES => files::set_attributes,
            op::SYMLINK => files::symlink,
            op::SET_XATTR => files::set_xattr,
            op::WATCH => return self.watch(channel, window, body),
            op::METRICS => metrics::answer,
            _ => return Err(Failure::new("NotImplemented", format!("the guest does not know operation {}", op))),
        };
        let pipe = Pipe::new(&self.gate, window, None);
        let body = body.to_vec();
        self.pipes.insert(channel, pipe.clone());
        self.waiting.push_back((channel, pipe, Box::new(move |pipe| run(pipe, &body))));
        Ok(())
    }

    /// A watch lasts: it does not count among those who work, and begins at once.
    fn watch(&mut self, channel: u32, window: u64, body: &[u8]) -> Outcome<()> {
        self.watching.retain(|pipe| !pipe.is_finished());
        if self.watching.len() >= MAX_WATCHES {
            return Err(Failure::new("TooManyRequests", format!("there are {} watches already", MAX_WATCHES)));
        }
        let alarm = Waker::new().map_err(|e| Failure::io("cannot watch", &e))?;
        let pipe = Pipe::new(&self.gate, window, Some(alarm));
        let body = body.to_vec();
        worker::start(pipe.clone(), Box::new(move |pipe| watch::watch(pipe, &body)))
            .map_err(|e| Failure::io("cannot start a thread", &e))?;
        self.pipes.insert(channel, pipe.clone());
        self.watching.push(pipe);
        Ok(())
    }

    fn begin(&mut self, channel: u32, pipe: Arc<Pipe>, job: Job) {
        self.working.push(pipe.clone());
        if let Err(error) = worker::start(pipe, job) {
            self.working.pop();
            self.pipes.remove(&channel);
            self.link.fail(channel, &Failure::io("cannot start a thread", &error));
        }
    }

    /// Ends the wait for a still moment: then user processes are held, the disk is synced, and the host may save.
    fn drain(&mut self) {
        if self.state == State::Draining && self.gate.is_still() {
            self.hold.begin(Instant::now());
            self.state = State::Holding;
        }
        if self.state == State::Holding {
            self.reap();
            if !self.hold.is_complete(Instant::now()) {
                return;
            }
            if let Ok(root) = sys::open("/", libc::O_RDONLY | libc::O_DIRECTORY) {
                unsafe { libc::syncfs(root.as_raw_fd()) };
            }
            self.state = State::Held;
            if let Some(channel) = self.quiescing.take() {
                self.link.send(kind::REPLY, channel, &[]);
            }
        }
    }

    /// After a save in the source, after HELLO everywhere: everything goes on.
    fn go_on(&mut self, channel: u32) {
        let was_quiet = !self.moves();
        if let Some(waiting) = self.quiescing.take() {
            let released = Failure::new("Conflict", "the guest was released before it was still");
            self.link.fail(waiting, &released);
        }
        self.link.send(kind::REPLY, channel, &[]);
        self.state = if self.greeted { State::Running } else { State::Fresh };
        if was_quiet {
            self.hold.end();
            self.execs.resume_time(Instant::now());
            self.gate.open();
        }
        for frame in std::mem::take(&mut self.held) {
            self.handle(frame);
        }
    }
}
