export type { ServerInfo, ShutdownMode } from './context.ts'
export { type OpenApiDocument, openApiDocument } from './openapi.ts'
export { checkAddress, openServer, type Server, type ServerOptions } from './server.ts'
