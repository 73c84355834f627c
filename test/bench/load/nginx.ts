import { mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Processes } from '../processes.ts'
import { requireProgram } from '../programs.ts'
import { freePort, type Target } from './sockets.ts'

/** An nginx with one worker, no log, and one small answer (in nginx's own quoting). */
export function startNginx(processes: Processes, answer: string): Promise<Target> {
  return start(processes, (port) => [`listen 127.0.0.1:${port} backlog=1024;`, answering(answer)])
}

/** The same as a reverse proxy that ends TLS, with connections to the target that are kept. */
export async function startNginxProxy(
  processes: Processes,
  { cert, key }: { readonly cert: string; readonly key: string },
  target: number,
): Promise<Target> {
  const folder = processes.folder()
  const [certFile, keyFile] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  writeFileSync(certFile, cert)
  writeFileSync(keyFile, key, { mode: 0o600 })
  return await start(
    processes,
    (port) => [
      `listen 127.0.0.1:${port} ssl backlog=1024;`,
      `ssl_certificate ${certFile};`,
      `ssl_certificate_key ${keyFile};`,
      'location / { proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection ""; }',
    ],
    `upstream target { server 127.0.0.1:${target}; keepalive 64; keepalive_requests 1000000000; }`,
  )
}

function answering(answer: string): string {
  return `location / { default_type text/plain; return 200 "${answer}"; }`
}

async function start(
  processes: Processes,
  serverLines: (port: number) => readonly string[],
  upstream = '',
): Promise<Target> {
  const folder = processes.folder()
  const port = await freePort()
  mkdirSync(join(folder, 'tmp'))
  writeFileSync(join(folder, 'nginx.conf'), nginxConfig(serverLines(port), upstream))
  const args = ['-p', folder, '-e', 'stderr', '-c', join(folder, 'nginx.conf')]
  const nginx = processes.start(requireProgram('nginx'), args, 'nginx')
  // nginx says nothing when it is ready.
  for (let tries = 0; !(await answers(port)); tries++) {
    if (nginx.ended || tries === 100) throw new Error(`nginx did not start: ${nginx.lastWords}`)
    await sleep(50)
  }
  return { port, [Symbol.asyncDispose]: () => nginx.stop() }
}

function nginxConfig(lines: readonly string[], upstream: string): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path tmp/${name};`)
  return `daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
  access_log off;
  ${temporary.join('\n  ')}
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  ${upstream}
  server {
    ${lines.join('\n    ')}
  }
}
`
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}
