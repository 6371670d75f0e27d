//! One attachment of the host to an exec, and what it is sent.

use super::process::Exec;
use crate::frame::{kind, MAX_PAYLOAD};
use crate::link::Link;
use crate::payload::Writer;

mod event {
    pub const GAP: u8 = 1;
    pub const EXIT: u8 = 2;
    pub const STDIN_TAKEN: u8 = 3;
    pub const STDIN_CLOSED: u8 = 4;
}

/// Bytes of stdin that wait for the process beyond which nobody is told that theirs was taken: those who write one after the other,
/// each on an attachment of its own with credit of its own, wait then.
const MAX_WAITING_STDIN: usize = 64 * 1024;

/// One attachment of the host to an exec.
pub struct Session {
    pub(super) exec: u64,
    /// Opened without a window, to write stdin: it is sent no output and holds none up.
    pub(super) is_reader: bool,
    pub(super) next: [u64; 2],
    pub(super) credit: [u64; 2],
    pub(super) acked: [u64; 2],
    /// It took nothing for so long that the process no longer waits for it.
    pub(super) stalled: [bool; 2],
    pub(super) stdin_told: u64,
    /// Bytes of this session that wait in the exec's buffer, and bytes whose credit is to be given back.
    pub(super) stdin_held: u64,
    pub(super) stdin_grant: u64,
    pub(super) closed_told: bool,
}

impl Session {
    /// Sends at most one frame of each stream. Returns whether there may be more, and whether the session is over.
    pub(super) fn serve(&mut self, exec: &mut Exec, channel: u32, link: &mut Link) -> (bool, bool) {
        let mut moved = false;
        let mut w = Writer::new();
        let streams = if self.is_reader { 0..2 } else { 0..0 };
        for i in streams.clone() {
            let stream = &mut exec.streams[i];
            let (base, end) = (stream.ring.base(), stream.ring.end());
            // A gap is not flow-controlled: one that grows while nothing may follow it is told once, and whole.
            if self.next[i] < base && (self.credit[i] > 0 || base == end) {
                w.u8(event::GAP).u8(i as u8).u64(self.next[i]).u64(base);
                link.send(kind::EVENT, channel, &w.done());
                self.next[i] = base;
                self.acked[i] = self.acked[i].max(base);
            }
            let n = (end - self.next[i]).min(self.credit[i]).min(MAX_PAYLOAD as u64 - 9) as usize;
            if n > 0 {
                w.u8(i as u8).u64(self.next[i]);
                let (a, b) = stream.ring.parts(self.next[i], n);
                w.raw(a).raw(b);
                link.send(kind::DATA, channel, &w.done());
                self.next[i] += n as u64;
                self.credit[i] -= n as u64;
                self.stalled[i] = false;
                stream.patience = None;
                moved = true;
            }
        }
        if exec.stdin.taken > self.stdin_told && exec.stdin.buffer.len() <= MAX_WAITING_STDIN {
            self.stdin_told = exec.stdin.taken;
            w.u8(event::STDIN_TAKEN).u64(exec.stdin.taken);
            link.send(kind::EVENT, channel, &w.done());
        }
        if self.stdin_grant > 0 {
            w.u8(0).u32(self.stdin_grant as u32);
            link.send(kind::CREDIT, channel, &w.done());
            self.stdin_grant = 0;
        }
        if (exec.stdin.closed || exec.stdin.ending) && !self.closed_told {
            self.closed_told = true;
            w.u8(event::STDIN_CLOSED);
            // Who has written nothing waits for nothing.
            if exec.stdin.taken == 0 {
                link.send_in_company(kind::EVENT, channel, &w.done());
            } else {
                link.send(kind::EVENT, channel, &w.done());
            }
        }
        let all = streams.clone().all(|i| self.next[i] == exec.streams[i].ring.end());
        if let (true, true, Some(exit)) = (all, exec.drained, exec.exit) {
            w.u8(event::EXIT).u32(exit).u8(u8::from(exec.timed_out));
            link.send(kind::EVENT, channel, &w.done());
            return (moved, true);
        }
        (moved, false)
    }
}

/// How far the sessions of one exec are behind on one stream.
#[derive(Clone, Default)]
pub(super) struct Lag {
    pub(super) acked: Option<u64>,
    pub(super) next: Option<u64>,
}

impl Lag {
    pub(super) fn add(&mut self, session: &Session, i: usize) {
        if !session.is_reader {
            return;
        }
        let least = |a: Option<u64>, b: u64| Some(a.map_or(b, |a| a.min(b)));
        self.acked = least(self.acked, session.acked[i]);
        if !session.stalled[i] {
            self.next = least(self.next, session.next[i]);
        }
    }
}
