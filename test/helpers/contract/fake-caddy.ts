import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'
import type { CaddyPlace } from '../../../lib/sockets/caddy-api.ts'

type Json = Record<string, unknown>

/** Answers instead of the real thing; `true`: it has. */
export type Trick = (request: IncomingMessage, response: ServerResponse) => boolean | undefined

/**
 * Caddy's admin API, as Caddy 2.6 behaves: paths into one config, ETags as trailers, `If-Match`, and a connection that is
 * closed with every change.
 */
export class FakeCaddy {
  config: Json | null
  /** `GET /config/apps/http`, in the order in which they came. */
  readonly asked: string[] = []
  trick: Trick = () => undefined
  #server: Server | undefined
  #port = 0

  private constructor(config: Json | null) {
    this.config = config
  }

  static async start(t: TestContext, config: Json | null): Promise<FakeCaddy> {
    const fake = new FakeCaddy(config)
    t.after(() => fake.stop())
    await fake.start()
    return fake
  }

  get place(): CaddyPlace {
    return { name: `http://127.0.0.1:${this.#port}`, at: { host: '127.0.0.1', port: this.#port, secure: false } }
  }

  get routes(): Json[] {
    return this.routesOf('srv0')
  }

  routesOf(server: string): Json[] {
    const servers = this.#at(['config', 'apps', 'http', 'servers', server])
    return ((servers as { routes?: Json[] } | undefined)?.routes ?? []) as Json[]
  }

  get changes(): string[] {
    return this.asked.filter((line) => !line.startsWith('GET'))
  }

  /** On the same port as before. */
  async start(): Promise<void> {
    const server = createServer((request, response) => void this.#serve(request, response))
    this.#server = server
    server.listen(this.#port, '127.0.0.1')
    await once(server, 'listening')
    this.#port = (server.address() as AddressInfo).port
  }

  async stop(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (!server) return
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    await closed
  }

  /** As by `caddy reload`. */
  load(config: Json | null): void {
    this.config = config
    this.#server?.closeAllConnections()
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '' } = request
    this.asked.push(`${method} ${url}`)
    let text = ''
    for await (const chunk of request) text += chunk
    if (this.trick(request, response)) return
    const path = decodeURIComponent(url).split('/').filter(Boolean)
    if (method === 'GET') {
      const value = this.#read(path)
      if (value === undefined) return this.#refuse(response, 400, `invalid traversal path at: ${path.join('/')}`)
      const body = `${JSON.stringify(value)}\n`
      response.writeHead(200, { 'content-type': 'application/json', trailer: 'ETag', 'transfer-encoding': 'chunked' })
      response.write(body)
      response.addTrailers({ Etag: `"${url} ${hash(body)}"` })
      response.end()
      return
    }
    const [where = '', seen] = String(request.headers['if-match']).replaceAll('"', '').split(' ')
    const now = hash(`${JSON.stringify(this.#read(where.split('/').filter(Boolean)) ?? null)}\n`)
    if (seen !== now) return this.#refuse(response, 412, 'If-Match header did not match current config hash')
    const wrong = this.#change(method, path, text === '' ? undefined : JSON.parse(text))
    if (wrong !== undefined) return this.#refuse(response, 500, wrong)
    response.writeHead(200, { connection: 'close' }).end()
    this.#server?.closeIdleConnections()
  }

  #refuse(response: ServerResponse, status: number, error: string): void {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ error }))
  }

  /** The last part may be missing, what it would be in not. */
  #read(path: readonly string[]): unknown {
    const parent = this.#at(path.slice(0, -1))
    if (path.length > 1 && (typeof parent !== 'object' || parent === null)) return undefined
    return this.#at(path) ?? null
  }

  #at(path: readonly string[]): unknown {
    return path.reduce<unknown>(
      (value, part) => (typeof value === 'object' && value !== null ? (value as Json)[part] : undefined),
      { config: this.config },
    )
  }

  #change(method: string, path: readonly string[], value: unknown): string | undefined {
    if (method === 'PUT') this.#make(path.slice(1, -1))
    const parent = this.#at(path.slice(0, -1))
    const last = path.at(-1) ?? ''
    if (method === 'POST') {
      const list = this.#at(path)
      if (!Array.isArray(list)) return 'not a list'
      list.push(value)
    } else if (Array.isArray(parent)) {
      const index = Number(last)
      if (!Number.isInteger(index) || index >= parent.length) return `array index out of bounds: ${last}`
      parent.splice(index, method === 'PUT' ? 0 : 1, ...(method === 'DELETE' ? [] : [value]))
    } else if (typeof parent === 'object' && parent !== null) {
      const table = parent as Json
      const isThere = table[last] !== undefined && table[last] !== null
      if (method === 'PUT' && isThere) return `key already exists: ${last}`
      if (method !== 'PUT' && !isThere) return `key does not exist: ${last}`
      if (method === 'DELETE') delete table[last]
      else table[last] = value
    } else {
      return `invalid traversal path at: ${path.join('/')}`
    }
    return undefined
  }

  #make(path: readonly string[]): void {
    this.config ??= {}
    let table: unknown = this.config
    for (const part of path) {
      if (typeof table !== 'object' || table === null) return
      ;(table as Json)[part] ??= {}
      table = (table as Json)[part]
    }
  }
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 8)
}
