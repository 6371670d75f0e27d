import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Traffic } from '@icebox/control'
import { IceboxError } from '@icebox/model'
import type { Access } from './access.ts'
import type { App, Context } from './context.ts'
import { allowOrigin } from './cors.ts'
import { isSignedFile, signedFor } from './e2b/envd/signed-file.ts'
import { ENVD_PORT } from './facades.ts'
import type { Address } from './gateway/address.ts'
import type { Gateway } from './gateway/gateway.ts'
import { refusalOf, refuse } from './gateway/refusal.ts'
import { linger } from './linger.ts'
import type { ListenerOptions } from './listener.ts'
import type { Strangers } from './strangers.ts'

export interface FrontParts {
  app: App
  access: Access
  gateway: Gateway
  upgrades: Context['upgrades']
  traffic: Traffic
  strangers: Strangers
}

/** Decides for every request whether it is for the API or for a port of a sandbox. */
export function front({
  app,
  access,
  gateway,
  upgrades,
  traffic,
  strangers,
}: FrontParts): Pick<ListenerOptions, 'onRequest' | 'wantsUpgrade' | 'onUpgrade'> {
  /** Undefined: the API's. */
  const addressOf = (request: IncomingMessage): Address | IceboxError | undefined => {
    try {
      return gateway.addressOf(request)
    } catch (thrown) {
      return IceboxError.from(thrown)
    }
  }

  /** Throws `Forbidden`. What a service of the user's thinks of a page's origin is its own matter. */
  const check = (request: IncomingMessage, address: Address): void => {
    access.checkHost(request)
    if (gateway.isFacade(address)) access.checkOrigin(request)
  }

  const toGateway = (request: IncomingMessage, response: ServerResponse, address: Address | IceboxError): void => {
    try {
      if (address instanceof IceboxError) throw address
      check(request, address)
    } catch (thrown) {
      refuse(request, response, refusalOf(IceboxError.from(thrown), undefined))
      linger(request)
      return
    }
    if (gateway.isFacade(address)) {
      if (allowOrigin(access, request, response)) return
      if (expects(request)) response.writeContinue()
    }
    void gateway.serve(request, response, address)
  }

  const toApp = (request: IncomingMessage, response: ServerResponse): void => {
    if (expects(request)) response.writeContinue()
    if (!allowOrigin(access, request, response)) app.routing(request, response)
  }

  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const address = addressOf(request)
    if (address !== undefined) toGateway(request, response, address)
    else if (isSignedFile(request)) void toSigned(request, response)
    else toApp(request, response)
  }

  const toSigned = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    try {
      access.checkHost(request)
      strangers.check(request)
    } catch (thrown) {
      refuse(request, response, refusalOf(IceboxError.from(thrown), undefined))
      linger(request)
      return
    }
    strangers.refused(request)
    const found = await signedFor(request, traffic).then(
      (sandbox) => sandbox && { sandbox, port: ENVD_PORT, path: request.url ?? '', prefix: '' },
      (thrown: unknown) => IceboxError.from(thrown),
    )
    if (found) toGateway(request, response, found)
    else toApp(request, response)
  }

  return {
    onRequest,
    wantsUpgrade(request) {
      const address = addressOf(request)
      const protocol = request.headers.upgrade?.toLowerCase()
      if (address === undefined) return protocol === 'tcp'
      // Offers of HTTP/2 are declined by answering the request as it is; so is one with a body.
      return (
        !(address instanceof IceboxError) && !gateway.isFacade(address) && protocol !== 'h2c' && !bringsBody(request)
      )
    },
    onUpgrade(request, socket, head) {
      // A client that vanishes is seen by whoever reads or writes.
      socket.on('error', () => socket.destroy())
      const respond = () => {
        const response = new ServerResponse(request)
        // Answered as a plain request, refusals included, the connection has served its purpose.
        response.shouldKeepAlive = false
        response.assignSocket(socket as Socket)
        response.on('finish', () => socket.end(() => socket.destroy()))
        return response
      }
      const address = addressOf(request)
      if (address === undefined) {
        upgrades.set(request, { socket, head })
        app.routing(request, respond())
        return
      }
      try {
        if (address instanceof IceboxError) throw address
        check(request, address)
      } catch (thrown) {
        refuse(request, respond(), refusalOf(IceboxError.from(thrown), undefined))
        return
      }
      void gateway.upgrade(request, socket, head, address, respond)
    },
  }
}

const expects = ({ headers }: IncomingMessage): boolean => headers.expect?.toLowerCase() === '100-continue'
const bringsBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'
