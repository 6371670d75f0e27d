//! Frames: how messages travel on the byte stream. Knows nothing of the transport.

pub const MAGIC: [u8; 4] = [0xf1, b'I', b'C', b'E'];
pub const VERSION: u8 = 1;
pub const HEADER: usize = 28;
pub const MAX_PAYLOAD: usize = 32 * 1024;
/// A message longer than one frame continues in the next frame of its channel.
pub const MORE: u16 = 1;
/// Zero bytes that end any half frame: its length is bounded by this.
pub const PADDING: usize = HEADER + MAX_PAYLOAD;

pub mod kind {
    pub const ATTACH: u8 = 1;
    pub const ATTACHED: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const REPLY: u8 = 4;
    pub const ERROR: u8 = 5;
    pub const DATA: u8 = 6;
    pub const CREDIT: u8 = 7;
    pub const END: u8 = 8;
    pub const CLOSE: u8 = 9;
    pub const EVENT: u8 = 10;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u16,
    pub epoch: u32,
    pub channel: u32,
    pub payload: Vec<u8>,
}

const fn tables() -> [[u32; 256]; 8] {
    let mut t = [[0u32; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut k = 0;
        while k < 8 {
            c = if c & 1 != 0 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
            k += 1;
        }
        t[0][i] = c;
        i += 1;
    }
    let mut i = 0;
    while i < 256 {
        let mut k = 1;
        while k < 8 {
            let before = t[k - 1][i];
            t[k][i] = t[0][(before & 0xff) as usize] ^ (before >> 8);
            k += 1;
        }
        i += 1;
    }
    t
}
static TABLES: [[u32; 256]; 8] = tables();

/// CRC-32 as in zlib.
pub fn crc32(bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= folded::LEAST && is_x86_feature_detected!("pclmulqdq") {
        let (rest, tail) = unsafe { folded::fold(!0, bytes) };
        return !by_tables(by_tables(0, &rest), tail);
    }
    !by_tables(!0, bytes)
}

/// Eight bytes at a time.
fn by_tables(mut c: u32, bytes: &[u8]) -> u32 {
    let t = &TABLES;
    let mut chunks = bytes.chunks_exact(8);
    for b in &mut chunks {
        let lo = u32::from_le_bytes([b[0], b[1], b[2], b[3]]) ^ c;
        c = t[7][(lo & 0xff) as usize]
            ^ t[6][((lo >> 8) & 0xff) as usize]
            ^ t[5][((lo >> 16) & 0xff) as usize]
            ^ t[4][(lo >> 24) as usize]
            ^ t[3][b[4] as usize]
            ^ t[2][b[5] as usize]
            ^ t[1][b[6] as usize]
            ^ t[0][b[7] as usize];
    }
    for b in chunks.remainder() {
        c = t[0][((c ^ u32::from(*b)) & 0xff) as usize] ^ (c >> 8);
    }
    c
}

/// Sixteen bytes shorter with each multiplication without carries, as in "Fast CRC Computation for Generic Polynomials Using
/// PCLMULQDQ Instruction" (Intel, 2009). Ten times as fast as tables: every byte that leaves the guest passes here.
#[cfg(target_arch = "x86_64")]
mod folded {
    use std::arch::x86_64::*;

    const LANES: usize = 4;
    const LANE: usize = 16;
    pub const LEAST: usize = LANES * LANE;
    /// x^(n+32) and x^(n-32) modulo the polynomial, bits reversed: for n the bits of all lanes, and of one.
    const OVER_ALL: (i64, i64) = (0x1_5444_2bd4, 0x1_c6e4_1596);
    const OVER_ONE: (i64, i64) = (0x1_7519_97d0, 0x0_ccaa_009e);

    /// Gives sixteen bytes, and what of the given comes after them, which together have the checksum, begun with 0, that the given
    /// have begun with `start`. At least LEAST bytes.
    #[target_feature(enable = "pclmulqdq")]
    pub unsafe fn fold(start: u32, bytes: &[u8]) -> ([u8; LANE], &[u8]) {
        let load = |piece: &[u8]| _mm_loadu_si128(piece.as_ptr().cast());
        let (first, rest) = bytes.split_at(LEAST);
        let mut lanes = [_mm_setzero_si128(); LANES];
        for (lane, piece) in lanes.iter_mut().zip(first.chunks_exact(LANE)) {
            *lane = load(piece);
        }
        lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128(start as i32));
        let by = _mm_set_epi64x(OVER_ALL.1, OVER_ALL.0);
        let mut blocks = rest.chunks_exact(LEAST);
        for block in &mut blocks {
            for (lane, piece) in lanes.iter_mut().zip(block.chunks_exact(LANE)) {
                *lane = _mm_xor_si128(moved(*lane, by), load(piece));
            }
        }
        let by = _mm_set_epi64x(OVER_ONE.1, OVER_ONE.0);
        let [mut whole, second, third, fourth] = lanes;
        for lane in [second, third, fourth] {
            whole = _mm_xor_si128(moved(whole, by), lane);
        }
        let mut pieces = blocks.remainder().chunks_exact(LANE);
        for piece in &mut pieces {
            whole = _mm_xor_si128(moved(whole, by), load(piece));
        }
        let mut sum = [0; LANE];
        _mm_storeu_si128(sum.as_mut_ptr().cast(), whole);
        (sum, pieces.remainder())
    }

    #[target_feature(enable = "pclmulqdq")]
    unsafe fn moved(lane: __m128i, by: __m128i) -> __m128i {
        _mm_xor_si128(_mm_clmulepi64_si128(lane, by, 0x00), _mm_clmulepi64_si128(lane, by, 0x11))
    }
}

/// Appends one frame. The payload must not exceed MAX_PAYLOAD.
pub fn encode(out: &mut Vec<u8>, kind: u8, flags: u16, epoch: u32, channel: u32, payload: &[u8]) {
    out.extend_from_slice(&header(kind, flags, epoch, channel, payload));
    out.extend_from_slice(payload);
}

/// What stands before the payload.
pub fn header(kind: u8, flags: u16, epoch: u32, channel: u32, payload: &[u8]) -> [u8; HEADER] {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = VERSION;
    header[5] = kind;
    header[6..8].copy_from_slice(&flags.to_le_bytes());
    header[8..12].copy_from_slice(&epoch.to_le_bytes());
    header[12..16].copy_from_slice(&channel.to_le_bytes());
    header[16..20].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[20..24].copy_from_slice(&crc32(payload).to_le_bytes());
    let check = crc32(&header[..24]);
    header[24..].copy_from_slice(&check.to_le_bytes());
    header
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Finds frames in a stream that may hold anything. What is not a sound frame is skipped and counted; because the header has
/// a checksum of its own, a damaged payload is dropped whole and nothing inside it is ever taken for a frame.
pub struct Parser {
    buffer: Vec<u8>,
    start: usize,
    /// Bytes skipped, padding included.
    pub skipped: u64,
}

impl Parser {
    pub fn new() -> Parser {
        Parser { buffer: Vec::new(), start: 0, skipped: 0 }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > PADDING {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
        self.skipped += bytes as u64;
    }

    pub fn next(&mut self) -> Option<Frame> {
        loop {
            let rest = &self.buffer[self.start..];
            let at = rest.iter().position(|b| *b == MAGIC[0]).unwrap_or(rest.len());
            if at > 0 {
                self.skip(at);
                continue;
            }
            let seen = rest.len().min(MAGIC.len());
            if rest[..seen] != MAGIC[..seen] {
                self.skip(1);
                continue;
            }
            if rest.len() < HEADER {
                return None;
            }
            let length = word(rest, 16) as usize;
            if crc32(&rest[..24]) != word(rest, 24) || length > MAX_PAYLOAD {
                self.skip(1);
                continue;
            }
            if rest.len() < HEADER + length {
                return None;
            }
            let payload = &rest[HEADER..HEADER + length];
            if rest[4] != VERSION || crc32(payload) != word(rest, 20) {
                self.skip(HEADER + length);
                continue;
            }
            let frame = Frame {
                kind: rest[5],
                flags: u16::from_le_bytes([rest[6], rest[7]]),
                epoch: word(rest, 8),
                channel: word(rest, 12),
                payload: payload.to_vec(),
            };
            self.start += HEADER + length;
            return Some(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random and are the same in every run.
    pub struct Numbers(u64);
    impl Numbers {
        pub fn next(&mut self, below: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % below.max(1)
        }
        pub fn bytes(&mut self, length: usize) -> Vec<u8> {
            (0..length).map(|_| self.next(256) as u8).collect()
        }
        /// Mostly small, now and then as long as can be.
        fn frame(&mut self) -> Frame {
            let length = if self.next(20) == 0 { MAX_PAYLOAD } else { self.next(300) };
            Frame {
                kind: self.next(256) as u8,
                flags: self.next(65536) as u16,
                epoch: self.next(1 << 31) as u32,
                channel: self.next(1 << 31) as u32,
                payload: self.bytes(length),
            }
        }
    }

    fn encoded(f: &Frame) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, f.kind, f.flags, f.epoch, f.channel, &f.payload);
        out
    }

    /// Feeds the bytes in pieces of any size.
    fn parsed(numbers: &mut Numbers, parser: &mut Parser, mut bytes: &[u8]) -> Vec<Frame> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (head, tail) = bytes.split_at((1 + numbers.next(5000)).min(bytes.len()));
            parser.feed(head);
            while let Some(frame) = parser.next() {
                found.push(frame);
            }
            bytes = tail;
        }
        found
    }

    #[test]
    fn the_checksum_is_that_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
        let mut numbers = Numbers(7);
        for length in 0..600 {
            let bytes = numbers.bytes(length);
            let wanted = crc32_by_bit(&bytes);
            assert_eq!((crc32(&bytes), !by_tables(!0, &bytes)), (wanted, wanted), "{} bytes", length);
        }
    }

    fn crc32_by_bit(bytes: &[u8]) -> u32 {
        let mut c = !0u32;
        for b in bytes {
            c ^= u32::from(*b);
            for _ in 0..8 {
                c = if c & 1 != 0 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
            }
        }
        !c
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut numbers = Numbers(1);
        for _ in 0..200 {
            let sent: Vec<Frame> = (0..numbers.next(10)).map(|_| numbers.frame()).collect();
            let stream: Vec<u8> = sent.iter().flat_map(encoded).collect();
            let mut parser = Parser::new();
            assert_eq!(parsed(&mut numbers, &mut parser, &stream), sent);
            assert_eq!(parser.skipped, 0);
        }
    }

    #[test]
    fn after_rubbish_and_padding_the_next_frames_are_found() {
        let mut numbers = Numbers(2);
        for round in 0..2000 {
            // Anything at all, or a frame cut short that has frames inside.
            let before = if round % 2 == 0 {
                let length = numbers.next(3000);
                numbers.bytes(length)
            } else {
                let mut payload = encoded(&Frame { payload: vec![9; 50], ..numbers.frame() });
                payload.extend(encoded(&Frame { payload: vec![8; 50], ..numbers.frame() }));
                let outer = encoded(&Frame { payload, ..numbers.frame() });
                outer[..numbers.next(outer.len())].to_vec()
            };
            let sent: Vec<Frame> = (0..3).map(|_| numbers.frame()).collect();
            let mut stream = before.clone();
            stream.resize(before.len() + PADDING, 0);
            stream.extend(sent.iter().flat_map(encoded));
            let found = parsed(&mut numbers, &mut Parser::new(), &stream);
            assert_eq!(&found[found.len() - 3..], &sent[..]);
            if round % 2 == 1 && before.len() >= HEADER {
                assert_eq!(found.len(), 3, "a frame inside a frame that was cut short");
            }
        }
    }

    #[test]
    fn a_damaged_frame_is_dropped_whole() {
        let mut numbers = Numbers(3);
        for _ in 0..2000 {
            let sent: Vec<Frame> = (0..4).map(|_| numbers.frame()).collect();
            let mut stream: Vec<u8> = sent.iter().flat_map(encoded).collect();
            let place = numbers.next(stream.len());
            stream[place] ^= 1 + numbers.next(255) as u8;
            stream.resize(stream.len() + PADDING, 0);
            let mut end = 0;
            let whole = |f: &&Frame| {
                let start = end;
                end += HEADER + f.payload.len();
                place < start || place >= end
            };
            let expected: Vec<Frame> = sent.iter().filter(whole).cloned().collect();
            assert_eq!(parsed(&mut numbers, &mut Parser::new(), &stream), expected);
        }
    }
}
