import { type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse, STATUS_CODES } from 'node:http'
import { ProxyError } from '../core/index.ts'

/** What is said to a visitor who cannot be served. Nothing of what lies behind the web port, or came with the request. */
const PAGES: Readonly<Record<PageStatus, Page>> = {
  400: ['Bad request', 'The request cannot be understood in one way only, and was not passed on.'],
  401: ['Unauthorized', 'A name and a password are needed here.'],
  403: ['Forbidden', 'What is published here is not for your address.'],
  404: ['Not found', 'Nothing is published under this name or path.'],
  408: ['Request timeout', 'The request did not come in completely.'],
  426: ['WebSocket only', 'Here is a WebSocket that carries a stream of bytes: connect with a client for it.'],
  429: ['Too many requests', 'There were too many tries from your address. Try again later.'],
  502: ['Bad gateway', 'What is published here could not be reached, or broke off without an answer.'],
  503: [
    'Service unavailable',
    'What is published here is not connected at the moment, or has too much to do. Try again.',
  ],
  504: ['Gateway timeout', 'What is published here has not answered in time.'],
}

const MAINTENANCE: Page = [
  'Maintenance',
  'What is published here is being worked on, and will be back. Try again later.',
]
/** In s. */
const MAINTENANCE_RETRY = '120'

type Page = readonly [title: string, text: string]

export type PageStatus = 400 | 401 | 403 | 404 | 408 | 426 | 429 | 502 | 503 | 504

/** A page for browsers, a line for others. */
export function sendPage(
  request: IncomingMessage,
  response: ServerResponse,
  status: PageStatus,
  headers: OutgoingHttpHeaders = {},
  page: Page = PAGES[status],
): void {
  const [title, text] = page
  const html = /\btext\/html\b/i.test(request.headers.accept ?? '')
  const body = html
    ? `<!doctype html><html lang="en"><meta charset="utf-8"><title>${status} ${title}</title>` +
      '<style>body{font:1.1em/1.5 system-ui,sans-serif;max-width:32em;margin:15vh auto;padding:0 1em}</style>' +
      `<h1>${status} ${title}</h1><p>${text}</p></html>\n`
    : `${status} ${title}: ${text}\n`
  send(request, response, status, body, html, headers)
}

/** What the operator has visitors see instead of the target: a page of theirs, or one of our own. */
export function sendMaintenance(request: IncomingMessage, response: ServerResponse, page: string | true): void {
  const headers = { 'retry-after': MAINTENANCE_RETRY }
  if (page === true) sendPage(request, response, 503, headers, MAINTENANCE)
  else send(request, response, 503, page, /^\s*</.test(page), headers)
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  status: PageStatus,
  body: string,
  html: boolean,
  headers: OutgoingHttpHeaders,
): void {
  // A reason that another try has left behind would be sent.
  response.writeHead(status, STATUS_CODES[status] ?? '', {
    'content-type': html ? 'text/html; charset=utf-8' : 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(status === 429 ? { 'retry-after': '1' } : {}),
    ...headers,
    ...(status === 426 ? { upgrade: 'websocket', connection: 'upgrade, close' } : {}),
    // What still comes of the request is not waited for.
    ...(request.complete || status === 426 ? {} : { connection: 'close' }),
  })
  response.end(body)
}

/** What a visitor is told where a sub-connection has ended for this reason. */
export function statusFor(error: unknown): PageStatus {
  if (!(error instanceof ProxyError)) return 502
  switch (error.code) {
    case 'PROXY_ERR_VISITOR_DENIED':
      return 403
    case 'PROXY_ERR_RATE':
      return 429
    case 'PROXY_ERR_QUOTA':
    case 'PROXY_ERR_TOO_MANY_CONNECTIONS':
    case 'PROXY_ERR_NO_PEER':
    case 'PROXY_ERR_DRAINING':
    case 'PROXY_ERR_CLOSED':
    case 'PROXY_ERR_TOO_MANY_OPENS':
    case 'PROXY_ERR_TOO_MANY_SUB_CONNECTIONS':
      return 503
    case 'PROXY_ERR_OPEN_TIMEOUT':
      return 504
    default:
      return 502
  }
}

/** The same for whoever is at a WebSocket. */
export function reasonFor(error: unknown): string {
  const status = statusFor(error)
  if (error instanceof ProxyError && error.code === 'PROXY_ERR_NO_PEER') return 'no node is connected'
  if (status === 503) return 'it cannot be had at the moment'
  if (status === 504) return 'no answer in time'
  const refused = error instanceof ProxyError && error.code.startsWith('PROXY_ERR_DIAL_')
  return refused ? 'the target cannot be reached' : 'the connection to the target was lost'
}
