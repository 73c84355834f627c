import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { loadConfig, type ServerConfig } from '../../../../apps/common/config.ts'
import { diffConfig } from '../../../../apps/common/config-diff.ts'

const folder = mkdtempSync(join(tmpdir(), 'symport-config-'))
after(() => rmSync(folder, { recursive: true }))

let files = 0
function config(text: string): Promise<ServerConfig> {
  const path = join(folder, `${++files}.toml`)
  writeFileSync(path, text, { mode: 0o600 })
  return loadConfig(path, 'server')
}

const NOTHING = { mappings: false, live: [], changes: [], restart: [] }

test('the same file changes nothing, in whatever order and words it is written', async () => {
  const one = await config(
    'port = 1\nallow = "a:1"\nmapping = [{listen = ":1", forward = ":2", wait = "1s"}]\nbuffers.window = "1MiB"',
  )
  const other = await config(
    'buffers = {window = 1048576}\nallow = ["a:1"]\nport = "1"\nlistener = {wait = "1000ms", forward = "127.0.0.1:2", listen = "tcp://:1"}',
  )
  assert.deepEqual(diffConfig(one, other), NOTHING)
})

test('tells what is applied at once from what needs a restart', async () => {
  const before = await config(
    'host = "127.0.0.1"\nallow = "a:1"\nlog.level = "info"\nlimits.listeners = 5\nlimits.max-sessions = 9',
  )
  const after = await config(
    'allow = "b:1"\nallow-ports = "9"\nlog.level = "debug"\nlimits.listeners = 6\nlimits.max-sessions = 8\nkeepalive = "1s"',
  )
  const { live, changes, restart } = diffConfig(before, after)
  assert.deepEqual(live, ['allow', 'allow-ports', 'log-level'])
  assert.deepEqual(changes, ['allow: ["a:1"] -> ["b:1"]', 'allow-ports: not set -> 9', 'log-level: info -> debug'])
  assert.deepEqual(restart, [
    'host: 127.0.0.1 -> not set',
    'keepalive: not set -> 1s',
    'limits: {"listeners":5} -> {"listeners":6}',
    'limits of all main connections together: {"maxSessions":9} -> {"maxSessions":8}',
  ])
})

test('shows no secret', async () => {
  const before = await config('uuid = "hunter2-hunter2"\nadmin.webhook = "https://x/hunter2"')
  const after = await config('uuid = "hunter3-hunter3"\nadmin.webhook = "https://x/hunter3"')
  const { restart } = diffConfig(before, after)
  assert.deepEqual(restart, ['uuid changed', 'webhook changed'])
})

test('tells whether mappings changed', async () => {
  const one = await config('mapping = [{listen = ":1", forward = ":10"}, {listen = ":2", forward = ":20"}]')
  const noted = await config(
    'mapping = [{listen = ":1", forward = ":10"}, {listen = ":2", forward = ":20", note = "x"}]',
  )
  const less = await config('mapping = {listen = ":1", forward = ":10"}')
  for (const other of [noted, less]) {
    assert.deepEqual(diffConfig(one, other), { ...NOTHING, mappings: true })
    assert.deepEqual(diffConfig(other, one), { ...NOTHING, mappings: true })
  }
  const peer = await config('peer-listener = {listen = ":1", forward = ":10"}')
  const { mappings, restart } = diffConfig(await config(''), peer)
  assert.equal(mappings, false)
  assert.match(restart.join(), /^peer_listener: \[\] -> \[\{"listen":/)
})

test('what the command line says does not change with the file', async () => {
  const before = await config('port = 1\nlog.level = "info"\nmapping = {listen = ":1", forward = ":10"}')
  const after = await config('port = 2\nlog.level = "warn"')
  const flags = { port: '7', 'log-level': 'debug', listener: ['1:a:2'] }
  assert.deepEqual(diffConfig(before, after, flags), NOTHING)
  const secret = await config('uuid = "another-long-secret"')
  assert.deepEqual(diffConfig(await config(''), secret, { 'uuid-file': '/x' }), NOTHING)
  const none = { port: undefined, 'log-level': undefined, listener: [], balance: false }
  assert.deepEqual(diffConfig(before, after, none), diffConfig(before, after))
  assert.equal(diffConfig(before, after).restart.length, 1)
})

test('a password that changes is noticed, and not shown', async () => {
  const node = async (password: string) => {
    const path = join(folder, `${++files}.toml`)
    const text = `dynamic = "socks5://a:${password}@:1"
      remote = ["tunnel://work:${password}@"]
      local = "tcp://a:${password}@:2"
      peer-listener = "channel://b:${password}@,tcp://:22"`
    writeFileSync(path, text, { mode: 0o600 })
    return await loadConfig(path, 'node')
  }
  const [before, after] = [await node('hunter2'), await node('hunter3')]
  assert.deepEqual(diffConfig(before, await node('hunter2')), NOTHING)
  assert.deepEqual(diffConfig(before, after).restart, [
    'peer_listener changed',
    'dynamic changed',
    'local changed',
    'remote changed',
  ])
})

test("what a file of wsp lets nodes reach, and the server's own name", async () => {
  const wsp = async (text: string) => {
    const path = join(folder, `${++files}.json`)
    writeFileSync(path, text, { mode: 0o600 })
    return await loadConfig(path, 'server')
  }
  const [before, after] = [await wsp('{"port": 1}'), await wsp('{"port": 1, "host": "x.com", "allow": ["a:1"]}')]
  const { live, changes, restart } = diffConfig(before, after)
  assert.deepEqual(live, ['allow'])
  assert.deepEqual(changes, ['allow: not set -> ["a:1"]'])
  assert.deepEqual(restart, ['host: not set -> x.com'])
})
