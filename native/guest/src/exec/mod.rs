//! Execs: processes started for the host, their kept output, and the sessions attached to them.

mod process;
mod request;
mod session;
mod streams;

pub use request::Defaults;
pub use session::Session;
pub use streams::Side;

use crate::failure::{Failure, Outcome};
use crate::libc;
use crate::payload::{Reader, Writer};
use crate::pty;
use crate::spawn::{Program, Spawner};
use crate::sys;
use crate::users;
use process::{describe, Exec, Stdin, Stream};
use request::{absolute, c_strings, environment, recorded, recorded_env, Overflow, Request};
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::io::{AsRawFd, OwnedFd};
use std::time::Instant;

pub struct Execs {
    next_id: u64,
    /// Those that run, or whose output others still write to.
    active: BTreeMap<u64, Exec>,
    retired: BTreeMap<u64, Exec>,
    by_pid: BTreeMap<libc::pid_t, u64>,
    pub sessions: BTreeMap<u32, Session>,
    /// The last channel served: the next one goes first.
    turn: u32,
    spawner: Spawner,
    /// /dev/null, opened once.
    null: Option<OwnedFd>,
    scratch: Vec<u8>,
}

impl Execs {
    pub fn new() -> Execs {
        Execs {
            next_id: 1,
            active: BTreeMap::new(),
            retired: BTreeMap::new(),
            by_pid: BTreeMap::new(),
            sessions: BTreeMap::new(),
            turn: 0,
            spawner: Spawner::new(),
            null: None,
            scratch: vec![0; 64 * 1024],
        }
    }

    /// Ids from here on are at least this: a sandbox that goes back to an older snapshot must not use one twice.
    pub fn ids_from(&mut self, least: u64) {
        self.next_id = self.next_id.max(least);
    }

    fn find(&mut self, id: u64) -> Outcome<&mut Exec> {
        match self.active.get_mut(&id) {
            Some(exec) => Ok(exec),
            None => self.retired.get_mut(&id).ok_or_else(|| Failure::new("NotFound", format!("no exec {}", id))),
        }
    }

    /// Gives the answer, and whether the host waits for output or the end rather than for this answer.
    pub fn start(
        &mut self,
        r: &mut Reader,
        defaults: &Defaults,
        channel: u32,
        window: u64,
    ) -> Outcome<(Vec<u8>, bool)> {
        let request = Request::read(r)?;
        let wanted = if request.user.is_empty() { defaults.user.as_str() } else { request.user.as_str() };
        let user = users::resolve(if wanted.is_empty() { "root" } else { wanted })?;
        let env = environment(&request, defaults, &user);
        let mut cwds = Vec::new();
        if request.cwd.is_empty() {
            for cwd in [&defaults.cwd, &user.home] {
                if cwd.starts_with('/') {
                    cwds.push(cwd.clone());
                }
            }
            cwds.push("/".to_string());
        } else {
            cwds.push(absolute(&request.cwd, &user.home));
        }
        let program = request.argv.first().filter(|p| !p.is_empty());
        let program = program.ok_or_else(|| Failure::invalid("argv is empty"))?;
        let path = env.iter().find(|(k, _)| k == "PATH").map(|(_, v)| v.as_str()).unwrap_or("");
        let paths: Vec<String> = if program.contains('/') {
            vec![program.clone()]
        } else {
            let in_directory = |d: &str| if d.is_empty() { program.clone() } else { format!("{}/{}", d, program) };
            path.split(':').map(in_directory).collect()
        };
        let (paths, argv, c_cwds) = (c_strings(&paths)?, c_strings(&request.argv)?, c_strings(&cwds)?);
        let env: Vec<String> = env.into_iter().map(|(k, v)| format!("{}={}", k, v)).collect();
        let env = c_strings(&env)?;

        let failed = |e: std::io::Error| Failure::io("cannot start a process", &e);
        let mut exec = Exec {
            id: self.next_id,
            pid: 0,
            argv: recorded(&request.argv),
            env: recorded_env(&request.env),
            cwd: String::new(),
            user: user.name.clone(),
            tag: request.tag.clone(),
            terminal: request.size.is_some(),
            started: sys::realtime(),
            keep: request.keep,
            overflow: request.overflow,
            streams: [Stream::new(None, request.keep), Stream::new(None, request.keep)],
            stdin: Stdin { fd: None, buffer: VecDeque::new(), taken: 0, last: 0, ending: false, closed: false },
            deadline: request.timeout.map(|t| Instant::now() + t),
            remaining: None,
            after_exit: 0,
            timed_out: false,
            exit: None,
            drained: false,
        };
        // The child's ends; closed when this function returns.
        let mut ends: Vec<OwnedFd> = Vec::new();
        let stdio = if let Some((cols, rows)) = request.size {
            let (master, slave) = pty::open(cols, rows, user.uid).map_err(failed)?;
            sys::set_nonblocking(master.as_raw_fd());
            exec.streams[0].fd = Some(master);
            let fd = slave.as_raw_fd();
            ends.push(slave);
            [fd, fd, fd]
        } else {
            let input = if request.stdin {
                let (read, write) = sys::pipe().map_err(failed)?;
                sys::set_only_nonblocking(write.as_raw_fd());
                exec.stdin.fd = Some(write);
                let fd = read.as_raw_fd();
                ends.push(read);
                fd
            } else {
                match &self.null {
                    Some(null) => null.as_raw_fd(),
                    None => self.null.insert(sys::open("/dev/null", libc::O_RDONLY).map_err(failed)?).as_raw_fd(),
                }
            };
            let (out_read, out) = sys::pipe().map_err(failed)?;
            let (err_read, err) = sys::pipe().map_err(failed)?;
            sys::set_only_nonblocking(out_read.as_raw_fd());
            sys::set_only_nonblocking(err_read.as_raw_fd());
            exec.streams[0].fd = Some(out_read);
            exec.streams[1].fd = Some(err_read);
            let stdio = [input, out.as_raw_fd(), err.as_raw_fd()];
            ends.extend([out, err]);
            stdio
        };
        if !request.stdin {
            exec.end_stdin();
        }
        let terminal = exec.terminal;
        let program = Program { paths: &paths, argv: &argv, env: &env, cwds: &c_cwds, user: &user, stdio, terminal };
        let (pid, cwd) = self.spawner.spawn(&program)?;
        exec.pid = pid;
        exec.cwd = cwds.swap_remove(cwd);
        let id = exec.id;
        self.next_id += 1;
        self.by_pid.insert(pid, id);
        self.active.insert(id, exec);
        // One that may not lose output has somebody who reads it; who writes stdin or sees a terminal begins with the answer.
        let is_awaited = request.overflow != Overflow::Drop && !request.stdin && !terminal;
        Ok((self.open_session(id, [None, None], channel, window)?, is_awaited))
    }

    pub fn attach(&mut self, r: &mut Reader, channel: u32, window: u64) -> Outcome<Vec<u8>> {
        let id = r.u64()?;
        let from = [r.option(|r| r.u64())?, r.option(|r| r.u64())?];
        self.open_session(id, from, channel, window)
    }

    fn open_session(&mut self, id: u64, from: [Option<u64>; 2], channel: u32, window: u64) -> Outcome<Vec<u8>> {
        let exec = self.find(id)?;
        let mut next = [0; 2];
        for (i, stream) in exec.streams.iter().enumerate() {
            next[i] = from[i].unwrap_or_else(|| stream.ring.base());
            if next[i] > stream.ring.end() {
                return Err(Failure::invalid(format!("offset {} is beyond the output of exec {}", next[i], id)));
            }
        }
        let taken = exec.stdin.taken;
        let session = Session {
            exec: id,
            is_reader: window > 0,
            next,
            credit: [window; 2],
            acked: next,
            stalled: [false; 2],
            stdin_told: taken,
            stdin_held: 0,
            stdin_grant: 0,
            closed_told: false,
        };
        let mut w = Writer::new();
        describe(&mut w, exec);
        self.sessions.insert(channel, session);
        Ok(w.done())
    }

    pub fn list(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32((self.active.len() + self.retired.len()) as u32);
        for exec in self.retired.values().chain(self.active.values()) {
            describe(&mut w, exec);
        }
        // Behind the records, which cannot grow: for each what it was given.
        for exec in self.retired.values().chain(self.active.values()) {
            w.u32(exec.env.len() as u32);
            for (name, value) in &exec.env {
                w.text(name).text(value);
            }
        }
        w.done()
    }

    pub fn signal(&mut self, r: &mut Reader) -> Outcome<Vec<u8>> {
        let id = r.u64()?;
        let signal = r.u32()? as i32;
        let exec = self.find(id)?;
        if exec.exit.is_some() {
            return Err(Failure::new("InvalidState", format!("exec {} has exited", id)));
        }
        if unsafe { libc::kill(-exec.pid, signal) } != 0 {
            return Err(Failure::errno(&format!("signal {} to exec {}", signal, id), sys::errno()));
        }
        Ok(Vec::new())
    }

    pub fn resize(&mut self, r: &mut Reader) -> Outcome<Vec<u8>> {
        let id = r.u64()?;
        let (cols, rows) = (r.u16()?, r.u16()?);
        let exec = self.find(id)?;
        if !exec.terminal {
            return Err(Failure::new("InvalidState", format!("exec {} has no terminal", id)));
        }
        if let Some(master) = &exec.streams[0].fd {
            pty::resize(master.as_raw_fd(), cols, rows).map_err(|e| Failure::io("resize", &e))?;
        }
        Ok(Vec::new())
    }

    /// The host has consumed `bytes` of a stream.
    pub fn credit(&mut self, channel: u32, stream: usize, bytes: u64) {
        let session = match self.sessions.get_mut(&channel) {
            Some(session) if stream < 2 => session,
            _ => return,
        };
        session.credit[stream] += bytes;
        session.acked[stream] = (session.acked[stream] + bytes).min(session.next[stream]);
        let (id, acked) = (session.exec, session.acked[stream]);
        if let Ok(exec) = self.find(id) {
            exec.streams[stream].acked = exec.streams[stream].acked.max(acked);
        }
    }

    /// Bytes of stdin at their offset: what was taken already is skipped.
    pub fn input(&mut self, channel: u32, offset: u64, bytes: &[u8]) -> Outcome<()> {
        let id = match self.sessions.get(&channel) {
            Some(session) => session.exec,
            None => return Ok(()),
        };
        let exec = self.find(id)?;
        let stdin = &mut exec.stdin;
        let refused = stdin.closed || stdin.ending;
        if offset > stdin.taken && !refused {
            return Err(Failure::invalid(format!("stdin of exec {} ends at {}, not at {}", id, stdin.taken, offset)));
        }
        let skip = (stdin.taken.saturating_sub(offset) as usize).min(bytes.len());
        let fresh = if refused { &[] } else { &bytes[skip..] };
        stdin.taken += fresh.len() as u64;
        stdin.buffer.extend(fresh);
        stdin.last = fresh.last().copied().unwrap_or(stdin.last);
        let held = fresh.len() as u64;
        if let Some(session) = self.sessions.get_mut(&channel) {
            session.stdin_held += held;
            session.stdin_grant += bytes.len() as u64 - held;
        }
        Ok(())
    }

    /// No stdin comes after this offset.
    pub fn end_input(&mut self, channel: u32, offset: u64) -> Outcome<()> {
        let id = match self.sessions.get(&channel) {
            Some(session) => session.exec,
            None => return Ok(()),
        };
        let exec = self.find(id)?;
        if offset > exec.stdin.taken {
            return Err(Failure::invalid(format!("stdin of exec {} ends at {}", id, exec.stdin.taken)));
        }
        exec.end_stdin();
        Ok(())
    }

    /// Whom this child was, if it was an exec's own process.
    pub fn reaped(&mut self, pid: libc::pid_t, status: libc::c_int) {
        let id = match self.by_pid.remove(&pid) {
            Some(id) => id,
            None => return,
        };
        if let Some(exec) = self.active.get_mut(&id) {
            exec.exit = Some(if libc::WIFSIGNALED(status) {
                256 + libc::WTERMSIG(status) as u32
            } else {
                libc::WEXITSTATUS(status) as u32
            });
            exec.deadline = None;
            exec.remaining = None;
            exec.streams.iter_mut().for_each(|s| s.quiet = false);
        }
    }
}
