//! Execs: processes started for the host, their kept output, and the sessions attached to them.

use crate::failure::{Failure, Outcome};
use crate::frame::{kind, MAX_PAYLOAD};
use crate::libc;
use crate::link::Link;
use crate::payload::{Malformed, Reader, Writer};
use crate::pty;
use crate::ring::Ring;
use crate::spawn::{Program, Spawner};
use crate::sys::{self, Got};
use crate::users::{self, User};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::os::unix::io::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Exited execs that are remembered.
const MAX_EXITED: usize = 1000;
/// Kept output of all exited execs together; the oldest goes first.
const MAX_EXITED_OUTPUT: usize = 16 << 20;
/// Arguments in a record are cut off beyond this.
const MAX_RECORDED_ARGV: usize = 4096;
/// Of each stream, what is still read once the process has exited and others write on.
const MAX_AFTER_EXIT: u64 = 1 << 20;
/// How long a process with overflow `drop` waits for a session that is attached but takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

pub mod event {
    pub const GAP: u8 = 1;
    pub const EXIT: u8 = 2;
    pub const STDIN_TAKEN: u8 = 3;
    pub const STDIN_CLOSED: u8 = 4;
}

/// What HELLO gave for all execs.
#[derive(Default)]
pub struct Defaults {
    pub env: Vec<(String, String)>,
    pub user: String,
    pub cwd: String,
}

struct Request {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
    user: String,
    tag: Option<String>,
    size: Option<(u16, u16)>,
    stdin: bool,
    timeout: Option<Duration>,
    keep: usize,
    block: bool,
}

impl Request {
    fn read(r: &mut Reader) -> Result<Request, Malformed> {
        Ok(Request {
            argv: r.list(|r| r.text())?,
            env: r.list(|r| Ok((r.text()?, r.text()?)))?,
            cwd: r.text()?,
            user: r.text()?,
            tag: r.option(|r| r.text())?,
            size: r.option(|r| Ok((r.u16()?, r.u16()?)))?,
            stdin: r.u8()? != 0,
            timeout: r.option(|r| r.u64())?.map(Duration::from_millis),
            keep: (r.u32()? as usize).max(4096).min(64 << 20),
            block: r.u8()? != 0,
        })
    }
}

struct Stream {
    fd: Option<OwnedFd>,
    /// A terminal that nobody has open at this moment: not read again before the exit.
    quiet: bool,
    ring: Ring,
    /// Consumed by some session up to here.
    acked: u64,
    /// When waiting for a session that lags behind ends.
    patience: Option<Instant>,
}

impl Stream {
    fn new(fd: Option<OwnedFd>, keep: usize) -> Stream {
        Stream { fd, quiet: false, ring: Ring::new(keep), acked: 0, patience: None }
    }
}

struct Stdin {
    /// Absent with a terminal, whose one descriptor serves both ways.
    fd: Option<OwnedFd>,
    buffer: VecDeque<u8>,
    taken: u64,
    /// The last byte taken.
    last: u8,
    /// No more will come: close once the buffer is empty.
    ending: bool,
    closed: bool,
}

pub struct Exec {
    id: u64,
    pid: libc::pid_t,
    argv: Vec<String>,
    cwd: String,
    user: String,
    tag: Option<String>,
    terminal: bool,
    started: u64,
    keep: usize,
    block: bool,
    streams: [Stream; 2],
    stdin: Stdin,
    deadline: Option<Instant>,
    /// What was left of the time while nothing runs.
    remaining: Option<Duration>,
    /// Bytes read after its exit.
    after_exit: u64,
    timed_out: bool,
    /// Exit code, or 256 + signal.
    exit: Option<u32>,
    /// All output up to the exit is in the rings.
    drained: bool,
}

/// One attachment of the host to an exec.
pub struct Session {
    exec: u64,
    next: [u64; 2],
    credit: [u64; 2],
    acked: [u64; 2],
    /// It took nothing for so long that the process no longer waits for it.
    stalled: [bool; 2],
    stdin_told: u64,
    /// Bytes of this session that wait in the exec's buffer, and bytes whose credit is to be given back.
    stdin_held: u64,
    stdin_grant: u64,
    closed_told: bool,
}

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

/// What a descriptor in the poll set belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Stdin,
    Output(usize),
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

    pub fn start(&mut self, r: &mut Reader, defaults: &Defaults, channel: u32, window: u64) -> Outcome<Vec<u8>> {
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
            cwd: String::new(),
            user: user.name.clone(),
            tag: request.tag.clone(),
            terminal: request.size.is_some(),
            started: sys::realtime(),
            keep: request.keep,
            block: request.block,
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
        let program =
            Program { paths: &paths, argv: &argv, env: &env, cwds: &c_cwds, user: &user, stdio, terminal };
        let (pid, cwd) = self.spawner.spawn(&program)?;
        exec.pid = pid;
        exec.cwd = cwds.swap_remove(cwd);
        let id = exec.id;
        self.next_id += 1;
        self.by_pid.insert(pid, id);
        self.active.insert(id, exec);
        self.open_session(id, [None, None], channel, window)
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
                    } else if !exec.block && stream.patience.is_none() {
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
                    while self.active.get(&id).map_or(false, |e| e.after_exit < MAX_AFTER_EXIT) && self.collect(id, i) {}
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
            if let Some(exec) = self.active.remove(id) {
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
                if let Some(mut session) = self.sessions.remove(&channel) {
                    self.turn = channel;
                    let (sent, ended) = self.serve(channel, &mut session, link);
                    moved |= sent;
                    if !ended {
                        self.sessions.insert(channel, session);
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Sends a session at most one frame of each stream. Returns whether there may be more, and whether the session is over.
    fn serve(&mut self, channel: u32, session: &mut Session, link: &mut Link) -> (bool, bool) {
        let exec = match self.active.get_mut(&session.exec) {
            Some(exec) => exec,
            None => match self.retired.get_mut(&session.exec) {
                Some(exec) => exec,
                None => return (false, true),
            },
        };
        let mut moved = false;
        let mut w = Writer::new();
        for i in 0..2 {
            let stream = &mut exec.streams[i];
            let (base, end) = (stream.ring.base(), stream.ring.end());
            if session.next[i] < base {
                w.u8(event::GAP).u8(i as u8).u64(session.next[i]).u64(base);
                link.send(kind::EVENT, channel, &w.done());
                session.next[i] = base;
                session.acked[i] = session.acked[i].max(base);
            }
            let n = (end - session.next[i]).min(session.credit[i]).min(MAX_PAYLOAD as u64 - 9) as usize;
            if n > 0 {
                w.u8(i as u8).u64(session.next[i]);
                let (a, b) = stream.ring.parts(session.next[i], n);
                w.raw(a).raw(b);
                link.send(kind::DATA, channel, &w.done());
                session.next[i] += n as u64;
                session.credit[i] -= n as u64;
                session.stalled[i] = false;
                stream.patience = None;
                moved = true;
            }
        }
        if exec.stdin.taken > session.stdin_told {
            session.stdin_told = exec.stdin.taken;
            w.u8(event::STDIN_TAKEN).u64(exec.stdin.taken);
            link.send(kind::EVENT, channel, &w.done());
        }
        if session.stdin_grant > 0 {
            w.u8(0).u32(session.stdin_grant as u32);
            link.send(kind::CREDIT, channel, &w.done());
            session.stdin_grant = 0;
        }
        if (exec.stdin.closed || exec.stdin.ending) && !session.closed_told {
            session.closed_told = true;
            w.u8(event::STDIN_CLOSED);
            link.send(kind::EVENT, channel, &w.done());
        }
        let all = (0..2).all(|i| session.next[i] == exec.streams[i].ring.end());
        if let (true, true, Some(exit)) = (all, exec.drained, exec.exit) {
            w.u8(event::EXIT).u32(exit).u8(u8::from(exec.timed_out));
            link.send(kind::EVENT, channel, &w.done());
            return (moved, true);
        }
        (moved, false)
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

/// How far the sessions of one exec are behind on one stream.
#[derive(Clone, Default)]
struct Lag {
    acked: Option<u64>,
    next: Option<u64>,
}

impl Lag {
    fn add(&mut self, session: &Session, i: usize) {
        let least = |a: Option<u64>, b: u64| Some(a.map_or(b, |a| a.min(b)));
        self.acked = least(self.acked, session.acked[i]);
        if !session.stalled[i] {
            self.next = least(self.next, session.next[i]);
        }
    }
}

impl Exec {
    fn stdin_fd(&self) -> Option<RawFd> {
        let fd = if self.terminal { &self.streams[0].fd } else { &self.stdin.fd };
        fd.as_ref().map(|fd| fd.as_raw_fd())
    }

    fn close_stdin(&mut self) {
        self.stdin.fd = None;
        self.stdin.buffer = VecDeque::new();
        self.stdin.closed = true;
    }

    /// No more input will come. A terminal is told by its end-of-file character, twice when a line has begun.
    fn end_stdin(&mut self) {
        if self.terminal && !self.stdin.ending {
            let line_begun = self.stdin.taken > 0 && self.stdin.last != b'\n';
            self.stdin.buffer.extend(&[pty::END_OF_FILE; 2][..1 + usize::from(line_begun)]);
        }
        self.stdin.ending = true;
    }

    /// Gives end of file once everything before it has gone.
    fn settle_stdin(&mut self) {
        let stdin = &self.stdin;
        if stdin.closed || !stdin.ending || !stdin.buffer.is_empty() {
            return;
        }
        self.close_stdin();
    }

    /// Bytes of output that may be read now.
    fn room(&self, i: usize, lag: &Lag) -> u64 {
        let stream = &self.streams[i];
        let keep = self.keep as u64;
        let end = stream.ring.end();
        if self.drained {
            u64::MAX
        } else if self.block {
            keep.saturating_sub(end - lag.acked.unwrap_or(stream.acked).max(stream.ring.base()))
        } else {
            lag.next.map_or(u64::MAX, |next| keep.saturating_sub(end - next.max(stream.ring.base())))
        }
    }
}

fn describe(w: &mut Writer, exec: &Exec) {
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

/// Arguments as they are remembered: no more than a record should hold.
fn recorded(argv: &[String]) -> Vec<String> {
    let mut left = MAX_RECORDED_ARGV;
    let mut kept = Vec::new();
    for argument in argv {
        let cut = (0..=argument.len().min(left)).rev().find(|n| argument.is_char_boundary(*n)).unwrap_or(0);
        kept.push(argument[..cut].to_string());
        left = left.saturating_sub(cut + 1);
        if left == 0 {
            break;
        }
    }
    kept
}

fn absolute(path: &str, home: &str) -> String {
    if path.starts_with('/') {
        path.to_string()
    } else {
        format!("{}/{}", home.trim_end_matches('/'), path)
    }
}

fn environment(request: &Request, defaults: &Defaults, user: &User) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    for (key, value) in defaults.env.iter().chain(&request.env) {
        match env.iter_mut().find(|(k, _)| k == key) {
            Some(pair) => pair.1 = value.clone(),
            None => env.push((key.clone(), value.clone())),
        }
    }
    let term = if request.size.is_some() { Some("xterm") } else { None };
    let fallbacks = [
        ("PATH", Some(DEFAULT_PATH)),
        ("HOME", Some(user.home.as_str())),
        ("USER", Some(user.name.as_str())),
        ("LOGNAME", Some(user.name.as_str())),
        ("SHELL", Some(user.shell.as_str())),
        ("TERM", term),
    ];
    for (key, value) in fallbacks {
        if let (Some(value), false) = (value, env.iter().any(|(k, _)| k == key)) {
            env.push((key.to_string(), value.to_string()));
        }
    }
    env
}

fn c_strings(strings: &[String]) -> Outcome<Vec<CString>> {
    let convert = |s: &String| CString::new(s.as_str());
    strings
        .iter()
        .map(convert)
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::invalid("arguments, environment and paths must not contain a NUL byte"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    fn request(name: &str) -> Request {
        let frame = golden::frame(name);
        let mut r = Reader::new(&frame.payload);
        assert_eq!((r.u8(), r.u32()), (Ok(10), Ok(262_144)));
        let request = Request::read(&mut r).expect(name);
        assert!(r.rest().is_empty());
        request
    }

    #[test]
    fn requests_are_read_as_agreed() {
        let plain = request("exec-plain");
        assert_eq!((plain.argv, plain.env.len(), plain.cwd.as_str(), plain.user.as_str()), (vec!["true".to_string()], 0, "", ""));
        assert_eq!((plain.tag, plain.size, plain.stdin, plain.timeout), (None, None, false, None));
        assert_eq!((plain.keep, plain.block), (1 << 20, false));
        let full = request("exec-full");
        assert_eq!((full.argv.len(), full.env), (3, vec![("K".to_string(), "V".to_string())]));
        assert_eq!((full.cwd.as_str(), full.user.as_str(), full.tag.as_deref()), ("/w", "u:g", Some("t")));
        assert_eq!((full.size, full.stdin, full.timeout), (Some((80, 24)), true, Some(Duration::from_millis(1500))));
        assert_eq!((full.keep, full.block), (8192, true));
    }

    #[test]
    fn records_are_written_as_agreed() {
        let mut streams = [Stream::new(None, 4096), Stream::new(None, 4096)];
        streams[0].ring.push(&[0; 10]);
        let exec = Exec {
            id: 1_790_000_000_123,
            pid: 42,
            argv: ["sh", "-c", "echo"].map(str::to_string).to_vec(),
            cwd: "/w".to_string(),
            user: "u".to_string(),
            tag: Some("t".to_string()),
            terminal: false,
            started: 1_790_000_000_123_000_000,
            keep: 4096,
            block: false,
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

    #[test]
    fn long_arguments_are_cut_at_a_character() {
        let kept = recorded(&["é".repeat(3000), "more".to_string()]);
        assert_eq!(kept, vec!["é".repeat(2048)]);
        assert_eq!(recorded(&["a".to_string(), "b".to_string()]), vec!["a", "b"]);
    }
}
