//! What the host asks for when it starts an exec.

use crate::failure::{Failure, Outcome};
use crate::payload::{Malformed, Reader};
use crate::users::User;
use std::ffi::CString;
use std::time::Duration;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Arguments in a record are cut off beyond this, and so is what was added to the environment.
const MAX_RECORDED: usize = 4096;

/// What HELLO gave for all execs.
#[derive(Default)]
pub struct Defaults {
    pub env: Vec<(String, String)>,
    pub user: String,
    pub cwd: String,
}

pub(super) struct Request {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) user: String,
    pub(super) tag: Option<String>,
    pub(super) size: Option<(u16, u16)>,
    pub(super) stdin: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) keep: usize,
    pub(super) overflow: Overflow,
}

/// What happens when more than what is kept has not been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Overflow {
    /// The oldest goes. Sessions are waited for a while.
    Drop,
    /// The process waits, whether or not anybody is attached.
    Block,
    /// The process waits as long as somebody is attached.
    Follow,
}

impl Request {
    pub(super) fn read(r: &mut Reader) -> Result<Request, Malformed> {
        Ok(Request {
            argv: r.list(|r| r.text())?,
            env: r.list(|r| Ok((r.text()?, r.text()?)))?,
            cwd: r.text()?,
            user: r.text()?,
            tag: r.option(|r| r.text())?,
            size: r.option(|r| Ok((r.u16()?, r.u16()?)))?,
            stdin: r.u8()? != 0,
            timeout: r.option(|r| r.u64())?.map(Duration::from_millis),
            keep: (r.u32()? as usize).clamp(4096, 64 << 20),
            overflow: match r.u8()? {
                0 => Overflow::Drop,
                2 => Overflow::Follow,
                _ => Overflow::Block,
            },
        })
    }
}

pub(super) fn environment(request: &Request, defaults: &Defaults, user: &User) -> Vec<(String, String)> {
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

/// Arguments as they are remembered: no more than a record should hold.
pub(super) fn recorded(argv: &[String]) -> Vec<String> {
    let mut left = MAX_RECORDED;
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

/// The same of the environment, in whole variables.
pub(super) fn recorded_env(env: &[(String, String)]) -> Vec<(String, String)> {
    let mut left = MAX_RECORDED;
    let fits = |(name, value): &&(String, String)| match left.checked_sub(name.len() + value.len() + 2) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    env.iter().filter(fits).cloned().collect()
}

pub(super) fn absolute(path: &str, home: &str) -> String {
    if path.starts_with('/') {
        path.to_string()
    } else {
        format!("{}/{}", home.trim_end_matches('/'), path)
    }
}

pub(super) fn c_strings(strings: &[String]) -> Outcome<Vec<CString>> {
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
        assert_eq!(
            (plain.argv, plain.env.len(), plain.cwd.as_str(), plain.user.as_str()),
            (vec!["true".to_string()], 0, "", "")
        );
        assert_eq!((plain.tag, plain.size, plain.stdin, plain.timeout), (None, None, false, None));
        assert_eq!((plain.keep, plain.overflow), (1 << 20, Overflow::Drop));
        let full = request("exec-full");
        assert_eq!((full.argv.len(), full.env), (3, vec![("K".to_string(), "V".to_string())]));
        assert_eq!((full.cwd.as_str(), full.user.as_str(), full.tag.as_deref()), ("/w", "u:g", Some("t")));
        assert_eq!((full.size, full.stdin, full.timeout), (Some((80, 24)), true, Some(Duration::from_millis(1500))));
        assert_eq!((full.keep, full.overflow), (8192, Overflow::Block));
    }

    #[test]
    fn long_arguments_are_cut_at_a_character() {
        let kept = recorded(&["é".repeat(3000), "more".to_string()]);
        assert_eq!(kept, vec!["é".repeat(2048)]);
        assert_eq!(recorded(&["a".to_string(), "b".to_string()]), vec!["a", "b"]);
    }
}
