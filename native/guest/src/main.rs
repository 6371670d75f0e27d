//! The Icebox guest agent. PID 1 of every sandbox; speaks frames on descriptors 0 and 1, logs on 2.
//! One thread waits in one poll and never blocks; work that may block has threads of its own.
//! The protocol is specified in docs/reference/guest-link.md.

mod agent;
mod dial;
mod exec;
mod failure;
mod files;
mod frame;
#[cfg(test)]
mod golden;
mod hold;
mod identity;
mod libc;
mod link;
mod metrics;
mod payload;
mod pipe;
mod pty;
mod ring;
mod spawn;
mod sys;
mod tree;
mod users;
mod watch;
mod worker;
mod xattr;

fn main() {
    unsafe {
        // One arena for all threads, and large buffers given back at once: the agent is part of every snapshot.
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::umask(0o022);
        // What programs inherit. std ignores SIGPIPE; here it is blocked, like every signal.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<u32>());
        // Whatever else was left open is not for programs.
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC);
        if std::process::id() != 1 {
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        }
    }
    spawn::limit_capabilities();
    match agent::Agent::new() {
        Ok(mut agent) => loop {
            agent.turn();
        },
        Err(error) => sys::log(format_args!("cannot start: {}", error)),
    }
    std::process::exit(1);
}
