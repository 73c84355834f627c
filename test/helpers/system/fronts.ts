import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { Identity } from '../transports/authority.ts'
import { type Child, cleanEnvironment } from './child.ts'
import { freePort } from './net.ts'
import { isRoot } from './programs.ts'
import type { Stage } from './stage.ts'
import { ROOT } from './symport.ts'

/** A reverse proxy on 127.0.0.1, with the configuration that doc/proxies/ has. */
export interface Front {
  /** Its port without TLS. */
  readonly plain: number
  /** And with it, if it ends TLS. */
  readonly secure: number | undefined
  /** Has it read its configuration again. */
  reload(): Promise<void>
  /** Stops it, and with it what goes through it, and starts another one. */
  restart(): Promise<void>
}

export interface FrontOptions {
  readonly program: string
  /** The server behind it: its port, or where its Unix socket is. */
  readonly server: number | string
  /** What it takes for a connection that nobody uses. */
  readonly idle: string
}

/** What a documented configuration needs to run here: each text to replace has to be in it. */
function documented(file: string, replaced: Readonly<Record<string, string>>): string {
  let text = readFileSync(`${ROOT}doc/proxies/${file}`, 'utf8')
  for (const [from, to] of Object.entries(replaced)) {
    if (!text.includes(from)) throw new Error(`doc/proxies/${file} has no ${JSON.stringify(from)}`)
    text = text.replaceAll(from, to)
  }
  return text
}

export interface Certificates {
  readonly ca: Identity
  readonly own: Identity
}

/** A CA, and a certificate of it for this machine. They take a while: several tests may share them. */
export async function makeCertificates(): Promise<Certificates> {
  const ca = await Identity.make('the CA', { ca: true, names: [] })
  return { ca, own: await ca.issue('this machine', { names: ['127.0.0.1', '0.0.0.0', 'localhost'] }) }
}

/** `ca.pem`, `cert.pem`, `key.pem`, and the latter two in `both.pem`. */
export function writeCertificates(stage: Stage, { ca, own: { cert, key } }: Certificates): void {
  writeFileSync(stage.path('ca.pem'), ca.cert)
  writeFileSync(stage.path('cert.pem'), cert + ca.cert)
  writeFileSync(stage.path('key.pem'), key, { mode: 0o600 })
  writeFileSync(stage.path('both.pem'), cert + ca.cert + key, { mode: 0o600 })
}

function sees(child: Child, text: string, from = 0): Promise<true> {
  return child.line((line) => (line.includes(text) ? true : undefined), JSON.stringify(text), from)
}

/** Starts a program; `reload` has it read its configuration again, `ready` is what it prints then and at first. */
async function front(
  ports: Pick<Front, 'plain' | 'secure'>,
  run: { start(): Promise<Child>; reload(child: Child): unknown; readonly ready: string; readonly reloaded?: string },
): Promise<Front> {
  const startOne = async (): Promise<Child> => {
    const child = await run.start()
    await sees(child, run.ready)
    return child
  }
  let child = await startOne()
  return {
    ...ports,
    async reload() {
      const from = child.lines.length
      await run.reload(child)
      await sees(child, run.reloaded ?? run.ready, from)
    },
    async restart() {
      await child.stop()
      child = await startOne()
    },
  }
}

/** nginx.conf. Needs `writeCertificates`. */
export async function startNginxFront(stage: Stage, { program, server, idle }: FrontOptions): Promise<Front> {
  const [plain, secure] = [await freePort(), await freePort()]
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const text = documented('nginx.conf', {
    'http {': `http {\n${temporary.map((name) => `${name}_temp_path ${stage.path(name)};`).join('\n')}\naccess_log off;`,
    'listen 80;': `listen 127.0.0.1:${plain};`,
    'listen 443 ssl;': `listen 127.0.0.1:${secure} ssl;`,
    '/etc/ssl/tunnel.example.com/fullchain.pem': stage.path('cert.pem'),
    '/etc/ssl/tunnel.example.com/privkey.pem': stage.path('key.pem'),
    '127.0.0.1:3699;': typeof server === 'string' ? `unix:${server}:;` : `127.0.0.1:${server};`,
    'timeout 5m;': `timeout ${idle};`,
  })
  writeFileSync(stage.path('front.conf'), text)
  const user = isRoot() ? 'user root;' : ''
  const more = `daemon off; worker_processes 1; pid ${stage.path('front.pid')}; error_log stderr notice; ${user}`
  return await front(
    { plain, secure },
    {
      start: () => stage.start(program, ['-c', stage.path('front.conf'), '-g', more]),
      reload: (child) => child.signal('SIGHUP'),
      ready: 'start worker process ',
    },
  )
}

/** Caddyfile. Needs `writeCertificates`; it has no time for connections that nobody uses. */
export async function startCaddyFront(stage: Stage, { program, server }: Omit<FrontOptions, 'idle'>): Promise<Front> {
  const [plain, secure, admin] = [await freePort(), await freePort(), await freePort()]
  const site = (address: string): string =>
    documented('Caddyfile', {
      'tunnel.example.com {': `${address} {\n\tbind 127.0.0.1`,
      'reverse_proxy 127.0.0.1:3699': `reverse_proxy 127.0.0.1:${server}`,
    })
  const tls = `\ttls ${stage.path('cert.pem')} ${stage.path('key.pem')}`
  const sites = [site(`http://localhost:${plain}`), site(`https://localhost:${secure}`).replace('\tbind', `${tls}\n$&`)]
  const file = stage.path('Caddyfile')
  writeFileSync(file, `{\n\tadmin 127.0.0.1:${admin}\n\tauto_https disable_redirects\n}\n${sites.join('')}`)
  const env = cleanEnvironment({ HOME: stage.folder, XDG_DATA_HOME: stage.folder, XDG_CONFIG_HOME: stage.folder })
  const where = ['--config', file, '--adapter', 'caddyfile']
  return await front(
    { plain, secure },
    {
      start: () => stage.start(program, ['run', ...where], { env, cwd: stage.folder }),
      reload: () => stage.must(program, ['reload', '--force', '--address', `127.0.0.1:${admin}`, ...where], { env }),
      ready: 'serving initial configuration',
      reloaded: 'load complete',
    },
  )
}

/** haproxy-http.cfg, which needs `writeCertificates`, or haproxy-tcp.cfg. */
export async function startHaproxyFront(
  stage: Stage,
  mode: 'http' | 'tcp',
  { program, server, idle }: FrontOptions,
): Promise<Front> {
  const [plain, secure] = [await freePort(), mode === 'http' ? await freePort() : undefined]
  const text = documented(`haproxy-${mode}.cfg`, {
    'symport 127.0.0.1:3699': `symport 127.0.0.1:${server}`,
    ...(mode === 'tcp'
      ? {
          'bind :8925': `bind 127.0.0.1:${plain}`,
          'timeout client 5m': `timeout client ${idle}`,
          'timeout server 5m': `timeout server ${idle}`,
        }
      : {
          'bind :80': `bind 127.0.0.1:${plain}`,
          'bind :443 ssl crt /etc/haproxy/tunnel.example.com.pem': `bind 127.0.0.1:${secure} ssl crt ${stage.path('both.pem')}`,
          'timeout tunnel 5m': `timeout tunnel ${idle}`,
        }),
  })
  writeFileSync(stage.path(`haproxy-${mode}.cfg`), text)
  return await front(
    { plain, secure },
    {
      start: () => stage.start(program, ['-W', '-db', '-f', stage.path(`haproxy-${mode}.cfg`)]),
      reload: (child) => child.signal('SIGUSR2'),
      ready: 'Loading success',
    },
  )
}

/** The address from which `startStreet` connects: not one that a server under test trusts. */
export const CLIENT = '127.0.0.2'
/** What nobody who comes from there is called. */
export const SPOOFED = '203.0.113.9'

/**
 * Carries connections to a port from the address CLIENT. With `lies`, the HTTP request that begins each of them says that
 * it comes from SPOOFED by https, in every way that there is. Gives its own port.
 */
export async function startStreet(stage: Stage, to: number, lies = false): Promise<number> {
  const headers = ['X-Forwarded-For', 'Tiny-Real-IP', 'X-Real-IP'].map((name) => `${name}: ${SPOOFED}`)
  const all = [...headers, `Forwarded: for=${SPOOFED};proto=https`, 'X-Forwarded-Proto: https']
  const sockets = new Set<Socket>()
  const server = createServer((near) => {
    const far = connect({ host: '127.0.0.1', port: to, localAddress: CLIENT, noDelay: true })
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one)
      one.on('error', () => {})
      one.on('close', () => {
        sockets.delete(one)
        other.destroy()
      })
    }
    far.pipe(near)
    if (!lies) near.pipe(far)
    else {
      near.once('data', (first) => {
        far.write(first.toString('latin1').replace('\r\n', `\r\n${all.join('\r\n')}\r\n`), 'latin1')
        near.pipe(far)
      })
    }
  })
  stage.defer(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}
