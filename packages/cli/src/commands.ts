import type { Command } from './command.ts'

export interface Entry {
  readonly summary: string
  /** Loaded when it is called, so that every command starts as fast as if it were the only one. */
  readonly load: () => Promise<{ command: Command }>
}

/** Every command by its words, in the order in which the help lists them. */
export const COMMANDS: Readonly<Record<string, Entry>> = {
  up: { summary: 'Start the server.', load: () => import('./commands/up.ts') },
  down: { summary: 'End the server, having paused all sandboxes.', load: () => import('./commands/down.ts') },
  doctor: { summary: 'Say what this machine has and lacks.', load: () => import('./commands/doctor.ts') },

  run: { summary: 'Run a command in a new sandbox.', load: () => import('./commands/run.ts') },
  ps: { summary: 'List running and paused sandboxes.', load: () => import('./commands/ps.ts') },
  exec: { summary: 'Run a command in a sandbox.', load: () => import('./commands/exec.ts') },
  shell: { summary: 'Open a shell in a sandbox.', load: () => import('./commands/shell.ts') },
  cp: { summary: 'Copy files into and out of sandboxes.', load: () => import('./commands/cp.ts') },
  logs: { summary: 'Print what a sandbox wrote.', load: () => import('./commands/logs.ts') },
  events: {
    summary: 'List what happened to sandboxes, snapshots and templates.',
    load: () => import('./commands/events.ts'),
  },
  stats: { summary: 'Show what sandboxes use.', load: () => import('./commands/stats.ts') },
  port: { summary: 'Forward a port of a sandbox.', load: () => import('./commands/port.ts') },

  fork: { summary: 'Make sandboxes that go on from a running one.', load: () => import('./commands/fork.ts') },
  pause: { summary: 'Save a sandbox and free what it uses.', load: () => import('./commands/pause.ts') },
  resume: { summary: 'Let a paused sandbox go on.', load: () => import('./commands/resume.ts') },
  rollback: { summary: 'Take a sandbox back to a snapshot.', load: () => import('./commands/rollback.ts') },

  'sandbox create': { summary: 'Create a sandbox.', load: () => import('./commands/sandbox-create.ts') },
  'sandbox list': { summary: 'List sandboxes, failed ones too.', load: () => import('./commands/sandbox-list.ts') },
  'sandbox show': { summary: 'Show a sandbox.', load: () => import('./commands/sandbox-show.ts') },
  'sandbox renew': {
    summary: 'Set when the time of a sandbox is over.',
    load: () => import('./commands/sandbox-renew.ts'),
  },
  'sandbox delete': { summary: 'Delete a sandbox.', load: () => import('./commands/sandbox-delete.ts') },

  'template build': { summary: 'Build a template from an image.', load: () => import('./commands/template-build.ts') },
  'template list': { summary: 'List templates.', load: () => import('./commands/template-list.ts') },
  'template show': { summary: 'Show a template.', load: () => import('./commands/template-show.ts') },
  'template delete': { summary: 'Delete a template.', load: () => import('./commands/template-delete.ts') },

  'image pull': { summary: 'Make an image present.', load: () => import('./commands/image-pull.ts') },
  'image list': { summary: 'List images.', load: () => import('./commands/image-list.ts') },
  'image delete': { summary: 'Delete an image.', load: () => import('./commands/image-delete.ts') },

  'snapshot create': { summary: 'Take a snapshot of a sandbox.', load: () => import('./commands/snapshot-create.ts') },
  'snapshot list': { summary: 'List snapshots.', load: () => import('./commands/snapshot-list.ts') },
  'snapshot show': { summary: 'Show a snapshot.', load: () => import('./commands/snapshot-show.ts') },
  'snapshot tree': {
    summary: 'Draw which snapshot came from which.',
    load: () => import('./commands/snapshot-tree.ts'),
  },
  'snapshot verify': {
    summary: 'Reread every byte of a snapshot.',
    load: () => import('./commands/snapshot-verify.ts'),
  },
  'snapshot delete': { summary: 'Delete a snapshot.', load: () => import('./commands/snapshot-delete.ts') },
  'snapshot pull': { summary: 'Make an ext4 file of an image.', load: () => import('./commands/snapshot-pull.ts') },
  'snapshot export': { summary: 'Write a snapshot into a file.', load: () => import('./commands/snapshot-export.ts') },
  'snapshot import': { summary: 'Take in an exported snapshot.', load: () => import('./commands/snapshot-import.ts') },

  usage: { summary: 'Show how long sandboxes have run.', load: () => import('./commands/usage.ts') },
  collect: { summary: 'Remove what has expired or is not needed.', load: () => import('./commands/collect.ts') },

  'key create': { summary: 'Make an API key of a project.', load: () => import('./commands/key-create.ts') },
  'key list': { summary: 'List the API keys of all projects.', load: () => import('./commands/key-list.ts') },
  'key revoke': { summary: 'Take an API key back.', load: () => import('./commands/key-revoke.ts') },
  'key show': {
    summary: 'Show the signing key of snapshots, and the trusted ones.',
    load: () => import('./commands/key-show.ts'),
  },
  'key trust': {
    summary: 'Trust the snapshots that a signing key signs.',
    load: () => import('./commands/key-trust.ts'),
  },
  'key distrust': { summary: 'Trust a signing key no more.', load: () => import('./commands/key-distrust.ts') },

  'e2b env': {
    summary: 'Print what points programs for E2B at this server.',
    load: () => import('./commands/e2b-env.ts'),
  },

  bench: { summary: 'Measure this machine.', load: () => import('./commands/bench.ts') },
}
