//! What the host says: requests, and the frames that belong to them.

use super::{Agent, State};
use crate::dial::Dial;
use crate::exec::Defaults;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::frame::{kind, Frame};
use crate::identity::{self, Hello};
use crate::metrics;
use crate::payload::{Reader, Writer};
use crate::pipe::Pipe;
use crate::sys::Waker;
use crate::watch;
use crate::worker::{self, Job};
use std::sync::Arc;
use std::time::Instant;

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

const MAX_WATCHES: usize = 32;
/// Frames held back while a snapshot is taken.
const MAX_HELD: usize = 4096;

impl Agent {
    pub(super) fn handle(&mut self, frame: Frame) {
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
            op::EXEC => {
                let (answer, is_awaited) = self.execs.start(&mut r, &self.defaults, channel, window)?;
                if is_awaited {
                    self.link.send_in_company(kind::REPLY, channel, &answer);
                    return Ok(());
                }
                answer
            }
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

    pub(super) fn begin(&mut self, channel: u32, pipe: Arc<Pipe>, job: Job) {
        self.working.push(pipe.clone());
        if let Err(error) = worker::start(pipe, job) {
            self.working.pop();
            self.pipes.remove(&channel);
            self.link.fail(channel, &Failure::io("cannot start a thread", &error));
        }
    }
}
