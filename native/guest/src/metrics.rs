//! What the sandbox uses, as the guest's kernel sees it.

use crate::failure::{Failure, Outcome};
use crate::frame::kind;
use crate::libc;
use crate::payload::Writer;
use crate::pipe::Pipe;
use crate::sys;
use std::ffi::CString;

fn meminfo(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|l| l.trim().split(' ').next()?.parse().ok()).unwrap_or(0) * 1024
}

/// Ticks of CPU in a line of /proc/PID/stat: its own and those of children it has waited for.
fn ticks(stat: &str) -> u64 {
    // The name in parentheses may hold anything; the fields after it are numbers, of which utime is the twelfth.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or("");
    fields.split_whitespace().skip(11).take(4).filter_map(|f| f.parse::<u64>().ok()).sum()
}

fn read() -> Outcome<Vec<u8>> {
    let memory = sys::read_small("/proc/meminfo", 64 * 1024).map_err(|e| Failure::io("/proc/meminfo", &e))?;
    let memory = String::from_utf8_lossy(&memory);
    let total = meminfo(&memory, "MemTotal");
    let available = meminfo(&memory, "MemAvailable");

    let own = std::process::id();
    let mut processes = 0;
    let mut used = 0;
    for entry in std::fs::read_dir("/proc").map_err(|e| Failure::io("/proc", &e))?.flatten() {
        let pid = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok());
        if let Some(pid) = pid.filter(|p| *p != own) {
            processes += 1;
            let stat = sys::read_small(&format!("/proc/{}/stat", pid), 4096).unwrap_or_default();
            used += ticks(&String::from_utf8_lossy(&stat));
        }
    }
    // Those that ended: the agent waited for them, or for their parents.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) };
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    let cpu = used * 1_000_000 / per_second + micros(usage.ru_utime) + micros(usage.ru_stime);

    let root = CString::new("/").map_err(|_| Failure::invalid("/"))?;
    let mut disk: libc::statvfs = unsafe { std::mem::zeroed() };
    if unsafe { libc::statvfs_path(root.as_ptr(), &mut disk) } != 0 {
        return Err(Failure::errno("statvfs /", sys::errno()));
    }
    let blocks = |n: u64| n * disk.f_frsize as u64;
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }.max(1);

    let mut w = Writer::new();
    w.u32(cpus as u32).u64(cpu).u64(total).u64(total.saturating_sub(available));
    w.u64(blocks(disk.f_blocks)).u64(blocks(disk.f_blocks - disk.f_bfree)).u32(processes);
    w.u64(meminfo(&memory, "Cached"));
    Ok(w.done())
}

pub fn answer(pipe: &Pipe, _body: &[u8]) -> Outcome<()> {
    pipe.say(kind::REPLY, read()?);
    Ok(())
}
