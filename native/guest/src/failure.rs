//! Refusals, as they go to the host: a code of the project's registry, the errno behind it and words.

use crate::libc;
use crate::payload::{Malformed, Writer};
use std::io;

#[derive(Debug)]
pub struct Failure {
    pub code: &'static str,
    pub errno: i32,
    pub message: String,
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, errno: 0, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new("InvalidArgument", message)
    }

    /// What a failed call on `subject` means to the caller.
    pub fn errno(subject: &str, errno: i32) -> Failure {
        let code = match errno {
            libc::ENOENT => "NotFound",
            libc::EEXIST | libc::ENOTEMPTY => "AlreadyExists",
            libc::ENOSPC | libc::EDQUOT => "NoSpace",
            libc::ENOMEM => "NoMemory",
            libc::EAGAIN | libc::EMFILE | libc::ENFILE => "TooManyRequests",
            libc::EIO => "GuestFailed",
            _ => "InvalidArgument",
        };
        Failure { code, errno, message: format!("{}: {}", subject, describe(errno)) }
    }

    pub fn io(subject: &str, error: &io::Error) -> Failure {
        match error.raw_os_error() {
            Some(errno) => Failure::errno(subject, errno),
            None => Failure::invalid(format!("{}: {}", subject, error)),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.text(self.code).u32(self.errno as u32).text(&self.message);
        w.done()
    }
}

/// In the C library's words.
fn describe(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Failure {
        Failure::invalid("the request is malformed")
    }
}

#[cfg(test)]
mod tests {
    use super::Failure;
    use crate::golden;

    #[test]
    fn failures_are_sent_as_agreed() {
        assert_eq!(Failure::errno("/x", crate::libc::ENOENT).encode(), golden::frame("error").payload);
    }
}
