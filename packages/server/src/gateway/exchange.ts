import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import { IceboxError } from '@icebox/model'
import { ClientGone } from '../client.ts'
import { linger } from '../linger.ts'
import type { Address } from './address.ts'
import { hasBody, toClient, trailers } from './headers.ts'

/** Whose answer is passed back, and where. */
export interface Asked {
  request: IncomingMessage
  response: ServerResponse
  address: Address
}

export interface Exchange extends Asked {
  /** Begins the request to the guest; `fresh`: on a connection of its own. */
  begin(fresh: boolean): Promise<ClientRequest> | ClientRequest
  /** Milliseconds from the end of the request until the head of its answer. */
  headDeadline: number
}

/**
 * Passes one request to the guest and its answer back, both as they come and no faster than the other side takes them. Throws an
 * IceboxError when the guest has not answered; an answer that breaks off is cut, so that the client sees that it is not whole.
 */
export async function exchange(passing: Exchange): Promise<void> {
  const { request, response } = passing
  const again = repeatable(request)
  let outgoing = await passing.begin(!again)
  let answer: IncomingMessage
  try {
    answer = await headOf(passing, outgoing)
  } catch (thrown) {
    // The guest closed a connection that waited for another request, just as it got one.
    if (!again || !outgoing.reusedSocket || response.destroyed || !isConnectionLost(thrown)) throw failure(thrown)
    outgoing = await passing.begin(true)
    answer = await headOf(passing, outgoing).catch((second) => {
      throw failure(second)
    })
  }
  await passBack(passing, outgoing, answer)
}

/** Passes the answer to a request back. Throws only while the client can be told. */
export async function passBack(
  { request, response, address }: Asked,
  outgoing: ClientRequest,
  answer: IncomingMessage,
): Promise<void> {
  try {
    await relay(answer, response, address)
  } catch (thrown) {
    if (!response.headersSent) throw failure(thrown)
    cut(response)
  } finally {
    // Complete, it has given its connection back; else nobody else may have that.
    if (!answer.complete || !outgoing.writableFinished) outgoing.destroy()
    linger(request)
  }
}

/** Nothing changes when it is done twice, and it can be: there is no body to have been read. */
const repeatable = (request: IncomingMessage): boolean =>
  (request.method === 'GET' || request.method === 'HEAD') && !hasBody(request)

const isConnectionLost = (thrown: unknown): boolean =>
  thrown instanceof IceboxError
    ? thrown.code === 'GuestFailed' || thrown.details.errno !== undefined
    : thrown instanceof Error && 'code' in thrown && ['ECONNRESET', 'EPIPE'].includes(String(thrown.code))

export const tooLate = (what: string, milliseconds: number): IceboxError =>
  new IceboxError('DeadlineExceeded', `${what} within ${milliseconds / 1000} s`)

/** What the guest says or fails to say is its failure, whatever it is called: the client's request was understood by then. */
export function failure(thrown: unknown): IceboxError | ClientGone {
  if (thrown instanceof ClientGone) return thrown
  if (thrown instanceof IceboxError && thrown.code !== 'InvalidArgument' && thrown.code !== 'Internal') return thrown
  const reason = thrown instanceof Error ? thrown.message : String(thrown)
  return new IceboxError('GuestFailed', `The service inside did not answer in HTTP: ${reason}`, { cause: thrown })
}

function headOf({ request, response, headDeadline }: Exchange, outgoing: ClientRequest): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  let timer: NodeJS.Timeout | undefined
  let answered = false
  const late = () => outgoing.destroy(tooLate('The service inside did not answer', headDeadline))
  const gone = () => outgoing.destroy(new ClientGone())
  if (response.destroyed) gone()
  else response.once('close', gone)
  outgoing.once('finish', () => {
    if (!answered) timer = setTimeout(late, headDeadline)
  })
  outgoing.once('response', (answer) => {
    answered = true
    clearTimeout(timer)
    resolve(answer)
  })
  // Also after the answer, when the rest of a request finds the connection closed.
  outgoing.on('error', reject)
  // Others than 100 say nothing that the client has asked for.
  outgoing.once('continue', () => {
    if (expectsContinue(request) && !response.headersSent) response.writeContinue()
  })
  boundInformation(outgoing)
  outgoing.once('close', () => {
    clearTimeout(timer)
    response.off('close', gone)
    reject(new Error('the connection was closed'))
  })
  sendBody(request, outgoing)
  return promise
}

const expectsContinue = ({ headers }: IncomingMessage): boolean => headers.expect?.toLowerCase() === '100-continue'

/** Answers on the way that a service may give before the one that counts. */
const INFORMATION = 64

/** Ends a request whose service says for ever that it is about to answer. */
export function boundInformation(outgoing: ClientRequest): void {
  let given = 0
  outgoing.on('information', () => {
    if (++given > INFORMATION) outgoing.destroy(new Error(`it gave more than ${INFORMATION} informational answers`))
  })
}

function sendBody(request: IncomingMessage, outgoing: ClientRequest): void {
  if (!hasBody(request)) {
    outgoing.end()
    return
  }
  request.once('end', () => {
    const rest = trailers(request)
    if (Object.keys(rest).length > 0) outgoing.addTrailers(rest)
    outgoing.end()
  })
  // A body that breaks off must not look whole.
  request.once('close', () => {
    if (!request.readableEnded) outgoing.destroy(new ClientGone())
  })
  outgoing.once('close', () => request.unpipe(outgoing))
  request.pipe(outgoing, { end: false })
  outgoing.flushHeaders()
}

/** What may stand in the first line of an answer: the guest's may have what Node does not write. */
const REASON = /^[\t\x20-\x7e\x80-\xff]*$/

/** Resolves when the client has all of it. */
async function relay(answer: IncomingMessage, response: ServerResponse, address: Address): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const { statusCode = 0, statusMessage = '' } = answer
  // Nobody has asked for another protocol here, and what is only on the way is no answer.
  if (statusCode < 200) throw new Error(`its answer has the status ${statusCode}`)
  const headers = toClient(answer, address)
  if (response.req.httpVersionMajor >= 2) response.writeHead(statusCode, headers)
  else response.writeHead(statusCode, REASON.test(statusMessage) ? statusMessage : '', headers)
  // A small answer leaves in one piece; the head of one that takes its time leaves at once.
  let begun = false
  answer.once('data', () => {
    begun = true
  })
  setImmediate(() => {
    if (!begun && !response.writableEnded && !response.destroyed) response.flushHeaders()
  })
  answer.once('end', () => {
    const rest = trailers(answer)
    if (Object.keys(rest).length > 0 && takesTrailers(response)) response.addTrailers(rest)
    response.end()
  })
  answer.once('error', reject)
  answer.once('close', () => {
    if (!answer.complete) reject(new Error('the answer broke off'))
  })
  response.once('close', resolve)
  answer.pipe(response, { end: false })
  return promise
}

const takesTrailers = ({ req, chunkedEncoding }: ServerResponse): boolean =>
  req.httpVersionMajor >= 2 || chunkedEncoding

/** Ends an answer so that nobody takes it for whole. */
export function cut(response: ServerResponse): void {
  if ('stream' in response && typeof response.stream === 'object' && response.stream !== null) {
    if ('close' in response.stream && typeof response.stream.close === 'function') {
      response.stream.close(INTERNAL_ERROR)
      return
    }
  }
  response.destroy()
}
/** Of HTTP/2. */
const INTERNAL_ERROR = 2
