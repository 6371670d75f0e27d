/**
 * A bash session is what lasts between its runs, its environment and its working directory, in a directory of the sandbox; each
 * run is a shell of its own that takes them from there and leaves them there. So a session outlives the server, a pause and a
 * run that ends its shell, and every run has an exit code, streams and a time limit of its own.
 *
 * In all of these `$1` is the directory; `env` in it is what `export -p` says, `cwd` the working directory.
 */
const SAVE = `{ export -p >"$1/env.new" && mv "$1/env.new" "$1/env" && pwd >"$1/cwd"; } 2>/dev/null`

/** `$2` is the working directory to begin in, empty for that of any command. */
const CREATE = `umask 077
if [ -n "$2" ]; then mkdir -p -- "$2" && cd -- "$2" || exit 1; fi
mkdir -p -- "$1" && ${SAVE}`

/** `$2` is the command, `$3` a working directory for it, or empty. The command sees none of these. */
const RUN = `. "$1/env"
cd -- "\${3:-$(cat "$1/cwd")}" || exit 1
__opensandbox_session=$1
__opensandbox_save() { set -- "$__opensandbox_session"; (umask 077; ${SAVE}); }
trap __opensandbox_save EXIT
__opensandbox_command=$2
set --
eval "$__opensandbox_command"
__opensandbox_status=$?
__opensandbox_save
exit $__opensandbox_status`

const directoryOf = (session: string): string => `/tmp/.opensandbox/session-${session}`
export const sessionDirectory = directoryOf
export const SESSIONS = { directory: '/tmp/.opensandbox', prefix: 'session-' } as const

/** For a shell of that name. */
export const createArgv = (session: string, cwd: string): string[] => [
  'sh',
  '-c',
  CREATE,
  'sh',
  directoryOf(session),
  cwd,
]

/** With nothing in its environment but what the session has. */
export const runArgv = (shell: 'bash' | 'sh', session: string, command: string, cwd: string): string[] => [
  ...['env', '-i', shell, '-c', RUN, shell],
  ...[directoryOf(session), command, cwd],
]
