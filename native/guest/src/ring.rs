//! The last bytes of an endless stream, addressed by their offset in the whole of it.

pub struct Ring {
    buffer: Vec<u8>,
    head: usize,
    len: usize,
    capacity: usize,
    end: u64,
}

impl Ring {
    pub fn new(capacity: usize) -> Ring {
        Ring { buffer: Vec::new(), head: 0, len: 0, capacity, end: 0 }
    }
    /// Offset of the next byte.
    pub fn end(&self) -> u64 {
        self.end
    }
    /// Offset of the oldest byte kept.
    pub fn base(&self) -> u64 {
        self.end - self.len as u64
    }
    pub fn len(&self) -> usize {
        self.len
    }

    /// Moves the contents into a buffer of exactly this size (at least `len`).
    fn resize(&mut self, size: usize) {
        let mut buffer = Vec::with_capacity(size);
        let (a, b) = self.parts(self.base(), self.len);
        buffer.extend_from_slice(a);
        buffer.extend_from_slice(b);
        buffer.resize(size, 0);
        self.buffer = buffer;
        self.head = 0;
    }

    /// Adds bytes; beyond the capacity the oldest go.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.end += bytes.len() as u64;
        if bytes.len() > self.capacity {
            bytes = &bytes[bytes.len() - self.capacity..];
            self.len = 0;
            self.head = 0;
        }
        let overflow = (self.len + bytes.len()).saturating_sub(self.capacity);
        if overflow > 0 {
            self.head = (self.head + overflow) % self.buffer.len().max(1);
            self.len -= overflow;
        }
        let need = self.len + bytes.len();
        if need > self.buffer.len() {
            // `end` already counts the new bytes: take it back while the old contents are moved.
            self.end -= bytes.len() as u64;
            self.resize(need.next_power_of_two().max(1024).min(self.capacity));
            self.end += bytes.len() as u64;
        }
        if bytes.is_empty() {
            return;
        }
        let size = self.buffer.len();
        let at = (self.head + self.len) % size;
        let first = bytes.len().min(size - at);
        self.buffer[at..at + first].copy_from_slice(&bytes[..first]);
        self.buffer[..bytes.len() - first].copy_from_slice(&bytes[first..]);
        self.len = need;
    }

    /// At most `max` bytes from `offset` on, in two parts. The offset must be within what is kept.
    pub fn parts(&self, offset: u64, max: usize) -> (&[u8], &[u8]) {
        let skip = offset.saturating_sub(self.base()) as usize;
        if skip >= self.len {
            return (&[], &[]);
        }
        let n = max.min(self.len - skip);
        let size = self.buffer.len();
        let at = (self.head + skip) % size;
        let first = n.min(size - at);
        (&self.buffer[at..at + first], &self.buffer[..n - first])
    }

    /// Gives back what the buffer holds beyond its contents: no more will come.
    pub fn shrink(&mut self) {
        if self.buffer.len() > self.len {
            self.resize(self.len);
        }
    }

    /// Forgets the contents; offsets stay.
    pub fn clear(&mut self) {
        self.buffer = Vec::new();
        self.head = 0;
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;

    #[test]
    fn keeps_the_last_bytes_at_their_offsets() {
        let mut seed = 7u32;
        for capacity in [1usize, 5, 1024, 5000] {
            let mut ring = Ring::new(capacity);
            let mut all: Vec<u8> = Vec::new();
            for step in 0..400 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let n = (seed >> 16) as usize % (capacity * 2 + 2);
                let bytes: Vec<u8> = (0..n).map(|i| (step * 31 + i) as u8).collect();
                ring.push(&bytes);
                all.extend_from_slice(&bytes);
                if step % 50 == 0 {
                    ring.shrink();
                }
                assert_eq!(ring.end(), all.len() as u64);
                assert_eq!(ring.len(), all.len().min(capacity));
                let from = ring.base() + (seed as u64 % (ring.len() as u64 + 1));
                let (a, b) = ring.parts(from, usize::MAX);
                assert_eq!([a, b].concat(), &all[from as usize..]);
            }
        }
    }
}
