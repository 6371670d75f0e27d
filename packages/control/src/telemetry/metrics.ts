import { type IceboxError, type Phases, SANDBOX_STATES } from '@icebox/model'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Cache } from '../cache/cache.ts'
import { DEATH_CAUSES, type ServerDeaths } from './deaths.ts'
import { BoundedLabel, countByProject } from './labels.ts'

/** The operations that are measured. */
export const MEASURED = ['create', 'pause', 'resume', 'rollback', 'fork', 'snapshot', 'delete', 'build'] as const
export type Measured = (typeof MEASURED)[number]

/** Upper bounds in seconds: restores take tenths, builds minutes. */
const BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 30, 60, 300]

/** Projects with series of their own: those that have most sandboxes. */
const PROJECTS = 100
/** Names of phases, which nodes choose. */
const PHASES = 64

/** What Prometheus reads. Counts begin anew with each start of the server. */
export class Metrics {
  readonly #registry = new Registry()
  readonly #operations = new Histogram({
    name: 'icebox_operation_duration_seconds',
    help: 'Time from the intent of an operation until it had ended.',
    labelNames: ['operation', 'outcome', 'code'],
    buckets: BUCKETS,
    registers: [this.#registry],
  })
  readonly #phases = new Histogram({
    name: 'icebox_operation_phase_duration_seconds',
    help: 'Time of the parts of an operation, as the node reports them.',
    labelNames: ['operation', 'phase'],
    buckets: BUCKETS,
    registers: [this.#registry],
  })
  readonly #phaseNames = new BoundedLabel(PHASES)
  readonly #restores = new Counter({
    name: 'icebox_restores_total',
    help: 'Restores by what became of them: each has an intent and then one of success, cold_fallback and failure.',
    labelNames: ['result'],
    registers: [this.#registry],
  })

  readonly #deaths = new Counter({
    name: 'icebox_server_deaths_total',
    help: 'Servers of this data directory that ended without having been told to, since there is one.',
    labelNames: ['cause'],
    registers: [this.#registry],
  })

  constructor(cache: Cache, deaths: ServerDeaths) {
    for (const cause of DEATH_CAUSES) this.#deaths.inc({ cause }, deaths.counts[cause] ?? 0)
    for (const result of ['intent', 'success', 'cold_fallback', 'failure']) this.#restores.inc({ result }, 0)
    new Gauge({
      name: 'icebox_sandboxes',
      help: 'Sandboxes by project and state.',
      labelNames: ['project', 'state'],
      registers: [this.#registry],
      collect() {
        this.reset()
        const counts = cache.projectsOf('Sandbox').flatMap((project) =>
          SANDBOX_STATES.map((state) => {
            const { size: count } = cache.of('Sandbox', project).where('state', state)
            return { project, state, count }
          }),
        )
        for (const { project, state, count } of countByProject(counts, PROJECTS)) this.set({ project, state }, count)
      },
    })
  }

  operation(operation: Measured, milliseconds: number, phases: Phases, failure: IceboxError | undefined): void {
    const outcome = failure === undefined ? 'success' : 'failure'
    this.#operations.observe({ operation, outcome, code: failure?.code ?? '' }, milliseconds / 1000)
    for (const [phase, duration] of Object.entries(phases))
      this.#phases.observe({ operation, phase: this.#phaseNames.of(phase) }, duration / 1000)
  }

  restore(result: 'intent' | 'success' | 'cold_fallback' | 'failure'): void {
    this.#restores.inc({ result })
  }

  /** In Prometheus' text format. */
  text(): Promise<string> {
    return this.#registry.metrics()
  }
}
