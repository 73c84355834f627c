import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { boundAt, connectNode, logLine, startNode, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { open, startEcho, visit } from '../helpers/e2e/talk.ts'
import type { Child } from '../helpers/system/child.ts'
import { eventually } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged } from '../helpers/system/symport.ts'

/** Each is to be found nowhere, but in the files of the state folder that are there to keep it. */
const SECRETS = {
  shared: 'qX7-shared-4kZ0wVb2/secret',
  enrolled: 'qX7-enrolled-9sDf3LmP/secret',
  channel: 'qX7-channel-Tt5Rr2Ee/pass',
  wrong: 'qX7-wrong-Uu8Ii1Oo/pass',
  tunnel: 'qX7-tunnel-Hh3Gg6Ff/pass',
  socks: 'qX7-socks-Bb4Nn7Mm/pass',
  proxy: 'qX7-proxy-Ww9Ss2Xx/pass',
  payload: 'qX7-payload-Cc6Vv3Bb/bytes',
} as const

const KEEPS: Readonly<Record<string, RegExp>> = {
  shared: /\/secret(-for-[^/]*)?$/,
  enrolled: /^$/,
  token: /\/admin-token$/,
}

/** Every way in which a text could be written by accident. */
function spellings(text: string): string[] {
  const bytes = Buffer.from(text)
  return [text, encodeURIComponent(text), bytes.toString('hex'), ...base64Of(bytes), JSON.stringify(text).slice(1, -1)]
}

/** Wherever in a longer text it stands, as in that of Basic authentication: without what depends on its neighbours. */
function base64Of(bytes: Buffer): string[] {
  return [0, 1, 2].flatMap((before) => {
    const text = Buffer.concat([Buffer.alloc(before), bytes])
      .toString('base64')
      .replace(/=+$/, '')
      .slice(4, -4)
    return [text, text.replaceAll('+', '-').replaceAll('/', '_')]
  })
}

function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile())
}

test('at trace, neither a secret nor a byte of what is carried stands in a log or where it should not be kept', async (t) => {
  const stage = new Stage(t)
  const target = await startEcho(stage)
  const { shared, channel, wrong, tunnel, socks, proxy, payload } = SECRETS
  const trace = (name: string): string[] => ['--log-level', 'trace', '--log-file', stage.path(`${name}.log`)]
  const written: Child[] = []
  const encoded = encodeURIComponent
  const state = stage.path('server')
  const log = (name: string): string =>
    existsSync(stage.path(`${name}.log`)) ? readFileSync(stage.path(`${name}.log`), 'utf8') : ''

  const added = await runHere(stage, ['nodes', 'add', 'enrolled', SECRETS.enrolled, '--state', state])
  assert.equal(added.status, 0, added.stderr)
  writeFileSync(stage.path('socks-password'), `${socks}\n`)
  writeFileSync(
    stage.path('server.toml'),
    `uuid = "${shared}"\nlistener = ["tcp://127.0.0.1:0,${target}", "tcp://127.0.0.1:0,tcp://127.0.0.1:1"]\nallow-names = ["*"]\nallow = ["*:*"]\n[log]\nlevel = "trace"\n`,
  )
  const { server, at } = await startServer(
    stage,
    ['--config', stage.path('server.toml'), '--admin', '127.0.0.1:0', '--allow-names', '*'],
    { secret: undefined },
  )
  written.push(server)
  const token = readFileSync(join(state, 'admin-token'), 'utf8').trim()
  const api = String((await logged(server, 'admin API ready')).address)
  for (const given of [token, wrong]) {
    await (await fetch(`http://${api}/api/v1/nodes`, { headers: { authorization: `Bearer ${given}` } })).text()
  }

  const offering = await connectNode(
    stage,
    at,
    [
      '--log-level',
      'trace',
      '-R',
      `tcp://ssh:${encoded(channel)}@${target.slice(6)}`,
      '-R',
      `tunnel://work:${encoded(tunnel)}@`,
    ],
    { secret: shared, state: 'offering' },
  )
  const joining = await connectNode(
    stage,
    at,
    [
      ...['--log-level', 'trace', '-L', `tcp://ssh:${encoded(channel)}@127.0.0.1:0`],
      ...['-L', `tcp://ssh:${encoded(wrong)}@127.0.0.1:0`],
      ...['-D', `http://work:${encoded(tunnel)}@127.0.0.1:0`],
      ...['-D', `127.0.0.1:0?user=somebody&password_file=${encoded(stage.path('socks-password'))}`],
    ],
    { secret: shared, state: 'joining' },
  )
  const enrolled = await connectNode(stage, at, ['--log-level', 'trace', '--id', 'enrolled'], {
    secret: SECRETS.enrolled,
    state: 'enrolled',
  })
  // Refused: it knows another secret. Lost: there is no proxy where it looks for one.
  const refused = await startNode(stage, at, ['--log-level', 'trace', '--id', 'refused'], {
    secret: wrong,
    state: 'refused',
  })
  const lost = await startNode(
    stage,
    at,
    [...trace('lost'), '--proxy', `http://somebody:${encoded(proxy)}@127.0.0.1:1`],
    { secret: shared, state: 'lost' },
  )
  written.push(offering, joining, enrolled, refused, lost)

  // What is mapped, and what leads nowhere.
  assert.equal(await visit(stage, await boundAt(server), payload), payload)
  await visit(stage, await boundAt(server, 1), payload)
  const listens = await Promise.all([0, 1, 2, 3].map((number) => boundAt(joining, number)))
  const tcp = listens.filter((text) => text.startsWith('tcp://'))
  const answers = await Promise.all(tcp.map((text) => visit(stage, text, payload)))
  assert.deepEqual(answers.sort(), ['', payload], 'one password is right')
  const proxies = listens
    .filter((text) => !text.startsWith('tcp://'))
    .map((text) => text.replace(/^\w+:\/\/|\?.*$/g, ''))
  assert.equal(proxies.length, 2)
  const credentials = Buffer.from(`somebody:${socks}`).toString('base64')
  for (const place of proxies) {
    for (const authorization of [
      `Basic ${credentials}`,
      `Basic ${Buffer.from(`somebody:${wrong}`).toString('base64')}`,
    ]) {
      const socket = await open(stage, `tcp://${place}`)
      const { host } = new URL(target.replace('tcp', 'http'))
      socket.write(`CONNECT ${host} HTTP/1.1\r\nHost: ${host}\r\nProxy-Authorization: ${authorization}\r\n\r\n`)
      await Promise.race([
        new Promise((done) => socket.once('data', done)),
        new Promise((done) => socket.once('close', done)),
      ])
      socket.end(payload)
      socket.resume()
      await new Promise((done) => socket.once('close', done).setTimeout(2000, () => socket.destroy()))
    }
  }
  await logLine(refused, 'PROXY_ERR_REFUSED', (line) => line.code === 'PROXY_ERR_REFUSED')
  await eventually(async () => assert.match(log('lost'), /127\.0\.0\.1:1/))
  // One after the other: the others hear of each.
  for (const child of [joining, offering, enrolled, refused, lost, server]) await child.stop('SIGTERM', 1000)

  // It has looked at something: records, frames and what went wrong.
  const told = server.lines.join('\n')
  for (const expected of ['received a record', 'sent data', 'received open', 'sent opened', 'received hello']) {
    assert.ok(told.includes(expected), expected)
  }
  const all = { ...SECRETS, token }
  const places: [string, string][] = written.map((child, index) => [`output ${index}`, child.lines.join('\n')])
  const given = [stage.path('server.toml'), stage.path('socks-password')]
  for (const path of filesBelow(stage.folder)) {
    if (!given.includes(path)) places.push([path, readFileSync(path, 'latin1')])
  }
  assert.ok(places.some(([path]) => path.endsWith('nodes.json')) && places.some(([path]) => path.endsWith('lost.log')))
  // What is kept where it should be is found, so that the rest would be.
  assert.ok(places.some(([path, text]) => path.endsWith('admin-token') && text.includes(token)))
  for (const [name, secret] of Object.entries(all)) {
    for (const spelling of spellings(secret)) {
      const found = places.filter(([place, text]) => text.includes(spelling) && !KEEPS[name]?.test(place))
      assert.deepEqual(
        found.map(([place]) => place),
        [],
        `${name} as ${spelling}`,
      )
    }
  }
})
