import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { Endpoint, Listener } from '../../../lib/core/index.ts'
import type { HttpSettings } from '../../../lib/domains/http-settings.ts'
import type { Recorder } from '../../../lib/domains/web-inspect.ts'
import type { InspectedExchange, InspectedRequest, Inspection } from '../../../lib/domains/web-inspection.ts'
import type { Recording } from '../../../lib/domains/web-recording.ts'
import type { WebSite } from '../../../lib/domains/web-routes.ts'
import { eventually } from './strays.ts'
import type { WebPort } from './web-port.ts'

export interface InspectedAt {
  readonly at?: string
  /** The id of the mapping. */
  readonly name?: string
  readonly settings?: () => HttpSettings
}

/** Listens at a web port as a mapping does whose requests are looked at. */
export async function listenInspected(
  port: WebPort,
  to: number,
  { at = '/', name = '7', settings = () => ({ inspect: true }) }: InspectedAt = {},
): Promise<Listener> {
  const Forward: Endpoint = { Domain: 'tcp', Addr: `127.0.0.1:${to}` }
  const plugin = port.web.domains.find((one) => one.name === 'web')
  const listener = await plugin?.listen?.(
    { Domain: 'web', Addr: at },
    {
      ...{ signal: new AbortController().signal, name, settings, forward: () => Forward },
      open: async ({ from }: { from?: string | undefined } = {}) => port.pair.dialling.open({ to: Forward, from }),
    },
  )
  if (!listener) throw new Error('nothing can be listened on')
  return listener
}

/** The newest one, when it is over. */
export async function last(inspection: Inspection): Promise<InspectedRequest> {
  const newest = (): InspectedRequest | undefined => inspection.list({ limit: 1 })[0]
  await eventually(() => newest() !== undefined && newest()?.state !== 'open', 'the request is not over')
  const found = newest()
  if (!found) throw new Error('there is none')
  return found
}

/** All of it. */
export async function lastExchange(inspection: Inspection): Promise<InspectedExchange> {
  return await inspection.show((await last(inspection)).id)
}

/** The values of a header, as they are shown. */
export function values(message: InspectedExchange['request'] | undefined, wanted: string): string[] {
  return (message?.headers ?? []).filter(({ name }) => name.toLowerCase() === wanted).map(({ value }) => value)
}

export interface Told {
  readonly method?: string
  readonly url?: string
  readonly host?: string
  readonly headers?: readonly string[]
  readonly body?: string | Buffer | readonly Buffer[]
}

/** What a recorder has made of a request that was told to it. */
export function tell(recorder: Recorder, told: Told = {}): { readonly recording: Recording; readonly end: () => void } {
  const { method = 'GET', url = '/', host = 'a.test', headers = [], body } = told
  const request = new IncomingMessage(new Socket())
  const chunks = body === undefined ? [] : typeof body === 'string' ? [Buffer.from(body)] : [body].flat()
  const length = chunks.length === 0 ? [] : ['Content-Length', String(Buffer.concat(chunks).length)]
  request.method = method
  request.url = url
  request.rawHeaders = ['Host', host, ...headers, ...length]
  for (const [i, name] of request.rawHeaders.entries()) {
    if (i % 2 === 0) request.headers[name.toLowerCase()] = request.rawHeaders[i + 1]
  }
  const response = new ServerResponse(request)
  const target = { host, authority: host, path: url, query: '' }
  const open = async (): Promise<never> => {
    throw new Error('nothing is opened here')
  }
  const context = { signal: new AbortController().signal, name: '7', open }
  const site: WebSite = { domain: 'web', address: { host: '', path: '/', base: '/' }, context }
  const origin = { remote: '192.0.2.1:5', secure: true }
  const recording = recorder.begin({ site, target, origin, request, response }, true)
  if (!recording) throw new Error('it is not recorded')
  recording.letIn()
  if (chunks.length > 0) {
    recording.onBody(request)
    for (const chunk of chunks) request.emit('data', chunk)
    request.complete = true
    request.emit('end')
  }
  return { recording, end: () => response.emit('close') }
}
