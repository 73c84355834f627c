import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { userInfo } from 'node:os'
import { pipeline } from 'node:stream'
import { WebSocketServer } from 'ws'
import type { Page } from './browser.ts'
import { freePort } from './net.ts'
import { isRoot } from './programs.ts'
import type { Stage } from './stage.ts'

/** What `/echo...` answers about a request. */
export interface Request {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly bytes: number
  readonly sha256: string
}

/**
 * All of it is relative, since it may lie below a path. Each event is asked for by the one before it, so that a stream
 * that is kept back anywhere goes no further than its first.
 */
const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>A site</title>
<link rel="icon" href="data:,">
<p id="text">not yet</p>
<script src="script.js"></script>
`
const SCRIPT = `
window.got = {}
const socket = new WebSocket(new URL('socket', location.href).href.replace(/^http/, 'ws'))
socket.onopen = () => socket.send('hello \\u00e9')
socket.onmessage = ({ data }) => { got.socket = data; socket.close(1000) }
socket.onclose = ({ code }) => { got.closed = code }
const events = new EventSource('events')
events.onmessage = ({ data }) => {
  got.events = Number(data)
  if (got.events === 5) events.close()
  else fetch('next', { method: 'POST' })
}
fetch('echo', { method: 'POST', body: 'x'.repeat(300000) })
  .then((answer) => answer.json())
  .then((json) => { got.bytes = json.bytes; document.getElementById('text').textContent = 'loaded' })
`

export interface Site {
  readonly port: number
  /** How many connections it has taken. */
  readonly connections: number
}

/** A web server inside the test process: a page for `browse`, and what curl asks for. */
export async function startSite(stage: Stage): Promise<Site> {
  let connections = 0
  let next: (() => void) | undefined
  const server = createServer((request, response) => {
    response.on('error', () => {})
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost')
    if (pathname.endsWith('/script.js')) send(response, 'text/javascript', SCRIPT)
    else if (pathname.endsWith('/bytes')) pour(response, Number(searchParams.get('count')))
    else if (pathname.endsWith('/back')) pipeline(request, response, () => {})
    else if (pathname.endsWith('/next')) {
      next?.()
      response.end()
    } else if (pathname.endsWith('/events')) {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' })
      let count = 0
      next = () => void response.write(`data: ${++count}\n\n`)
      next()
    } else if (pathname.includes('/echo') || pathname.includes('/greet')) {
      void describe(request).then((described) => send(response, 'application/json', JSON.stringify(described)))
    } else send(response, 'text/html', PAGE)
  })
  server.on('connection', () => connections++)
  const sockets = new WebSocketServer({ server })
  sockets.on('connection', (socket) => {
    socket.on('error', () => {})
    socket.on('message', (data) => socket.send(String(data)))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stage.defer(() => {
    for (const socket of sockets.clients) socket.terminate()
    server.closeAllConnections()
    server.close()
  })
  return {
    port: (server.address() as AddressInfo).port,
    get connections() {
      return connections
    },
  }
}

function send(response: ServerResponse, type: string, text: string): void {
  response.setHeader('Content-Type', type)
  response.end(text)
}

/** As many bytes as fast as they are taken. */
function pour(response: ServerResponse, count: number): void {
  const chunk = Buffer.alloc(65_536, 'bytes of the site')
  response.setHeader('Content-Length', count)
  let left = count
  const fill = (): void => {
    while (left > 0) {
      const part = chunk.subarray(0, Math.min(left, chunk.length))
      left -= part.length
      if (!response.write(part)) return
    }
    response.end()
    response.off('drain', fill)
  }
  response.on('drain', fill)
  fill()
}

async function describe(request: IncomingMessage): Promise<Request> {
  const hash = createHash('sha256')
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    hash.update(chunk)
    bytes += chunk.length
  }
  const { method = '', url = '', headers } = request
  const flat = Object.entries(headers).map(([name, value]) => [name, String(value)])
  return { method, url, headers: Object.fromEntries(flat), bytes, sha256: hash.digest('hex') }
}

/** Waits until the site's page has a script, an upload, a WebSocket and a stream of events behind it. */
export async function browse(page: Page): Promise<void> {
  const all = `got.socket === 'hello \\u00e9' && got.closed === 1000 && got.events === 5 && got.bytes === 300000`
  try {
    await page.until(`typeof got === 'object' && ${all}`, 'all that the page asks for')
  } catch (cause) {
    const got = await page.evaluate('typeof got === "object" && JSON.stringify(got)')
    throw new Error(`the page has got no more than ${String(got)}`, { cause })
  }
}

/** nginx with TLS; needs `writeCertificates`. It answers with the path and the host that it was asked for. Gives its port. */
export async function startSecureSite(stage: Stage, nginx: string): Promise<number> {
  const port = await freePort()
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const config = `
${isRoot() ? `user ${userInfo().username};` : ''}
daemon off;
worker_processes 1;
pid ${stage.path('secure.pid')};
events { worker_connections 1024; }
http {
  ${temporary.map((name) => `${name}_temp_path ${stage.path(name)};`).join('\n  ')}
  access_log off;
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate ${stage.path('cert.pem')};
    ssl_certificate_key ${stage.path('key.pem')};
    location / { return 200 "$request_method $request_uri of $host behind TLS"; }
  }
}
`
  writeFileSync(stage.path('secure.conf'), config)
  const child = await stage.start(nginx, ['-c', stage.path('secure.conf'), '-g', 'error_log stderr notice;'])
  await child.line((line) => (line.includes('start worker process ') ? line : undefined), '"start worker process"')
  return port
}
