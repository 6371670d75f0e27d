//! For tests: the frames that both sides agree on.

use crate::frame::{encode, Frame, Parser};

const FRAMES: &str = include_str!("../golden-frames.txt");

pub fn frame(name: &str) -> Frame {
    let line = FRAMES.lines().find(|l| l.split(' ').next() == Some(name)).expect(name);
    let hex = line.split(' ').nth(1).expect(name);
    let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).expect(name);
    let mut parser = Parser::new();
    parser.feed(&(0..hex.len()).step_by(2).map(byte).collect::<Vec<u8>>());
    let frame = parser.next().expect(name);
    assert_eq!((parser.next(), parser.skipped), (None, 0));
    frame
}

#[test]
fn frames_are_encoded_as_agreed() {
    for line in FRAMES.lines().filter(|l| !l.starts_with('#')) {
        let f = frame(line.split(' ').next().unwrap_or_default());
        let mut out = Vec::new();
        encode(&mut out, f.kind, f.flags, f.epoch, f.channel, &f.payload);
        let hex: String = out.iter().map(|b| format!("{:02x}", b)).collect();
        assert!(line.ends_with(&hex), "{}", line);
    }
}
