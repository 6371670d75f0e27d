//! Quiet: the time between QUIESCE and RELEASE, or HELLO, in which nothing moves.

use super::{Agent, State};
use crate::failure::Failure;
use crate::frame::kind;
use crate::libc;
use crate::sys;
use std::os::unix::io::AsRawFd;
use std::time::Instant;

impl Agent {
    /// Ends the wait for a still moment: then user processes are held, the disk is synced, and the host may save.
    pub(super) fn drain(&mut self) {
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
            self.link.trim();
            if let Some(channel) = self.quiescing.take() {
                self.link.send(kind::REPLY, channel, &[]);
            }
        }
    }

    /// After a save in the source, after HELLO everywhere: everything goes on.
    pub(super) fn go_on(&mut self, channel: u32) {
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
