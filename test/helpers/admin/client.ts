import { mkdtempSync, rmSync } from 'node:fs'
import { type IncomingHttpHeaders, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { TestContext } from 'node:test'
import { type Admin, type AdminOptions, startAdmin } from '../../../lib/admin/admin.ts'
import type { ProxyError } from '../../../lib/core/errors.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { FakeOperations } from './fake-operations.ts'

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
  /** The body as JSON; undefined if it is none. */
  readonly json: unknown
}

export interface Asked {
  readonly body?: unknown
  /** Sent as it is, instead of `body`. */
  readonly raw?: string | Buffer
  readonly headers?: Record<string, string>
}

/** Asks over a Unix socket (`at` is its path) or TCP (`127.0.0.1:9250`). */
export async function ask(at: string, method: string, path: string, asked: Asked = {}): Promise<Answer> {
  const [, host, port] = /^(?!\/)\[?(.+?)\]?:(\d+)$/.exec(at) ?? []
  const to = host === undefined ? { socketPath: at } : { host, port: Number(port) }
  const body = asked.raw ?? (asked.body === undefined ? undefined : JSON.stringify(asked.body))
  const type = asked.body === undefined ? {} : { 'content-type': 'application/json' }
  return await new Promise((resolve, reject) => {
    const outgoing = request(
      { ...to, method, path, agent: false, headers: { ...type, ...asked.headers } },
      (incoming) => {
        text(incoming).then((got) => {
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text: got, json: parse(got) })
        }, reject)
      },
    )
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

function parse(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}

export interface Served {
  readonly admin: Admin
  readonly operations: FakeOperations
  readonly folder: StateFolder
  readonly errors: ProxyError[]
  readonly warnings: string[]
  /** Asks over the Unix socket. */
  ask(method: string, path: string, asked?: Asked): Promise<Answer>
  /** Asks over TCP, with the token unless there are headers. */
  askTcp(method: string, path: string, asked?: Asked): Promise<Answer>
}

/** An admin server over fake operations that ends with the test. */
export async function serveAdmin(t: TestContext, options: Partial<AdminOptions> = {}): Promise<Served> {
  const folder = options.folder ?? temporaryFolder(t)
  const operations = new FakeOperations()
  const errors: ProxyError[] = []
  const warnings: string[] = []
  const admin = await startAdmin({
    operations,
    folder,
    onError: (error) => errors.push(error),
    onWarning: (message) => warnings.push(message),
    ...options,
  })
  t.after(() => admin.close())
  return {
    admin,
    operations,
    folder,
    errors,
    warnings,
    ask: (method, path, asked) => ask(admin.socket ?? '', method, path, asked),
    async askTcp(method, path, asked = {}) {
      const token = (await folder.read('admin-token'))?.text.trim()
      const headers = { authorization: `Bearer ${token}` }
      const answer = await ask(admin.address ?? '', method, path, { headers, ...asked })
      // Whoever asks is told no more.
      if (answer.status === 500) console.error(errors)
      return answer
    },
  }
}

/** Not made yet. */
export function temporaryFolder(t: TestContext): StateFolder {
  const path = mkdtempSync(join(tmpdir(), 'symport-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return new StateFolder(join(path, 'state'))
}

/** The code of an error that the API answered. */
export function codeOf(answer: Answer): unknown {
  const { json } = answer
  const error = typeof json === 'object' && json !== null && 'error' in json ? json.error : undefined
  return typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
}

/** The text of an error that the API answered. */
export function messageOf(answer: Answer): string {
  const { json } = answer
  const error = typeof json === 'object' && json !== null && 'error' in json ? json.error : undefined
  return typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : ''
}
