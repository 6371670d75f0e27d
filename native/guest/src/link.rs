//! The guest's end of the link: frames in, frames out, one epoch at a time. Neither direction ever blocks.

use crate::failure::Failure;
use crate::frame::{self, kind, Frame, Parser, HEADER, MAX_PAYLOAD, MORE};
use crate::sys::{self, Got};
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::io::RawFd;
use std::time::{Duration, Instant};

/// Streams wait while more than this is queued for the host.
const BUSY: usize = 128 * 1024;
/// Room in the queue that is kept for what comes next. More than streams fill it with: making it anew costs as much as filling it.
const KEPT: usize = 1 << 20;
/// Requests are not read while more than this is queued: answers need room too.
const FULL: usize = 4 << 20;
/// What one read of a connection takes at most: every call costs a sandbox two switches of threads, whatever it brings.
const SPAN: usize = 16 * MAX_PAYLOAD;
/// How long a message that may wait is kept for company.
const COMPANY: Duration = Duration::from_millis(10);
/// Longest message from the host, over all its frames.
const MAX_MESSAGE: usize = 1 << 20;

/// Frames that so many bytes need.
fn frames(bytes: usize) -> usize {
    (bytes + MAX_PAYLOAD - 1) / MAX_PAYLOAD
}

pub struct Link {
    pub input: RawFd,
    pub output: RawFd,
    parser: Parser,
    queue: Vec<u8>,
    sent: usize,
    /// All that is queued may wait until then.
    patience: Option<Instant>,
    /// The last write found no room.
    pub blocked: bool,
    /// Nobody holds the other end at this moment.
    pub ended: bool,
    pub epoch: u32,
    /// Messages of which frames are still to come, with their epoch.
    partial: BTreeMap<u32, (u32, Vec<u8>)>,
    scratch: Vec<u8>,
}

impl Link {
    pub fn new(input: RawFd, output: RawFd) -> Link {
        sys::set_nonblocking(input);
        sys::set_nonblocking(output);
        Link {
            input,
            output,
            parser: Parser::new(),
            queue: Vec::new(),
            sent: 0,
            patience: None,
            blocked: false,
            ended: false,
            epoch: 0,
            partial: BTreeMap::new(),
            scratch: vec![0; 64 * 1024],
        }
    }

    fn queued(&self) -> usize {
        self.queue.len() - self.sent
    }
    /// Whether a stream may queue one more frame.
    pub fn has_room(&self) -> bool {
        self.queued() < BUSY
    }
    pub fn wants_input(&self) -> bool {
        self.queued() < FULL
    }
    pub fn wants_output(&self) -> bool {
        self.queued() > 0 && self.patience.map_or(true, |until| until <= Instant::now())
    }
    /// When what is queued must leave, if it is not to leave now.
    pub fn deadline(&self) -> Option<Instant> {
        self.patience.filter(|_| self.queued() > 0)
    }

    /// Queues a message in as many frames as it needs. Without a host attached it is dropped.
    pub fn send(&mut self, kind: u8, channel: u32, payload: &[u8]) {
        self.put(kind, channel, payload);
        self.patience = None;
    }

    /// The same for what is of little use before the next message: it leaves together with that, or after 10 ms. The host, which
    /// wakes for every write, takes a core from the guest where there are few.
    pub fn send_in_company(&mut self, kind: u8, channel: u32, payload: &[u8]) {
        if self.queued() == 0 {
            self.patience = Some(Instant::now() + COMPANY);
        }
        self.put(kind, channel, payload);
    }

    /// Queues as DATA what one read of the descriptor gives, at most so many bytes: it is read to where it leaves from.
    /// True when there may be more.
    pub fn forward(&mut self, channel: u32, from: RawFd, most: usize) -> io::Result<(Got, bool)> {
        self.tidy();
        let wanted = most.min(SPAN);
        let start = self.queue.len();
        let size = frames(wanted) * HEADER + wanted;
        self.queue.reserve_exact(size);
        let room = &mut self.queue.spare_capacity_mut()[..size];
        let got = sys::read_pieces(from, room.chunks_mut(HEADER + MAX_PAYLOAD).map(|frame| &mut frame[HEADER..]));
        let length = if let Ok(Got::Bytes(n)) = got { n } else { 0 };
        let filled = frames(length) * HEADER + length;
        for frame in room[..filled].chunks_mut(HEADER + MAX_PAYLOAD) {
            frame[..HEADER].fill(MaybeUninit::new(0));
        }
        // So much the read has filled, and the line above: all else would be cleared for nothing at every read.
        unsafe { self.queue.set_len(start + filled) };
        for frame in self.queue[start..].chunks_mut(HEADER + MAX_PAYLOAD) {
            let (header, payload) = frame.split_at_mut(HEADER);
            header.copy_from_slice(&frame::header(kind::DATA, 0, self.epoch, channel, payload));
        }
        self.patience = None;
        Ok((got?, length == wanted))
    }

    fn put(&mut self, kind: u8, channel: u32, payload: &[u8]) {
        if self.epoch == 0 {
            return;
        }
        self.tidy();
        let mut rest = payload;
        while rest.len() > MAX_PAYLOAD {
            let (head, tail) = rest.split_at(MAX_PAYLOAD);
            frame::encode(&mut self.queue, kind, MORE, self.epoch, channel, head);
            rest = tail;
        }
        frame::encode(&mut self.queue, kind, 0, self.epoch, channel, rest);
    }

    /// Makes room in the queue.
    fn tidy(&mut self) {
        if self.queued() == 0 {
            self.queue.clear();
            self.sent = 0;
            if self.queue.capacity() > KEPT {
                self.trim();
            }
        } else if self.sent > BUSY {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Gives memory back that nothing waits in.
    pub fn trim(&mut self) {
        if self.queued() == 0 {
            self.queue = Vec::new();
            self.sent = 0;
        }
    }

    pub fn fail(&mut self, channel: u32, failure: &Failure) {
        self.send(kind::ERROR, channel, &failure.encode());
    }

    /// Begins an epoch: what was queued for the last one goes, even a frame half written, which the padding ends.
    pub fn attach(&mut self, epoch: u32, greeting: &[u8]) {
        self.epoch = epoch;
        self.partial.clear();
        self.queue.clear();
        self.queue.resize(frame::PADDING, 0);
        self.sent = 0;
        self.patience = None;
        self.send(kind::ATTACHED, 0, greeting);
    }

    pub fn flush(&mut self) {
        self.blocked = false;
        // From here on it waits for room, not for company.
        self.patience = None;
        while self.sent < self.queue.len() {
            match sys::write(self.output, &self.queue[self.sent..]) {
                Ok(n) => {
                    self.sent += n;
                    // What takes less than it was offered is full.
                    self.blocked = self.sent < self.queue.len();
                    if self.blocked {
                        return;
                    }
                }
                Err(_) => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    /// Reads what is there and hands over whole messages. Frames of other epochs are dropped; ATTACH belongs to none.
    pub fn receive(&mut self, messages: &mut Vec<Frame>) {
        match sys::read(self.input, &mut self.scratch) {
            Ok(Got::Bytes(n)) => {
                self.ended = false;
                self.parser.feed(&self.scratch[..n]);
            }
            Ok(Got::Later) => self.ended = false,
            Ok(Got::End) | Err(_) => self.ended = true,
        }
        while let Some(mut frame) = self.parser.next() {
            if frame.kind == kind::ATTACH {
                self.partial.clear();
                messages.push(frame);
                continue;
            }
            // Whether the epoch is still the current one is asked again when the message is handled.
            if frame.flags & MORE != 0 || self.partial.contains_key(&frame.channel) {
                let (epoch, whole) = self.partial.entry(frame.channel).or_insert_with(|| (frame.epoch, Vec::new()));
                if *epoch != frame.epoch {
                    continue;
                }
                if whole.len() + frame.payload.len() <= MAX_MESSAGE {
                    whole.extend_from_slice(&frame.payload);
                } else {
                    whole.resize(MAX_MESSAGE + 1, 0);
                }
                if frame.flags & MORE != 0 {
                    continue;
                }
                frame.payload = self.partial.remove(&frame.channel).map(|(_, whole)| whole).unwrap_or_default();
                if frame.payload.len() > MAX_MESSAGE {
                    if frame.epoch == self.epoch {
                        self.fail(frame.channel, &Failure::new("TooLarge", "a request is larger than 1 MiB"));
                    }
                    continue;
                }
            }
            messages.push(frame);
        }
    }
}
