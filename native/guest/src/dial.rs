//! Connections to TCP ports on the guest's loopback.

use crate::failure::Failure;
use crate::frame::kind;
use crate::libc;
use crate::link::Link;
use crate::payload::Writer;
use crate::sys::{self, check, Got};
use std::collections::VecDeque;
use std::io;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd, RawFd};

enum State {
    Connecting { v6: bool },
    Open,
}

pub struct Dial {
    port: u16,
    socket: OwnedFd,
    state: State,
    credit: u64,
    /// From the host, not yet taken by the socket.
    buffer: VecDeque<u8>,
    host_ended: bool,
    shut: bool,
    guest_ended: bool,
    /// Why the socket takes nothing more; what the host sends from then on is dropped.
    deaf: Option<io::Error>,
}

fn connect(port: u16, v6: bool) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    unsafe {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let socket = OwnedFd::from_raw_fd(check(libc::socket(family, kind, 0))?);
        let one: libc::c_int = 1;
        let size = std::mem::size_of_val(&one) as u32;
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, (&one as *const i32).cast(), size);
        let result = if v6 {
            let mut address: libc::sockaddr_in6 = std::mem::zeroed();
            address.sin6_family = family as u16;
            address.sin6_port = port.to_be();
            address.sin6_addr.s6_addr[15] = 1;
            let size = std::mem::size_of_val(&address) as u32;
            libc::connect(socket.as_raw_fd(), (&address as *const libc::sockaddr_in6).cast(), size)
        } else {
            let mut address: libc::sockaddr_in = std::mem::zeroed();
            address.sin_family = family as u16;
            address.sin_port = port.to_be();
            address.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
            let size = std::mem::size_of_val(&address) as u32;
            libc::connect(socket.as_raw_fd(), (&address as *const libc::sockaddr_in).cast(), size)
        };
        if result != 0 && sys::errno() != libc::EINPROGRESS {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }
}

impl Dial {
    pub fn start(port: u16, window: u64) -> Result<Dial, Failure> {
        let (socket, v6) = match connect(port, false) {
            Ok(socket) => (socket, false),
            Err(_) => (connect(port, true).map_err(|e| refused(port, &e))?, true),
        };
        Ok(Dial {
            port,
            socket,
            state: State::Connecting { v6 },
            credit: window,
            buffer: VecDeque::new(),
            host_ended: false,
            shut: false,
            guest_ended: false,
            deaf: None,
        })
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub fn interest(&self, link: &Link) -> libc::c_short {
        if let State::Connecting { .. } = self.state {
            return libc::POLLOUT;
        }
        let mut events = 0;
        if !self.guest_ended && self.credit > 0 && link.has_room() {
            events |= libc::POLLIN;
        }
        if !self.buffer.is_empty() {
            events |= libc::POLLOUT;
        }
        events
    }

    pub fn credit(&mut self, bytes: u64) {
        self.credit += bytes;
    }
    pub fn input(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }
    pub fn end_input(&mut self) {
        self.host_ended = true;
    }

    /// Moves what can be moved. True when the connection is over and its channel with it.
    pub fn turn(&mut self, channel: u32, events: libc::c_short, link: &mut Link) -> bool {
        if let State::Connecting { v6 } = self.state {
            if events == 0 {
                return false;
            }
            match self.connected() {
                Ok(()) => {
                    self.state = State::Open;
                    link.send(kind::REPLY, channel, &[]);
                }
                Err(error) => {
                    let next = if v6 { Err(error) } else { connect(self.port, true) };
                    match next {
                        Ok(socket) => {
                            self.socket = socket;
                            self.state = State::Connecting { v6: true };
                            return false;
                        }
                        Err(error) => {
                            link.fail(channel, &refused(self.port, &error));
                            return true;
                        }
                    }
                }
            }
        }
        match self.exchange(channel, events, link) {
            Ok(over) => over,
            Err(error) => {
                link.fail(channel, &Failure::io(&format!("connection to port {}", self.port), &error));
                true
            }
        }
    }

    fn connected(&self) -> io::Result<()> {
        let mut error: libc::c_int = 0;
        let mut size = std::mem::size_of_val(&error) as u32;
        let at = (&mut error as *mut i32).cast();
        check(unsafe { libc::getsockopt(self.fd(), libc::SOL_SOCKET, libc::SO_ERROR, at, &mut size) })?;
        if error == 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(error))
        }
    }

    fn exchange(&mut self, channel: u32, events: libc::c_short, link: &mut Link) -> io::Result<bool> {
        let mut taken = 0;
        while !self.buffer.is_empty() {
            let n = match sys::write(self.fd(), self.buffer.as_slices().0) {
                Ok(n) => n,
                // What was said before that can still be read, such as why the rest is not wanted.
                Err(error) => {
                    self.deaf = Some(error);
                    self.buffer.len()
                }
            };
            if n == 0 {
                break;
            }
            self.buffer.drain(..n);
            taken += n;
        }
        if taken > 0 {
            let mut w = Writer::new();
            w.u8(0).u32(taken as u32);
            link.send(kind::CREDIT, channel, &w.done());
        }
        if self.host_ended && self.buffer.is_empty() && !self.shut {
            self.shut = true;
            unsafe { libc::shutdown(self.fd(), libc::SHUT_WR) };
        }
        if events & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0 && !self.guest_ended {
            while self.credit > 0 && link.has_room() {
                let (got, more) = link.forward(channel, self.fd(), self.credit as usize)?;
                match got {
                    Got::Bytes(n) => self.credit -= n as u64,
                    Got::End => {
                        self.guest_ended = true;
                        link.send(kind::END, channel, &[]);
                    }
                    Got::Later => {}
                }
                if !more {
                    break;
                }
            }
        }
        if self.guest_ended {
            if let Some(error) = self.deaf.take() {
                return Err(error);
            }
        }
        Ok(self.guest_ended && self.shut)
    }
}

fn refused(port: u16, error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Failure {
            code: "NotFound",
            errno: libc::ECONNREFUSED,
            message: format!("nothing listens on port {} of the sandbox", port),
        },
        _ => Failure::io(&format!("connect to port {}", port), error),
    }
}
