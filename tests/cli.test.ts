import assert from 'node:assert/strict'
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import {
  chmod,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { BASE_IMAGE, baseImageFile } from '@icebox/node'
import { Icebox } from '@icebox/sdk'

/** The story of the issue by the `icebox` command alone, against a server that `icebox up -d` started. */

const ICEBOX = join(import.meta.dirname, '../icebox')
/** Counts in memory: what it shows after a restore can come from nowhere but its own process. */
const COUNTER = `exec python3 -c '
import os, time
count = 0
while True:
    count += 1
    with open("/tmp/count.new", "w") as file:
        file.write(str(count))
    os.replace("/tmp/count.new", "/tmp/count")
    time.sleep(0.01)
'`

let scratch = ''
/** Shorter than the runner's own for a file: a test that hangs still cleans up. */
const DEADLINE_MS = 480_000
let data = ''

interface Ended {
  status: number
  stdout: string
  stderr: string
}
interface Options {
  stdin?: string | Uint8Array
  env?: Record<string, string>
}

/** Starts `icebox` with the data directory of this suite. Its stdin stays open until it is given one. */
function start(words: string[], { env = {} }: Options = {}): ChildProcessWithoutNullStreams {
  const { ICEBOX_URL: _, ICEBOX_API_KEY: __, ...rest } = process.env
  return spawn(ICEBOX, words, { env: { ...rest, ICEBOX_DATA: data, NO_COLOR: '1', ...env } })
}

async function ended(child: ChildProcessWithoutNullStreams): Promise<Ended & { bytes: Buffer }> {
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout.on('data', (piece: Buffer) => out.push(piece))
  child.stderr.on('data', (piece: Buffer) => err.push(piece))
  const [code] = await once(child, 'close')
  const bytes = Buffer.concat(out)
  return {
    status: typeof code === 'number' ? code : -1,
    stdout: bytes.toString(),
    stderr: Buffer.concat(err).toString(),
    bytes,
  }
}

async function icebox(words: string[], options: Options = {}): Promise<Ended & { bytes: Buffer }> {
  const child = start(words, options)
  child.stdin.on('error', () => {})
  child.stdin.end(options.stdin ?? '')
  return ended(child)
}

/** The JSON answer of a command that has to work. */
async function json(...words: string[]) {
  const { status, stdout, stderr } = await icebox([...words, '--json'])
  assert.equal(status, 0, `icebox ${words.join(' ')}: ${stderr}`)
  return JSON.parse(stdout)
}

/** The error of a command that has to fail, and its status. */
async function failure(
  words: string[],
  options: Options = {},
): Promise<{ code: string; message: string; remedy: string; status: number }> {
  const { status, stdout, stderr } = await icebox(['--json', ...words], options)
  assert.notEqual(status, 0, `icebox ${words.join(' ')} did not fail: ${stdout}`)
  const { error } = JSON.parse(stderr.trim().split('\n').at(-1) ?? '')
  assert.ok(error.code && error.message && error.remedy, stderr)
  return { ...error, status }
}

async function sh(sandbox: string, script: string): Promise<string> {
  const { status, stdout, stderr } = await icebox(['exec', sandbox, '--', 'sh', '-c', script])
  assert.equal(status, 0, stderr)
  return stdout.trim()
}
const count = async (sandbox: string): Promise<number> => Number(await sh(sandbox, 'cat /tmp/count'))

async function until<T>(what: string, look: () => T | Promise<T>): Promise<T> {
  for (let tries = 0; tries < 600; tries += 1) {
    const found = await look()
    if (found) return found
    await sleep(50)
  }
  throw new Error(`never happened: ${what}`)
}

/** Waits until a start of the server has resumed it. */
const runs = (sandbox: string) =>
  until(`${sandbox} runs`, async () => (await json('sandbox', 'show', sandbox)).status.state === 'Running')

/** Waits until a program that runs on has printed something. */
async function printed(child: ChildProcessWithoutNullStreams, text: string): Promise<string> {
  let all = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (piece: Buffer) => (all += piece))
  await until(`${text} on its output`, () => all.includes(text))
  return all
}

const lives = (pid: number): boolean => {
  const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : ''
  return stat !== '' && !/\) [ZX] /.test(stat)
}

suite('the icebox command', { timeout: DEADLINE_MS }, () => {
  let pid = 0

  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'icebox-cli-'))
    data = join(scratch, 'data')
    const up = await json('up', '-d', '--no-base', '--listen', '127.0.0.1:0')
    pid = up.pid
    assert.match(up.url, /^http:\/\/127\.0\.0\.1:\d+$/)
    assert.equal(up.keyFile, join(data, 'key'))
  })

  after(async () => {
    const supervisor = JSON.parse(await readFile(join(data, 'supervisor.json'), 'utf8').catch(() => '{}')).pid ?? 0
    await icebox(['down', '--kill'])
    // First who would start the other again.
    for (const each of [supervisor, pid]) if (each !== 0 && lives(each)) process.kill(each, 'SIGKILL')
    await rm(scratch, { recursive: true, force: true })
  })

  test('a second server on the data directory, and a busy port, are refused in words; the first answers on', async () => {
    const second = await failure(['up', '--no-base', '--listen', '127.0.0.1:0'])
    assert.equal(second.code, 'Conflict')
    assert.match(second.message, new RegExp(`process ${pid}`))
    assert.equal((await failure(['up', '-d', '--no-base', '--listen', '127.0.0.1:0'])).code, 'Conflict')
    const { port } = new URL(JSON.parse(readFileSync(join(data, 'server.json'), 'utf8')).url)
    const same = await failure(['up', '-d', '--no-base', '--listen', `127.0.0.1:${port}`])
    assert.match(same.message, new RegExp(`process ${pid}`))
    const blocker = createServer().listen(0, '127.0.0.1')
    await once(blocker, 'listening')
    const address = blocker.address()
    assert.ok(typeof address === 'object' && address !== null)
    const other = join(scratch, 'other')
    const busy = await failure(['up', '-d', '--no-base', '--data', other, '--listen', `127.0.0.1:${address.port}`])
    blocker.close()
    assert.deepEqual([busy.code, busy.message.includes(String(address.port))], ['Conflict', true])
    assert.equal(existsSync(join(other, 'server.json')), false)
    assert.deepEqual(await json('ps'), [])
  })

  test('wrong keys, urls, words and values are refused, each in its way', async () => {
    assert.equal((await failure(['ps'], { env: { ICEBOX_API_KEY: `e2b_${'0'.repeat(40)}` } })).code, 'Unauthorized')
    const nobody = await failure(['ps', '--url', 'http://127.0.0.1:1'])
    assert.deepEqual([nobody.code, nobody.status], ['Unavailable', 1])
    const cases: [words: string[], message: RegExp][] = [
      [['sandox', 'list'], /did you mean "icebox sandbox"/],
      [['ps', '--jsn'], /did you mean --json/],
      [['fork', 'x', '-n', '0'], /1 to 100/],
      [['fork', 'x', '-n', '101'], /1 to 100/],
      [['sandbox', 'create'], /exactly one of/],
      [['sandbox', 'create', 'x', '--timeout', 'soon'], /a time such as/],
      [['sandbox', 'create', 'x', '--timeout', '31d'], /--timeout must be .*, from 1s to 30d, not "31d"/],
      [['sandbox', 'create', 'x', '--timeout', '-1s'], /--timeout must be .*, from 1s to 30d, not "-1s"/],
      [['sandbox', 'create', 'x', '--on-timeout', 'stop'], /--on-timeout must be kill or pause, not "stop"/],
      [['run', 'x', '--pause-kind', 'none', '--', 'true'], /--pause-kind must be memory or filesystem/],
      [['pause', 'x', '--kind', 'all'], /--kind must be memory or filesystem/],
      [['resume', 'x', '--timeout', '0'], /--timeout must be .*, from 1s to 30d/],
      [['sandbox', 'renew', 'x', 'soon'], /TIME must be a time such as/],
      [['sandbox', 'create', 'x', '--name', 'My_box'], /--name must be 1–63 characters/],
      [['sandbox', 'create', '--image', ''], /--image is empty/],
      [['template', 'build', 'x', '--image', 'y', '--cpu', '-1'], /--cpu must be .*, from 0\.1 to 64/],
      [
        ['template', 'build', 'x', '--image', 'y', '--memory', '1MiB'],
        /--memory must be .*, from 64\.0 MiB to 256 GiB/,
      ],
      [['template', 'build', 'x', '--image', 'y', '--disk', '1PiB'], /--disk must be .*, from 64\.0 MiB to 1\.0 TiB/],
      [['template', 'build', 'X', '--image', 'y'], /NAME must be 1–63 characters/],
      [['sandbox', 'show', ''], /SANDBOX is empty/],
      [['fork', 'x', '-n', '-1'], /1 to 100/],
      [['bench', 'nosuch'], /there is no scenario nosuch/],
      [['exec', 'x'], /CMD/],
      [['exec', 'x', 'ls', '-la'], /put -- before the CMD: -- ls -la/],
      [['exec', '-w', '/', 'x', '--', 'ls'], /did you mean --cwd\?/],
      [['exec', '--timeout', '99999999999h', 'x', '--', 'ls'], /--timeout must be a time/],
      [['cp', 'a', 'b'], /SANDBOX:PATH/],
      [['cp', 'x:/f', '-'], /- is neither stdin nor stdout/],
      [['cp', '-', 'x:/f'], /- is neither stdin nor stdout/],
      [['snapshot', 'export', 'x', '-'], /- is neither stdin nor stdout/],
      [['snapshot', 'import', '-'], /- is neither stdin nor stdout/],
    ]
    for (const [words, message] of cases) {
      const { status, ...error } = await failure(words)
      assert.equal(status, 2, words.join(' '))
      assert.match(error.message, message)
    }
    const template = await failure(['sandbox', 'create', 'nowhere'])
    assert.deepEqual([template.code, template.status], ['NotFound', 1])
    assert.equal((await failure(['sandbox', 'show', 'nowhere'])).code, 'NotFound')
  })

  test('an image becomes a template, and a template a sandbox', async () => {
    const image = await json('image', 'pull', BASE_IMAGE)
    assert.match(image.id, /^[0-9a-f]{64}$/)
    assert.deepEqual(
      (await json('image', 'list')).map(({ id }: { id: string }) => id),
      [image.id],
    )
    const template = await json(
      ...[
        'template',
        'build',
        'counter',
        '--image',
        BASE_IMAGE,
        '--memory',
        '256MiB',
        '--disk',
        '1GiB',
        '--env',
        'FROM=template',
      ],
      ...['--start', COUNTER, '--ready', 'test -s /tmp/count'],
    )
    assert.deepEqual([template.id, template.status.state, template.size.memoryMiB], ['counter', 'Ready', 256])
    assert.equal((await failure(['image', 'delete', image.id.slice(0, 12)])).code, 'InUse')
    assert.equal((await failure(['template', 'build', 'counter', '--image', BASE_IMAGE])).code, 'AlreadyExists')
    const created = await json(
      ...[
        'sandbox',
        'create',
        'counter',
        '--name',
        'box',
        '--env',
        'A=1',
        '--env',
        'B=x=y',
        '--metadata',
        'team=blue',
        '--timeout',
        '2h',
      ],
    )
    assert.deepEqual([created.status.state, created.name, created.template], ['Running', 'box', 'counter'])
    assert.deepEqual(created.metadata, { team: 'blue' })
    assert.ok(Date.parse(created.expiresAt) > Date.now() + 3_600_000)
    for (const ref of ['box', created.id, created.id.slice(0, 8)])
      assert.equal((await json('sandbox', 'show', ref)).id, created.id)
    assert.equal(await sh('box', 'echo $FROM $A $B'), 'template 1 x=y')
    assert.match((await icebox(['ps'])).stdout, new RegExp(`^ID .*\\n${created.id} +box +counter +Running `))
  })

  test('a build joins an equal one and refuses another under the same name, in words', async () => {
    const build = ['template', 'build', 'slow', '--image', BASE_IMAGE, '--disk', '64MiB', '--ready', 'sleep 4']
    const first = icebox(build)
    await until('it is being built', async () => (await icebox(['template', 'show', 'slow'])).status === 0)
    const [equal, other] = await Promise.all([icebox(build), failure([...build, '--cpu', '2'])])
    assert.deepEqual(
      [other.code, other.message],
      ['Conflict', 'cannot build slow: a build of slow with other settings is under way'],
    )
    assert.deepEqual([(await first).status, equal.status], [0, 0])
  })

  test('events are asked for by the name of what is there', async () => {
    const { id } = await json('sandbox', 'create', 'counter', '--name', 'told')
    const events: { resource: string; to: string }[] = await json('events', 'told')
    assert.deepEqual([events[0]?.resource, events[0]?.to], [id, 'creating'])
    assert.ok((await json('events', 'counter')).every(({ kind }: { kind: string }) => kind === 'Template'))
    await json('sandbox', 'delete', 'told')
    assert.deepEqual(await json('events', 'told'), [])
    assert.equal((await json('events', id)).at(-1).to, 'deleted')
  })

  test('a disk that is full inside a sandbox is not taken for one of the server', async () => {
    const { id } = await json('sandbox', 'create', 'slow')
    const large = join(scratch, 'large')
    await writeFile(large, '')
    await truncate(large, 100_000_000)
    const full = await failure(['cp', large, `${id}:/root/`])
    assert.deepEqual([full.code, full.remedy.includes('inside the sandbox')], ['NoSpace', true])
    await json('sandbox', 'delete', id)
    await json('template', 'delete', 'slow')
  })

  test('paths in references are those of this directory, also to delete what they named', async () => {
    const directory = join(scratch, 'plain')
    await mkdir(directory)
    await writeFile(join(directory, 'file'), 'x')
    const reference = `dir:${relative(process.cwd(), directory)}`
    const { id } = await json('image', 'pull', reference)
    assert.equal((await json('image', 'delete', reference)).id, id)
    const none = await failure(['image', 'pull', `oci:${relative(process.cwd(), join(scratch, 'nolay'))}:t`])
    assert.deepEqual([none.code, none.message], ['NotFound', `there is no ${join(scratch, 'nolay')}`])
    assert.match(none.remedy, /^Check the path/)
  })

  test('files here become images for every key, with all that they are', async () => {
    const root = join(scratch, 'root')
    await mkdir(root)
    execFileSync('tar', ['--extract', '--file', baseImageFile(), '--directory', root])
    await writeFile(join(root, 'odd name'), 'here')
    await symlink('/etc/shadow', join(root, 'shadow'))
    await link(join(root, 'odd name'), join(root, 'second name'))
    execFileSync('setfattr', ['-n', 'user.mark', '-v', 'yes', join(root, 'odd name')])
    const { key } = await json('key', 'create', '--project', 'sends')
    const options = { env: { ICEBOX_API_KEY: key } }
    const run = await icebox(['run', `dir:${root}`, '--', 'sh', '-c', 'cat "second name"; readlink shadow'], options)
    assert.deepEqual([run.status, run.stdout], [0, 'here/etc/shadow\n'], run.stderr)
    const sent = await icebox(['image', 'pull', `dir:${root}`], options)
    const { images } = new Icebox({ dataDirectory: data })
    assert.equal(sent.stdout.trim(), (await images.pull(`dir:${root}`)).id)
    const build = await icebox(['template', 'build', 'sent', '--image', `dir:${root}`, '--memory', '128MiB'], options)
    assert.equal(build.status, 0, build.stderr)
    // What cannot be sent in full makes no image.
    const broken = await failure(['image', 'pull', `dir:${join(root, 'odd name')}`], options)
    assert.equal(broken.code, 'InvalidArgument')
    assert.equal((await failure(['image', 'pull', 'debian:bookworm+hello'], options)).code, 'Forbidden')
  })

  test('a key needs a project', async () => {
    const { status, stderr } = await icebox(['key', 'create'])
    assert.notEqual(status, 0)
    assert.match(stderr, /--project/)
  })

  test('exec passes status, streams, environment, directory and user on', async () => {
    const { status, stdout, stderr } = await icebox(['exec', 'box', '--', 'sh', '-c', 'echo out; echo err >&2; exit 7'])
    assert.deepEqual([status, stdout, stderr], [7, 'out\n', 'err\n'])
    const words = [
      'exec',
      '--env',
      'X=a b',
      '--cwd',
      '/usr',
      '--user',
      'nobody',
      'box',
      '--',
      'sh',
      '-c',
      'echo "$X" $PWD $(id -un)',
    ]
    assert.equal((await icebox(words)).stdout, 'a b /usr nobody\n')
    assert.equal((await icebox(['exec', 'box', '--', 'sh', '-c', 'kill -TERM $$'])).status, 143)
    assert.equal((await icebox(['exec', '--timeout', '300ms', 'box', '--', 'sleep', '60'])).status, 124)
    const unknown = await failure(['exec', 'nobody', '--', 'true'])
    assert.deepEqual([unknown.code, unknown.status], ['NotFound', 125])
    for (const [program, expected] of [
      ['/no/such/program', 127],
      ['/etc/passwd', 126],
    ] as const)
      assert.equal((await icebox(['exec', 'box', '--', program])).status, expected)
    const nameless = await failure(['exec', 'box', '--', ''])
    assert.deepEqual([nameless.message, nameless.status], ['the name of the program is empty', 127])
    const object = JSON.parse((await icebox(['exec', '--json', 'box', '--', 'sh', '-c', 'echo hi; exit 3'])).stdout)
    assert.deepEqual([object.exitCode, object.stdout, object.timedOut], [3, 'hi\n', false])
  })

  test('stdin goes in byte for byte, and nothing of the output is lost', async () => {
    const bytes = randomBytes(5_000_000)
    const echoed = await icebox(['exec', 'box', '--', 'cat'], { stdin: bytes })
    const digest = (data: Uint8Array) => createHash('sha256').update(data).digest('hex')
    assert.equal(digest(echoed.bytes), digest(bytes))
    assert.equal(
      (await icebox(['exec', 'box', '--', 'sh', '-c', 'head -c 20000000 /dev/zero'])).bytes.length,
      20_000_000,
    )
    // The end of it too, for a reader that is slow to begin.
    const slow = spawn('sh', ['-c', `${ICEBOX} exec box -- head -c 200000 /dev/zero | { sleep 0.5; wc -c; }`], {
      env: { ...process.env, ICEBOX_DATA: data },
    })
    slow.stdin.end()
    assert.equal((await ended(slow)).stdout.trim(), '200000')
    // Somebody that keeps stdin open does not hold a command back that does not read it.
    const open = start(['exec', 'box', '--', 'echo', 'done'])
    assert.equal((await ended(open)).stdout, 'done\n')
  })

  test('Ctrl-C goes to the process group', async () => {
    const child = start([
      'exec',
      'box',
      '--',
      'sh',
      '-c',
      'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.05; done',
    ])
    const result = ended(child)
    await printed(child, 'ready')
    child.kill('SIGINT')
    const { status, stdout } = await result
    assert.deepEqual([status, stdout], [9, 'ready\ncaught\n'])
  })

  test('a terminal: size, its changes, keys, and left as it was found', async () => {
    const seen = join(scratch, 'seen')
    // script(1) gives icebox a real terminal; the shell in it sets its size and looks at it afterwards.
    const script = `stty cols 100 rows 30
( until grep -q ready ${seen}; do sleep 0.1; done; stty cols 111 rows 22 </dev/tty ) &
${ICEBOX} exec -it box -- sh -c 'stty size; trap "stty size; exit 4" WINCH; echo ready; while :; do sleep 0.05; done'
echo status $?
stty -a`
    const child = spawn('script', ['-qfec', script, seen], {
      env: { ...process.env, ICEBOX_DATA: data, SHELL: '/bin/sh', TERM: 'xterm' },
    })
    const { stdout } = await ended(child)
    assert.match(stdout, /^30 100\r?$/m)
    assert.match(stdout, /^22 111\r?$/m)
    assert.match(stdout, /^status 4\r?$/m)
    assert.match(stdout, / icanon /)
    assert.match(stdout, / echo /)
    const shell = spawn('script', ['-qfec', `${ICEBOX} shell box`, '/dev/null'], {
      env: { ...process.env, ICEBOX_DATA: data, SHELL: '/bin/sh', TERM: 'xterm' },
    })
    const out = ended(shell)
    // Its prompt: from here on keys go to the guest's terminal.
    await printed(shell, '#')
    shell.stdin.write('echo sum-$((40 + 2)); cat\n')
    await printed(shell, 'sum-42')
    // Ctrl-C as a key ends cat and not icebox.
    shell.stdin.write('\u0003')
    shell.stdin.write('echo status-$?; tty; exit 5\n')
    const { stdout: session, status } = await out
    assert.match(session, /status-130/)
    assert.match(session, /\/dev\/pts\//)
    assert.equal(status, 5)
    assert.equal((await icebox(['shell', 'box'], { stdin: 'echo from a script; exit 6' })).stdout, 'from a script\n')
  })

  test('cp copies files and directories in and out', async () => {
    const source = join(scratch, 'source')
    await mkdir(join(source, 'sub'), { recursive: true })
    const bytes = randomBytes(3_000_000)
    await writeFile(join(source, 'sub/data'), bytes)
    await chmod(join(source, 'sub/data'), 0o751)
    await writeFile(join(source, 'empty'), '')
    await symlink('sub/data', join(source, 'link'))
    const copied = await json('cp', source, 'box:/srv/copy')
    assert.deepEqual([copied.files, copied.bytes, copied.skipped], [2, 3_000_000, []])
    const listing = await sh(
      'box',
      'cd /srv/copy && stat -c "%n %a %s %F" * sub/data && readlink link && sha256sum < sub/data',
    )
    assert.deepEqual(
      listing.split('\n'),
      [
        'empty 644 0 regular empty file',
        'link 777 8 symbolic link',
        'sub 755 4096 directory',
        'sub/data 751 3000000 regular file',
        'sub/data',
        `${createHash('sha256').update(bytes).digest('hex')}  -`,
      ].map((line) => line.replace('sub 755 4096', `sub 755 ${/sub 755 (\d+)/.exec(listing)?.[1]}`)),
    )
    await json('cp', 'box:/srv/copy', scratch)
    assert.deepEqual(await readFile(join(scratch, 'copy/sub/data')), bytes)
    assert.equal((await lstat(join(scratch, 'copy/sub/data'))).mode & 0o7777, 0o751)
    assert.equal(await readlink(join(scratch, 'copy/link')), 'sub/data')
    await json('cp', 'box:/srv/copy/.', 'box:/srv/again')
    assert.equal(await sh('box', 'diff -r /srv/copy /srv/again && readlink /srv/again/link'), 'sub/data')
    // /bin is a symlink to a directory, which is what is copied into.
    await json('cp', join(source, 'sub/data'), 'box:/bin/')
    assert.equal(await sh('box', 'ls -l /usr/bin/data | cut -c1-10'), '-rwxr-x--x')
    await sh('box', 'cp /bin/true /srv/setuid && chmod 4755 /srv/setuid && mkfifo /srv/pipe')
    await json('cp', 'box:/srv/setuid', scratch)
    assert.equal((await lstat(join(scratch, 'setuid'))).mode & 0o7777, 0o755)
    const skipped = await icebox(['cp', 'box:/srv/.', join(scratch, 'srv')])
    assert.match(skipped.stderr, /skipped \/srv\/pipe/)
    assert.match((await failure(['cp', 'box:/dev/zero', join(scratch, 'zero')])).message, /neither file, directory/)
    assert.equal((await failure(['cp', 'box:/none', scratch])).code, 'NotFound')
    assert.equal((await failure(['cp', source, 'box:/srv/none/deeper'])).code, 'NotFound')
    assert.deepEqual(
      (await readdir(scratch)).filter((name) => name.includes('.part')),
      [],
    )
  })

  test('logs, stats and a forwarded port', async () => {
    assert.equal((await json('logs', 'box')).id, (await json('sandbox', 'show', 'box')).id)
    const [stats] = await json('stats', 'box')
    assert.ok(stats.memoryBytes > 0 && stats.processes > 0 && stats.cpuSeconds > 0)
    assert.match((await icebox(['stats'])).stdout, /^ID +NAME +CPU/)
    const server = start([
      'exec',
      'box',
      '--',
      'python3',
      '-u',
      '-m',
      'http.server',
      '8080',
      '--directory',
      '/srv/copy',
    ])
    await printed(server, 'Serving')
    const port = start(['port', 'box', '8080:0'])
    const [, local] = /127\.0\.0\.1:(\d+)/.exec(await printed(port, '127.0.0.1:')) ?? []
    const page = await (await fetch(`http://127.0.0.1:${local}/sub/`)).text()
    assert.match(page, /data/)
    const busy = await failure(['port', 'box', `8080:${local}`])
    assert.deepEqual([busy.code, busy.status], ['Conflict', 1])
    for (const child of [port, server]) {
      const gone = once(child, 'close')
      child.kill('SIGINT')
      await gone
    }
  })

  test('snapshot, fork and rollback: processes go on from where they were', async () => {
    const snapshot = await json('snapshot', 'create', 'box', '--name', 'first')
    assert.deepEqual([snapshot.kind, snapshot.status.state, snapshot.name], ['memory', 'Ready', 'first'])
    const at = await count('box')
    await sh('box', 'echo kept > /root/after')
    const forks = await json('fork', 'box', '-n', '3')
    assert.equal(forks.length, 3)
    const ids: string[] = forks.map(({ sandbox }: { sandbox: { id: string } }) => sandbox.id)
    const machines = new Set<string>()
    for (const id of ids) {
      assert.ok((await count(id)) >= at)
      assert.equal(await sh(id, 'cat /root/after'), 'kept')
      machines.add(await sh(id, 'cat /etc/machine-id'))
    }
    assert.equal(machines.size, 3)
    for (const id of ids) assert.equal((await json('sandbox', 'delete', id)).id, id)
    await json('rollback', 'box', 'first')
    assert.equal((await icebox(['exec', 'box', '--', 'cat', '/root/after'])).status, 1)
    assert.ok((await count('box')) > 0)
    assert.deepEqual(await json('snapshot', 'verify', 'first'), { id: snapshot.id, faults: [] })
    const roots: { id: string; children: { id: string }[] }[] = await json('snapshot', 'tree')
    assert.ok(JSON.stringify(roots).includes(snapshot.id))
    assert.match((await icebox(['snapshot', 'tree'])).stdout, new RegExp(`${snapshot.id} +first`))
    const files = await json('snapshot', 'create', 'box', '--kind', 'filesystem')
    assert.equal(files.kind, 'filesystem')
    assert.equal((await json('snapshot', 'delete', files.id)).id, files.id)
    assert.equal((await failure(['snapshot', 'show', files.id])).code, 'NotFound')
  })

  test('an exported snapshot comes back under another id and runs', async () => {
    const file = join(scratch, 'first.tar')
    await json('snapshot', 'export', 'first', file)
    const imported = await json('snapshot', 'import', file, '--name', 'again')
    const { id } = await json('sandbox', 'create', '--snapshot', 'again')
    assert.equal((await json('sandbox', 'show', id)).snapshotId, imported.id)
    assert.ok((await count(id)) > 0)
    await json('sandbox', 'delete', id)
    assert.equal((await failure(['snapshot', 'export', 'first', join(scratch, 'none/x')])).code, 'NotFound')
    assert.equal((await failure(['snapshot', 'export', 'first', scratch])).code, 'InvalidArgument')
    assert.match((await failure(['snapshot', 'import', join(scratch, 'none')])).message, /^there is no file /)
    const cut = join(scratch, 'cut.tar')
    await writeFile(cut, (await readFile(file)).subarray(0, 100_000))
    const damaged = await failure(['snapshot', 'import', cut])
    assert.deepEqual([damaged.code, damaged.message.includes(data)], ['SnapshotCorrupt', false])
    assert.match(damaged.remedy, /^Export the snapshot again/)
  })

  test('another installation takes an export once it trusts the key that signed it', async () => {
    const file = join(scratch, 'first.tar')
    const there = ['--data', join(scratch, 'elsewhere')]
    assert.equal((await failure(['key', 'show', ...there])).code, 'NotFound')
    try {
      await json('up', '-d', '--no-base', '--listen', '127.0.0.1:0', ...there)
      const { id: key } = await json('key', 'show')
      const refused = await failure(['snapshot', 'import', file, ...there])
      assert.deepEqual([refused.code, refused.message.includes(key)], ['SnapshotUntrusted', true])
      for (const kind of ['snapshot', 'image']) assert.deepEqual(await json(kind, 'list', ...there), [])

      assert.equal((await failure(['key', 'trust', key.slice(0, -1), ...there])).status, 2)
      await json('key', 'trust', key, '--name', 'the first', ...there)
      assert.deepEqual((await json('key', 'show', ...there)).trusted, [{ id: key, name: 'the first' }])
      const imported = await json('snapshot', 'import', file, ...there)
      assert.equal((await json('key', 'distrust', 'the first', ...there)).id, key)
      assert.equal((await failure(['key', 'distrust', 'the first', ...there])).code, 'NotFound')
      assert.equal((await failure(['key', 'distrust', key, ...there])).code, 'NotFound')
      const { id } = await json('sandbox', 'create', '--snapshot', imported.id, ...there)
      assert.ok(Number((await icebox(['exec', ...there, id, '--', 'cat', '/tmp/count'])).stdout) > 0)
    } finally {
      await icebox(['down', '--kill', ...there])
    }
  })

  test('pause frees it, resume goes on under the same id', async () => {
    const { id } = await json('sandbox', 'show', 'box')
    const at = await count('box')
    assert.equal((await json('pause', 'box')).status.state, 'Paused')
    const refused = await failure(['exec', 'box', '--', 'true'])
    assert.deepEqual([refused.code, refused.status], ['InvalidState', 125])
    assert.equal((await failure(['port', 'box', '8080:0'])).code, 'InvalidState')
    const resumed = await json('resume', 'box')
    assert.deepEqual([resumed.id, resumed.status.state], [id, 'Running'])
    assert.ok((await count('box')) > at)
  })

  test('a sandbox has its time, is renewed, and comes back from a pause of its files', async () => {
    const words = ['--timeout', '30m', '--on-timeout', 'pause', '--auto-resume', '--name', 'timed']
    const { id, timeout, onTimeout, autoResume } = await json('sandbox', 'create', 'counter', ...words)
    assert.deepEqual([timeout, onTimeout, autoResume], [1800, 'pause', true])
    const left = async () =>
      Math.round((Date.parse((await json('sandbox', 'show', id)).expiresAt) - Date.now()) / 60_000)
    assert.equal(await left(), 30)
    await json('sandbox', 'renew', 'timed', '10m', '--only-extend')
    assert.equal(await left(), 30)
    assert.match((await icebox(['sandbox', 'renew', 'timed', '1h'])).stdout, /^\d{4}-/)
    assert.equal(await left(), 60)
    assert.match(
      (await icebox(['sandbox', 'show', 'timed'])).stdout,
      /time +30m.*\nat its end +pause \(memory\)\nauto-resume +yes\n/,
    )
    await json('pause', 'timed')
    assert.equal(await sh('timed', 'echo awake'), 'awake')
    assert.equal(await left(), 30)
    await sh('timed', 'echo kept > /root/kept; touch /dev/shm/lost')
    assert.equal((await json('pause', 'timed', '--kind', 'filesystem')).status.state, 'Paused')
    assert.match((await failure(['exec', 'timed', '--', 'true'])).message, /paused/)
    assert.equal((await json('resume', 'timed', '--timeout', '2h')).status.state, 'Running')
    assert.equal(await left(), 120)
    assert.equal(await sh('timed', 'cat /root/kept; ls /dev/shm'), 'kept')
    assert.equal((await icebox(['sandbox', 'renew', 'timed', 'never'])).stdout, 'never\n')
    assert.deepEqual(await json('sandbox', 'renew', 'timed', 'never'), {})
    await json('sandbox', 'delete', 'timed')
  })

  test('run removes its sandbox at the end, whatever the end', async () => {
    const sandboxes = async () => (await json('sandbox', 'list')).length
    const some = await sandboxes()
    const done = await icebox(['run', 'counter', '--', 'sh', '-c', 'cat; exit 3'], { stdin: 'in' })
    assert.deepEqual([done.status, done.stdout], [3, 'in'])
    assert.equal(await sandboxes(), some)
    const child = start(['run', 'counter', '--', 'sh', '-c', 'trap "" TERM; echo ready; sleep 60'])
    await printed(child, 'ready')
    const gone = once(child, 'close')
    child.kill('SIGTERM')
    assert.deepEqual((await gone)[0], 143)
    assert.equal(await sandboxes(), some)
    const kept = await icebox(['run', '--keep', BASE_IMAGE, '--', 'true'])
    assert.equal(kept.status, 0, kept.stderr)
    assert.equal(await sandboxes(), some + 1)
    await json('sandbox', 'delete', kept.stderr.trim().split('\n').at(-1) ?? '')
  })

  test('a reader that leaves, and a full disk below stdout, end it without a sandbox left', async () => {
    const sandboxes = await json('sandbox', 'list')
    const shell = (script: string) =>
      ended(spawn('sh', ['-c', script], { env: { ...process.env, ICEBOX_DATA: data, ICEBOX_URL: '', NO_COLOR: '1' } }))
    const status = async (command: string, target: string) =>
      (await shell(`{ ${ICEBOX} ${command}; echo "status $?" >&2; } </dev/null ${target}`)).stderr
    assert.equal(await status('run counter -- yes', '| head -n 1'), 'status 141\n')
    // Nor does one stay that has written more than a pipe takes, and then no more.
    assert.equal(await status("run counter -- sh -c 'yes | head -n 99999; sleep 600'", '| head -n 1'), 'status 141\n')
    assert.match(
      await status('run counter -- echo x', '>/dev/full'),
      /what was to be printed is lost: .*\n.*\nstatus 125\n$/,
    )
    assert.deepEqual(await json('sandbox', 'list'), sandboxes)
    assert.match(await status('ps', '>/dev/full'), /^error: what was to be printed is lost: ENOSPC.*\n.*\nstatus 1\n$/)
  })

  test('an exec outlives a server that is killed or goes down, and goes on with the next, byte for byte', async () => {
    const { url } = JSON.parse(await readFile(join(data, 'server.json'), 'utf8'))
    const ends = {
      killed: async () => {
        process.kill(pid, 'SIGKILL')
      },
      'down --keep': () => json('down', '--keep'),
      'down, which pauses': () => json('down'),
    }
    for (const [how, end] of Object.entries(ends)) {
      const child = start([
        'exec',
        'box',
        '--',
        'sh',
        '-c',
        'for n in $(seq 100); do echo $n; sleep 0.05; done; exit 3',
      ])
      const result = ended(child)
      await printed(child, '5\n')
      await end()
      await until('the server is gone', () => !lives(pid))
      pid =
        how === 'killed'
          ? await until('its supervisor has started the next', async () => {
              const next: { pid: number } = JSON.parse(
                await readFile(join(data, 'server.json'), 'utf8').catch(() => `{"pid":${pid}}`),
              )
              return next.pid !== pid && next.pid
            })
          : (await json('up', '-d', '--no-base', '--listen', new URL(url).host)).pid
      const { status, stdout, stderr } = await result
      assert.deepEqual([status, stderr], [3, ''], how)
      assert.equal(stdout, Array.from({ length: 100 }, (_, n) => `${n + 1}\n`).join(''), how)
    }
  })

  test('down pauses all and leaves nothing behind; the next up resumes', async () => {
    const at = await count('box')
    const down = await json('down')
    assert.deepEqual([down.mode, down.notPaused], ['pause', []])
    assert.equal(lives(pid), false)
    assert.equal(existsSync(join(data, 'server.json')), false)
    assert.doesNotMatch(execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' }), new RegExp(scratch))
    assert.equal((await failure(['ps'])).code, 'Unavailable')
    pid = (await json('up', '-d', '--no-base', '--listen', '127.0.0.1:0')).pid
    await runs('box')
    assert.ok((await count('box')) > at)
  })

  test('in the foreground, Ctrl-C pauses all and ends; what was kept is taken over', async () => {
    const at = await count('box')
    await json('down', '--keep')
    const server = start(['up', '--no-base', '--listen', '127.0.0.1:0'])
    const over = ended(server)
    await printed(server, 'icebox is up')
    assert.ok((await count('box')) > at)
    server.kill('SIGINT')
    assert.equal((await over).status, 0)
    pid = (await json('up', '-d', '--no-base', '--listen', '127.0.0.1:0')).pid
    await runs('box')
    assert.ok((await count('box')) > at)
    const { status, stdout } = await icebox(['down', '--kill'])
    assert.deepEqual([status, stdout], [0, 'the server has ended\n'])
    pid = (await json('up', '-d', '--no-base', '--listen', '127.0.0.1:0')).pid
    assert.deepEqual(await json('sandbox', 'list'), [])
  })
})
