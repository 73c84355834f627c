import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { start } from '../helpers/e2e/cli.ts'
import { Browser } from '../helpers/system/browser.ts'
import type { Child } from '../helpers/system/child.ts'
import { Curl } from '../helpers/system/curl.ts'
import { freePort } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { listenersReady } from '../helpers/system/publish.ts'
import { startSite } from '../helpers/system/site.ts'
import { clientOptions, startSshd } from '../helpers/system/sshd.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, logged } from '../helpers/system/symport.ts'
import { novncQuery, screenShown, serveNovnc, startScreen, useScreen } from '../helpers/system/vnc.ts'

/** Files as wsp's users have them, with other ports, and real programs. */

const AUTH = 'the auth of the wsp files 7c1e40'

/** `symport COMMAND -c FILE`, on a machine of its own, with wsp's names for the files. */
async function startFrom(stage: Stage, command: 'server' | 'node', machine: string, json: object): Promise<Child> {
  const home = stage.path(machine)
  mkdirSync(home)
  const file = `${home}/${command === 'server' ? 'wsps' : 'wspc'}.json`
  writeFileSync(file, JSON.stringify(json, undefined, 2))
  const { output } = await stage.run(process.execPath, [CLI, 'check', file])
  assert.match(output, new RegExp(`: ok, a file of wsp, for a ${command}$`, 'm'))
  return await start(stage, [command, '-c', file], { env: { HOME: home, XDG_STATE_HOME: home } })
}

test("the wsp seed's files run as they are: curl, ssh, and noVNC in a browser", { timeout: 180_000 }, async (t) => {
  const names = ['chromium', 'curl', 'noVNC', 'ssh', 'ssh-keygen', 'sshd', 'xev', 'Xtigervnc'] as const
  const programs = requirePrograms(t, names)
  if (programs === undefined) return
  const stage = new Stage(t)
  const curl = new Curl(stage, programs.curl)
  const site = await startSite(stage)
  const lan = await startSite(stage)
  const { port: ssh } = await startSshd(stage, programs.sshd, programs['ssh-keygen'])
  const screen = await startScreen(stage, programs)
  const pages = await serveNovnc(stage)
  const [port, http, socks, tunnel, local] = await Promise.all([1, 2, 3, 4, 5].map(() => freePort()))

  const server = await startFrom(stage, 'server', 'wsps', {
    log: { level: 'info', output: stage.path('wsps.log') },
    auth: AUTH,
    port,
    allow: [`127.0.0.1:${site.port}`],
  })
  const log = await stage.start('tail', ['-q', '-n', '+1', '-F', stage.path('wsps.log')])
  await logged(log, 'listening')
  const url = `ws://127.0.0.1:${port}`
  const far = await startFrom(stage, 'node', 'far', {
    client: [
      {
        server: url,
        auth: AUTH,
        remote: [
          `http://127.0.0.1:${site.port}?mode=path&value=api`,
          `http://127.0.0.1:${site.port}/api/?mode=path&value=api2`,
          `http://127.0.0.1:${site.port}?mode=domain&value=customwsp.com`,
          `http://127.0.0.1:${site.port}/api/?mode=domain&value=customapi.com`,
          `tcp://127.0.0.1:${screen.port}?mode=path&value=vnc`,
          `tcp://ssh:ssh@127.0.0.1:${ssh}`,
          'tunnel://work_tunnel:password@',
        ],
      },
    ],
    allow: [`127.0.0.1:${lan.port}`],
  })
  await listenersReady(far, 7)
  const near = await startFrom(stage, 'node', 'near', {
    client: [
      {
        Server: url,
        Auth: AUTH,
        Dynamic: [`http://:${http}`, `socks5://:${socks}`],
        Local: [`tcp://ssh:ssh@127.0.0.1:${local}`],
      },
      { server: url, auth: AUTH, dynamic: [`socks5://work_tunnel:password@127.0.0.1:${tunnel}`] },
    ],
  })
  await listenersReady(near, 4)

  await t.test('a socks5 and an http proxy, with the server as the exit', async () => {
    for (const proxy of [`socks5h://127.0.0.1:${socks}`, `http://127.0.0.1:${http}`]) {
      await curl.get('--proxy', proxy, `http://127.0.0.1:${site.port}/echo`)
      const { status } = await curl.run('--fail', '--proxy', proxy, `http://127.0.0.1:${lan.port}/echo`)
      assert.notEqual(status, 0, "the server's own loopback is not for its nodes, but for what is allowed")
    }
    assert.equal(lan.connections, 0)
  })

  await t.test('the four ways to publish a web server', async () => {
    const asked = async (...args: string[]): Promise<string> => JSON.parse(await curl.get(...args)).url
    const here = `http://127.0.0.1:${port}`
    assert.equal(await asked(`${here}/api/greet`), '/greet')
    assert.equal(await asked(`${here}/api2/greet`), '/api/greet')
    assert.equal(await asked('--header', `Host: customwsp.com:${port}`, `${here}/api/greet`), '/api/greet')
    assert.equal(await asked('--header', `Host: customapi.com:${port}`, `${here}/greet`), '/api/greet')
  })

  await t.test('noVNC', async () => {
    const browser = await Browser.start(stage, programs.chromium)
    const query = novncQuery({ host: '127.0.0.1', port: Number(port), path: 'vnc' })
    const page = await browser.open(`http://127.0.0.1:${pages}/vnc.html?${query}`)
    await screenShown(page)
    await useScreen(page, screen)
  })

  await t.test('ssh over a channel', async () => {
    const at = { host: '127.0.0.1', port: Number(local) }
    assert.equal(await stage.must(programs.ssh, [...clientOptions(stage, at), at.host, 'echo there']), 'there')
  })

  await t.test('the tunnel: a proxy where the far node is', async () => {
    await curl.get('--proxy', `socks5h://127.0.0.1:${tunnel}`, `http://127.0.0.1:${lan.port}/echo`)
  })

  const said = [...server.lines, ...far.lines, ...near.lines, readFileSync(stage.path('wsps.log'), 'utf8')].join('\n')
  assert.ok(!said.includes(AUTH), 'the secret is in no log')
})
