import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { userInfo } from 'node:os'
import { type TestContext, test } from 'node:test'
import { SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import type { Child } from '../helpers/system/child.ts'
import { answers, eventually, freePort } from '../helpers/system/net.ts'
import { isRoot, requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import {
  listenerAddress,
  parseAddress,
  spec,
  startServer as startAnyServer,
  startNode,
} from '../helpers/system/symport.ts'

/** What targets that want a PROXY header make of ours. */

interface Target {
  readonly port: number
  readonly child: Child
}

/** nginx that answers with whom it takes the visitor for, and for what it takes the connection. */
async function startNginx(stage: Stage, nginx: string): Promise<Target & { readonly path: string }> {
  const port = await freePort()
  const path = stage.path('nginx.sock')
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  writeFileSync(
    stage.path('nginx.conf'),
    `
${isRoot() ? `user ${userInfo().username};` : ''}
daemon off;
worker_processes 1;
pid ${stage.path('nginx.pid')};
events { worker_connections 64; }
http {
  ${temporary.map((name) => `${name}_temp_path ${stage.path(name)};`).join('\n  ')}
  access_log off;
  server {
    listen 127.0.0.1:${port} proxy_protocol;
    listen [::1]:${port} proxy_protocol;
    listen unix:${path} proxy_protocol;
    return 200 "$proxy_protocol_addr $proxy_protocol_port to $proxy_protocol_server_addr $proxy_protocol_server_port\\n";
  }
}
`,
  )
  const child = await stage.start(nginx, ['-c', stage.path('nginx.conf'), '-g', 'error_log stderr notice;'])
  await child.line((line) => (line.includes('start worker process ') ? line : undefined), '"start worker process"')
  return { port, path, child }
}

/** haproxy that logs whom each connection is from. */
async function startHaproxy(stage: Stage, haproxy: string): Promise<Target> {
  const port = await freePort()
  writeFileSync(
    stage.path('haproxy.cfg'),
    `
global
  log stdout format raw local0
defaults
  mode http
  log global
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend in
  bind 127.0.0.1:${port} accept-proxy
  log-format "from %ci %cp to %fi %fp"
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port]"
`,
  )
  const child = await stage.start(haproxy, ['-f', stage.path('haproxy.cfg'), '-db'])
  await eventually(async () => assert.ok(await answers(port)))
  return { port, child }
}

/** Asks over HTTP/1.0 from a port that is known: what comes back, and that port. */
async function ask(port: number, host = '127.0.0.1'): Promise<{ readonly body: string; readonly from: number }> {
  const socket = connect(port, host)
  await once(socket, 'connect')
  const from = socket.localPort ?? 0
  socket.write('GET / HTTP/1.0\r\n\r\n')
  const got = Buffer.concat(await socket.toArray()).toString()
  return { body: got.slice(got.indexOf('\r\n\r\n') + 4).trim(), from }
}

async function programs(t: TestContext): Promise<{ stage: Stage; nginx: string; haproxy: string } | undefined> {
  const found = requirePrograms(t, ['nginx', 'haproxy'])
  return found && { stage: new Stage(t), ...found }
}

test("nginx and haproxy are told the visitor's address, in versions 1 and 2", { timeout: 60_000 }, async (t) => {
  const found = await programs(t)
  if (!found) return
  const { stage, nginx, haproxy } = found
  const [web, front] = [await startNginx(stage, nginx), await startHaproxy(stage, haproxy)]
  const forwards = [
    `tcp://127.0.0.1:${web.port}?proxy=v2`,
    `tcp://127.0.0.1:${web.port}?proxy=v1`,
    `tcp://[::1]:${web.port}?proxy=v2`,
    `unix://${web.path}?proxy=v2`,
    `tcp://127.0.0.1:${front.port}?proxy=v2`,
    `tcp://127.0.0.1:${front.port}?proxy=v1`,
  ]
  const listeners = forwards.map((forward) => `--listener=${spec('tcp://127.0.0.1:0', forward)}`)
  const server = await startAnyServer(stage, listeners)
  const allow = [`--allow=127.0.0.1:${web.port}`, `--allow=127.0.0.1:${front.port}`]
  const rest = [`--allow=[::1]:${web.port}`, `--allow=unix:${web.path}`]
  await startNode(stage, server.address, [...allow, ...rest])
  const ports: number[] = []
  for (const [i] of forwards.entries()) ports.push(parseAddress(await listenerAddress(server.child, i)).port)
  const mapped = '::ffff:127.0.0.1'
  for (const [i, expected] of [
    (from: number) => `127.0.0.1 ${from} to 127.0.0.1 ${web.port}`,
    (from: number) => `127.0.0.1 ${from} to 127.0.0.1 ${web.port}`,
    (from: number) => `${mapped} ${from} to ::1 ${web.port}`,
    (from: number) => `127.0.0.1 ${from} to 0.0.0.0`,
    (from: number) => `127.0.0.1 ${from}`,
    (from: number) => `127.0.0.1 ${from}`,
  ].entries()) {
    const { body, from } = await ask(ports[i] ?? 0)
    assert.equal(body, expected(from), forwards[i])
  }
  const logged = await front.child.line((line) => /^from (.*)$/.exec(line)?.[1], 'a line of the log')
  assert.match(logged, new RegExp(`^127\\.0\\.0\\.1 \\d+ to 127\\.0\\.0\\.1 ${front.port}$`))
})

test('symport tcp --proxy-protocol: the node tells it to its own target', { timeout: 60_000 }, async (t) => {
  const found = await programs(t)
  if (!found) return
  const { stage, nginx } = found
  const web = await startNginx(stage, nginx)
  const port = await freePort()
  const { at } = await startServer(stage, ['--allow-ports', String(port)])
  const where = [
    '--server',
    `tcp://${at.host}:${at.port}`,
    '--remote-port',
    String(port),
    '--state',
    stage.path('node'),
  ]
  const env = { SYMPORT_UUID: SECRET }
  const child = await start(stage, ['tcp', String(web.port), '--proxy-protocol', 'v2', ...where], { env })
  await child.line((line) => (line.includes(' -> ') ? line : undefined), 'the URL')
  const { body, from } = await ask(port)
  assert.equal(body, `127.0.0.1 ${from} to 127.0.0.1 ${web.port}`)
  const refused = await start(stage, ['tcp', '22', '--proxy-protocol', 'v3', ...where], { env })
  assert.equal((await refused.exited).status, 2)
})
