import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { test } from 'node:test'
import { cleanEnvironment } from '../helpers/system/child.ts'
import { makeUser, sesmanPort, signedIn, startDesktop } from '../helpers/system/desktop.ts'
import { answers, eventually, freePort } from '../helpers/system/net.ts'
import { cannotRun, isRoot, requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, startTunnel } from '../helpers/system/symport.ts'

const PROGRAMS = ['xrdp', 'xrdp-sesman', 'Xorg (xorgxrdp)', 'xfreerdp', 'Xvfb', 'useradd', 'ps'] as const

/** An X server without a screen, which xfreerdp wants even when it only signs in. Gives its name. */
async function startDisplay(stage: Stage, xvfb: string): Promise<string> {
  const args = ['-displayfd', '3', '-screen', '0', '1024x768x24', '-nolisten', 'tcp']
  const child = await stage.start(xvfb, args, { third: true })
  return `:${await child.line((line) => /^(\d+)$/.exec(line)?.[1], 'its display')}`
}

test('xfreerdp signs in to a real xrdp through the tunnel', { timeout: 180_000 }, async (t) => {
  const programs = requirePrograms(t, PROGRAMS)
  if (programs === undefined) return
  if (!isRoot() && cannotRun(t, 'only root can make the user who signs in')) return
  const manager = sesmanPort()
  const taken = (await answers(manager)) || (await answers(manager, '::1'))
  if (taken && cannotRun(t, `another xrdp-sesman has port ${manager}, and xrdp knows no other: stop it first`)) return

  const stage = new Stage(t)
  const user = await makeUser(stage, programs.useradd)
  const desktop = await startDesktop(stage, programs)
  const display = await startDisplay(stage, programs.Xvfb)
  // As in the seed's Windows example: a port of the server's leads to port 3389 of the node's machine.
  const { address, node } = await startTunnel(stage, 'listener', `tcp://127.0.0.1:${desktop.port}`)

  const home = stage.path('client-home')
  mkdirSync(home)
  const env = cleanEnvironment({ DISPLAY: display, HOME: home, XDG_CONFIG_HOME: home })
  const client = (at: Address, password: string): string[] => {
    return [
      `/v:${at.host}:${at.port}`,
      `/u:${user.name}`,
      `/p:${password}`,
      '/sec:tls',
      '/cert:ignore',
      '/timeout:20000',
    ]
  }
  const signIn = async (at: Address, password: string): Promise<number | null> => {
    const { status } = await stage.run(programs.xfreerdp, [...client(at, password), '+auth-only'], { env })
    return status
  }

  // xrdp asks the session manager only after the RDP handshake that +auth-only waits for, so xfreerdp ends with 0 for a
  // wrong password, too: what the session manager then does is the proof.
  await t.test('+auth-only with a wrong password is turned away by the session manager', async () => {
    const from = desktop.sessions.lines.length
    await signIn(address, 'wrong')
    const refusal = `AUTHFAIL: user=${user.name}`
    await desktop.sessions.line((line) => (line.includes(refusal) ? line : undefined), `"${refusal}"`, from)
    assert.equal(signedIn(user), undefined)
  })

  await t.test('+auth-only with the right password is let in', async () => {
    assert.equal(await signIn(address, user.password), 0)
    await eventually(async () => assert.equal(signedIn(user), user.name))
  })

  await t.test('a whole session reaches the desktop and stays there', async () => {
    const from = desktop.log.lines.length
    const session = await stage.start(programs.xfreerdp, client(address, user.password), { env })
    for (const text of [`login successful for user ${user.name}`, 'connected ok']) {
      await desktop.log.line((line) => (line.includes(text) ? line : undefined), `"${text}"`, from)
    }
    assert.ok(session.running, session.tail())
    await session.stop()
  })

  await t.test('+auth-only fails where nothing listens, and where the node is gone', async () => {
    assert.notEqual(await signIn({ host: '127.0.0.1', port: await freePort() }, user.password), 0)
    await node.stop()
    assert.notEqual(await signIn(address, user.password), 0)
  })
})
