//! Extended attributes.

use crate::libc;
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// As much as a file can have, of names and of one value.
const MAX: usize = 64 * 1024;

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Of a symlink itself.
pub fn set(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = (c_string(path.as_os_str().as_bytes())?, c_string(name.as_bytes())?);
    match unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Those whose names begin with `prefix`, through symlinks. What may not be seen is left out.
pub fn get(path: &Path, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let path = match c_string(path.as_os_str().as_bytes()) {
        Ok(path) => path,
        Err(_) => return found,
    };
    let length = unsafe { libc::listxattr(path.as_ptr(), std::ptr::null_mut(), 0) };
    // The common case costs one call and no memory.
    if length <= 0 {
        return found;
    }
    let mut names = vec![0u8; MAX];
    let length = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(length).unwrap_or(0));
    let mut value = vec![0u8; MAX];
    for name in names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        let text = match name.to_str() {
            Ok(text) if text.starts_with(prefix) => text,
            _ => continue,
        };
        let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        if let Ok(length) = usize::try_from(length) {
            found.push((text.to_string(), value[..length].to_vec()));
        }
    }
    found
}
