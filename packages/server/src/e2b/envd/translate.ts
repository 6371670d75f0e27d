import type { HandlerContext } from '@connectrpc/connect'
import { rpcError } from './errors.ts'

/** A method whose errors are told in envd's codes. */
export const unary =
  <I, O>(method: (request: I, context: HandlerContext) => Promise<O>) =>
  async (request: I, context: HandlerContext): Promise<O> => {
    try {
      return await method(request, context)
    } catch (thrown) {
      throw reasonOf(thrown, context)
    }
  }

/** The same of one that answers with a stream. */
export const streaming = <I, O>(method: (request: I, context: HandlerContext) => AsyncIterable<O>) =>
  async function* (request: I, context: HandlerContext): AsyncGenerator<O, void, void> {
    try {
      yield* method(request, context)
    } catch (thrown) {
      throw reasonOf(thrown, context)
    }
  }

/** What was interrupted failed for the reason of the interruption: the client's deadline, or that it is gone. */
const reasonOf = (thrown: unknown, { signal }: HandlerContext): Error =>
  rpcError(signal.aborted ? signal.reason : thrown)
