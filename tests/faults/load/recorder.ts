import { type IceboxError, isIceboxError } from '@icebox/sdk'
import { type Invocation, Operation, type OperationOf, type Outcome } from '../history/record.ts'

/** Errors that say that nothing was changed. Whatever else comes leaves open how far it came. */
const REFUSALS = new Set<IceboxError['code']>([
  'NotFound',
  'Conflict',
  'InvalidState',
  'InvalidArgument',
  'InUse',
  'TooManyRequests',
  'NoMemory',
  'NoSpace',
])

/** The outcome is not known although the error reads like a refusal: the work had begun when it came. */
export class HalfDone extends Error {
  readonly code: string

  constructor(code: string) {
    super(`${code} after the work had begun`)
    this.code = code
  }
}

type Result<V extends Invocation['op']> = Omit<Extract<Outcome<V>, { is: 'ok' }>, 'is'>
/** What became of an operation, with its result. */
type Ended<V extends Invocation['op']> = ({ is: 'ok' } & Result<V>) | { is: 'refused' | 'unknown' }

/** Writes down what clients ask and what they are told. */
export class Recorder {
  readonly history: Operation[] = []
  readonly #began = performance.now()

  now(): number {
    return performance.now() - this.#began
  }

  /** Does it and writes it down, whatever becomes of it. */
  async run<V extends Invocation['op']>(
    asked: Extract<Invocation, { op: V }>,
    act: () => Promise<Result<V>>,
  ): Promise<Ended<V>> {
    const begin = this.now()
    try {
      const result = await act()
      this.#add({ ...asked, begin, end: this.now(), outcome: { is: 'ok', ...result } })
      return { is: 'ok', ...result }
    } catch (thrown) {
      if (!(isIceboxError(thrown) || thrown instanceof HalfDone)) throw thrown
      const is = isIceboxError(thrown) && REFUSALS.has(thrown.code) ? 'refused' : 'unknown'
      this.#add({ ...asked, begin, end: this.now(), outcome: { is, code: thrown.code } })
      if (thrown.code === 'Internal') throw thrown
      return { is }
    }
  }

  note(operation: OperationOf<'kill' | 'census'>): void {
    this.#add(operation)
  }

  #add(operation: unknown): void {
    this.history.push(Operation.parse(operation))
  }
}
