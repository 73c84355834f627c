import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { type TestContext, test } from 'node:test'
import { freePort, sha256, writeRandomFile } from '../helpers/system/net.ts'
import { isRoot, requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { startTunnel } from '../helpers/system/symport.ts'

const REQUESTS = 200

/** An nginx of our own that serves the folder `www`: gives its port. */
async function startNginx(stage: Stage, nginx: string): Promise<number> {
  const port = await freePort()
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const config = `
${isRoot() ? `user ${userInfo().username};` : ''}
daemon off;
worker_processes 1;
pid ${stage.path('nginx.pid')};
events { worker_connections 1024; }
http {
  ${temporary.map((name) => `${name}_temp_path ${stage.path(name)};`).join('\n  ')}
  access_log off;
  server {
    listen 127.0.0.1:${port} backlog=511;
    root ${stage.path('www')};
  }
}
`
  writeFileSync(stage.path('nginx.conf'), config)
  const args = ['-c', stage.path('nginx.conf'), '-g', 'error_log stderr notice;']
  const child = await stage.start(nginx, args)
  await child.line((line) => (line.includes('start worker process ') ? line : undefined), '"start worker process"')
  return port
}

/** 200 files, each of other bytes and another size, from 1 byte to about 400 KiB. Gives their SHA-256. */
function writeSite(stage: Stage): string[] {
  mkdirSync(stage.path('www'))
  return Array.from({ length: REQUESTS }, (_, i) => writeRandomFile(stage.path('www', String(i)), 1 + i * 2_053))
}

async function fetchAll(t: TestContext, flag: 'listener' | 'peer_listener'): Promise<void> {
  const programs = requirePrograms(t, ['nginx', 'curl'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const expected = writeSite(stage)
  const port = await startNginx(stage, programs.nginx)
  const { address } = await startTunnel(stage, flag, `tcp://127.0.0.1:${port}`)

  mkdirSync(stage.path('got'))
  const each = expected.map((_, i) => `url = "http://${address.host}:${address.port}/${i}"\noutput = "got/${i}"\n`)
  writeFileSync(stage.path('requests'), each.join(''))
  const parallel = ['--parallel', '--parallel-immediate', '--parallel-max', String(REQUESTS)]
  const args = ['-q', '--silent', '--show-error', '--fail', '--max-time', '60', ...parallel, '--config', 'requests']
  await stage.must(programs.curl, [...args, '--noproxy', '*'], { cwd: stage.folder })
  for (const [i, hash] of expected.entries()) {
    assert.equal(await sha256(stage.path('got', String(i))), hash, `the body of request ${i}`)
  }
}

test("curl's 200 parallel requests reach nginx behind the node", { timeout: 120_000 }, async (t) => {
  await fetchAll(t, 'listener')
})

test("curl's 200 parallel requests on the node reach nginx behind the server", { timeout: 120_000 }, async (t) => {
  await fetchAll(t, 'peer_listener')
})
