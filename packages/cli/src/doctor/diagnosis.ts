import { z } from 'zod'

/** One thing that Icebox needs, can use, or should be known. */
export const Check = z.object({
  /** Stable, for programs: `mkfs.erofs`, `cgroup.memory`. */
  id: z.string(),
  group: z.enum(['host', 'programs', 'builds', 'storage', 'server']),
  /** `ok`; `missing`: not there or not usable; `warning`: works, with a drawback; `info`: nothing depends on it. */
  status: z.enum(['ok', 'missing', 'warning', 'info']),
  /** Without it, sandboxes cannot run. */
  required: z.boolean(),
  /** What it is for, or what was looked at. */
  purpose: z.string(),
  /** What was found, in words: a path, a size, a reason. */
  found: z.string().optional(),
  version: z.string().optional(),
  /** How to get it or what to do, when it is missing or has a drawback. */
  remedy: z.string().optional(),
})
export type Check = z.infer<typeof Check>

export const DriverFinding = z.object({
  name: z.string(),
  usable: z.boolean(),
  reason: z.string(),
  version: z.string().optional(),
  /** `sha256:<hex>` of the program that runs machines. */
  digest: z.string().optional(),
})
export type DriverFinding = z.infer<typeof DriverFinding>

/** What `icebox doctor --json` prints. */
export const Diagnosis = z.object({
  /** Nothing required is missing and a driver is usable. */
  ok: z.boolean(),
  checks: z.array(Check),
  driver: z.object({
    /** The driver that would run sandboxes; null when none can. */
    chosen: z.string().nullable(),
    reason: z.string(),
    candidates: z.array(DriverFinding),
  }),
})
export type Diagnosis = z.infer<typeof Diagnosis>
