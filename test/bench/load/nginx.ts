import { mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Processes } from '../processes.ts'
import { requireProgram } from '../programs.ts'
import { freePort, type Target } from './sockets.ts'

/** An nginx with one worker, no log, and one small answer (in nginx's own quoting). */
export async function startNginx(processes: Processes, answer: string): Promise<Target> {
  const folder = processes.folder()
  const port = await freePort()
  mkdirSync(join(folder, 'tmp'))
  writeFileSync(join(folder, 'nginx.conf'), nginxConfig(port, answer))
  const args = ['-p', folder, '-e', 'stderr', '-c', join(folder, 'nginx.conf')]
  const nginx = processes.start(requireProgram('nginx'), args, 'nginx')
  // nginx says nothing when it is ready.
  for (let tries = 0; !(await answers(port)); tries++) {
    if (nginx.ended || tries === 100) throw new Error(`nginx did not start: ${nginx.lastWords}`)
    await sleep(50)
  }
  return { port, [Symbol.asyncDispose]: () => nginx.stop() }
}

function nginxConfig(port: number, answer: string): string {
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
  server {
    listen 127.0.0.1:${port} backlog=1024;
    location / { default_type text/plain; return 200 "${answer}"; }
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
