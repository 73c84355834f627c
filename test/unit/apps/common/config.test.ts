import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import {
  configMappings,
  describe as describeProblem,
  loadConfig,
  mergeConfig,
  type NodeConfig,
  type Role,
  readConfig,
} from '../../../../apps/common/config.ts'
import { createDomains } from '../../../../apps/common/options.ts'
import { type PlanValues, planServers } from '../../../../apps/node/plan.ts'
import { passwordOf } from '../../../../lib/domains/channel-address.ts'

const folder = mkdtempSync(join(tmpdir(), 'symport-config-'))
after(() => rmSync(folder, { recursive: true }))

let files = 0
function file(text: string | Uint8Array, name = 'x.toml'): string {
  const path = join(folder, `${++files}-${name}`)
  writeFileSync(path, text, { mode: 0o600 })
  return path
}

/** All that is wrong with a file, a line each. */
async function problemsOf(text: string, role?: Role): Promise<string[]> {
  return (await readConfig(file(text), role)).problems.map(describeProblem)
}

const SERVER = `
host = "127.0.0.1"
port = 8925
uuid_file = "secret.txt"
state = "state"
allow = "127.0.0.1:5432"
allow-ports = ["9000-9999", "22"]
balance = true
enrolled-only = true
on-duplicate = "replace"
drain-timeout = "10s"
resume_timeout = "0s"
keepalive = "5s"

[tls]
cert = "/etc/cert.pem"
key = "../key.pem"

[http]
path = "/tunnel"
trusted-proxies = ["10.0.0.0/8", "::1"]
real-ip-header = "Tiny-Real-IP"
proxy-protocol = true

[admin]
listen = "127.0.0.1:9251"
webhook = "https://example.com/hook"

[log]
level = "warn"
file = "log/symport.log"

[limits]
sub-connections = 100
pending-opens = 10
opens-per-second = 50
open-timeout = "5s"
listeners = 3
max-handshakes = 20
handshakes-per-address = 4
max-sessions = 30

[buffers]
window = "1 MiB"
kept = "512KiB"
held = 104857600

[[mapping]]
listen = ":8078"
forward = "127.0.0.1:8077"
nodes = ["a", "b", "a"]
balance = "least-connections"
note = "a local agent"
enabled = false
wait = "2s"
health = { interval = "30s" }

[[listener]]
listen = "127.0.0.1:53/udp"
forward = { Domain = "udp", Addr = "10.0.0.1:53" }
node = "a"
health = true
`

describe('a file', () => {
  test('says everything that flags say, and more', async () => {
    const path = file(SERVER)
    const { values, listeners, listenerKeys, peerListeners, options, role, warnings } = await loadConfig(path, 'server')
    assert.equal(role, 'server')
    assert.deepEqual(values, {
      host: '127.0.0.1',
      port: '8925',
      'uuid-file': join(folder, 'secret.txt'),
      state: join(folder, 'state'),
      allow: ['127.0.0.1:5432'],
      'allow-ports': '9000-9999,22',
      balance: true,
      'enrolled-only': true,
      'on-duplicate': 'replace',
      'drain-timeout': '10s',
      'resume-timeout': '0s',
      keepalive: '5s',
      cert: '/etc/cert.pem',
      key: join(folder, '..', 'key.pem'),
      path: '/tunnel',
      'trusted-proxies': ['10.0.0.0/8', '::1'],
      'real-ip-header': 'Tiny-Real-IP',
      'proxy-protocol': true,
      admin: '127.0.0.1:9251',
      webhook: 'https://example.com/hook',
      'log-level': 'warn',
      'log-file': join(folder, 'log/symport.log'),
    })
    assert.deepEqual(options, {
      limits: {
        subConnections: 100,
        pendingOpens: 10,
        opensPerSecond: 50,
        openTimeout: 5000,
        listeners: 3,
        windowBytes: 1024 * 1024,
        keptBytes: 512 * 1024,
      },
      maxHandshakes: 20,
      handshakesPerAddress: 4,
      maxSessions: 30,
      heldBytes: 104_857_600,
    })
    assert.deepEqual(listeners, [
      {
        listen: { Domain: 'udp', Addr: '127.0.0.1:53' },
        forward: { Domain: 'udp', Addr: '10.0.0.1:53' },
        nodes: ['a'],
        health: {},
      },
      {
        listen: { Domain: 'tcp', Addr: ':8078' },
        forward: { Domain: 'tcp', Addr: '127.0.0.1:8077' },
        nodes: ['a', 'b'],
        balance: 'least-connections',
        note: 'a local agent',
        enabled: false,
        wait: 2000,
        health: { interval: 30_000 },
      },
    ])
    assert.deepEqual(listenerKeys, ['listener[0]', 'mapping[0]'])
    assert.deepEqual([peerListeners, warnings], [[], []])
  })

  test('of a node has the keys of a node', async () => {
    const text = `server = "wss://example.com/symport"
      id = "home"
      proxy = "http://proxy.example.com:3128"
      listener = ["1080:127.0.0.1:80", "tcp://:81,unix:///run/y.sock"]
      [tls]
      ca = "ca.pem"
      [[peer-listener]]
      listen = ":9000"
      forward = ":80"`
    const config = await loadConfig(file(text), 'node')
    assert.deepEqual(config.values, {
      server: 'wss://example.com/symport',
      id: 'home',
      proxy: 'http://proxy.example.com:3128',
      ca: join(folder, 'ca.pem'),
    })
    assert.deepEqual(
      [...config.listeners, ...config.peerListeners].map(({ listen, forward }) => `${listen.Addr} ${forward.Addr}`),
      ['127.0.0.1:1080 127.0.0.1:80', ':81 /run/y.sock', ':9000 127.0.0.1:80'],
    )
  })

  test('of a node may have several servers, and short forms of wsp', async () => {
    const path = file(`id = "home"
      allow = "10.0.0.0/8:*"
      [[client]]
      server = "wss://one.example.com/symport"
      uuid-file = "one.txt"
      dynamic = "1080"
      local = ["tcp://ssh:pass@127.0.0.1:2200", "8080:db:1"]
      [[client]]
      server = "two.example.com"
      auth = "a secret"
      id = "away"
      ca = "ca.pem"
      proxy = "none"
      allow = ["127.0.0.1:22"]
      remote = ["tunnel://work:pass@", "tcp://work:pass@h:1"]
      [[client.listener]]
      listen = ":9"
      forward = "channel://ssh:pass@"
      [client.peer-listener]
      listen = { Domain = "channel", Addr = "q", Password = "pass" }
      forward = ":22"`)
    const { clients, values, warnings } = await loadConfig(path, 'node')
    assert.deepEqual(values, { id: 'home', allow: ['10.0.0.0/8:*'] })
    const [one, two, ...more] = clients
    assert.deepEqual(more, [])
    assert.deepEqual(
      [one?.key, one?.server, one?.secret, one?.uuidFile, one?.id],
      ['client[0]', 'wss://one.example.com/symport', undefined, join(folder, 'one.txt'), undefined],
    )
    assert.deepEqual([one?.dynamic, one?.local], [['1080'], ['tcp://ssh:pass@127.0.0.1:2200', '8080:db:1']])
    assert.match(one?.secretAdvice ?? '', /client\[0\]/)
    assert.deepEqual(
      [two?.key, two?.secret, two?.id, two?.ca, two?.proxy, two?.allow],
      ['client[1]', 'a secret', 'away', join(folder, 'ca.pem'), 'none', ['127.0.0.1:22']],
    )
    const ssh = '{"Listen":{"Domain":"tcp","Addr":":9"},"Forward":{"Domain":"channel","Addr":"ssh","Password":"pass"}}'
    const q =
      '{"Listen":{"Domain":"channel","Addr":"q","Password":"pass"},"Forward":{"Domain":"tcp","Addr":"127.0.0.1:22"}}'
    assert.deepEqual([two?.local, two?.remote], [[ssh], ['tunnel://work:pass@', q]])
    assert.deepEqual(warnings, [
      'client[1].remote[1]: channel work is registered by client[1].remote[0] already: left out',
    ])
  })

  test('with several servers has none above all tables', async () => {
    const text = `server = "x"\nport = 1\nlocal = "8080:a:1"\nlistener = "8081:a:1"
      [[client]]
      auth = "a"
      uuid = "b"
      remot = []`
    assert.deepEqual(await problemsOf(text, 'node'), [
      'client[0].server: it is missing',
      'client[0].remot: unknown key: did you mean remote?',
      'client[0]: uuid and auth are both there: keep one',
      'server: write it in the [[client]] that it is for',
      'port: write it in the [[client]] that it is for',
      'local: write it in the [[client]] that it is for',
      'listener: write it in the [[client]] that it is for',
    ])
    assert.deepEqual(await problemsOf('client = { server = "a" }\nport = 1', 'server'), [
      'client: unknown key: it is for a node',
    ])
  })

  test('of a server may listen at the web port, and one of a node not', async () => {
    const text = 'listener = ["web://x.com,http://127.0.0.1:80/base/", "tcp://:1,tls://a:443"]'
    const { listeners } = await loadConfig(file(`balance = true\n${text}`), 'server')
    assert.deepEqual(
      listeners.map(({ listen, forward }) => `${listen.Domain} ${listen.Addr} ${forward.Domain}`),
      ['web x.com?base=/base/ tcp', 'tcp :1 tls'],
    )
    assert.match((await problemsOf(text, 'node')).join(), /Listen: domain web cannot be listened on/)
    assert.deepEqual(await problemsOf('peer-listener = { listen = "web://x.com", forward = ":1" }', 'node'), [])
  })

  test('is TOML or JSON by its name, otherwise by how it begins', async () => {
    const json =
      '\ufeff{"port": 8925, "$schema": "x", "listener": {"Listen": {"Domain": "tcp", "Addr": ":1"}, "Forward": {"Domain": "tcp", "Addr": ":2"}}}'
    for (const [text, name] of [
      [json, 'a.json'],
      [json, 'a.JSON'],
      [json, 'a.conf'],
      ['port = 8925\nlistener = "0.0.0.0:1:127.0.0.1:2"', 'a.conf'],
      ['port = "8925"\nlistener = ["tcp://:1,tcp://:2"]', 'a.toml'],
    ] as const) {
      const { values, listeners } = await loadConfig(file(text, name), 'server')
      assert.deepEqual(values, { port: '8925' }, name)
      assert.equal(listeners[0]?.forward.Addr, '127.0.0.1:2')
    }
    await assert.rejects(loadConfig(file('port = 1', 'a.json'), 'server'), { code: 'PROXY_ERR_CONFIG' })
    await assert.rejects(loadConfig(file('{"port": 1}', 'a.toml'), 'server'), { code: 'PROXY_ERR_CONFIG' })
  })

  test('says what it is for, by `role` or by keys that only one of the commands has', async () => {
    for (const [text, role] of [
      ['role = "node"', 'node'],
      ['role = "server"', 'server'],
      ['id = "x"', 'node'],
      ['tls.pin = "x"', 'node'],
      ['port = 1', 'server'],
      ['tls.cert = "x"', 'server'],
      ['', 'server'],
    ] as const) {
      assert.equal((await readConfig(file(text))).role, role, text)
    }
    const other = await problemsOf('role = "server"\nbalance = true\nmapping = []', 'node')
    assert.deepEqual(other, ['role: the file is for "symport server"'])
    assert.deepEqual(await problemsOf('role = "sever"'), ['role: "sever" is not known: did you mean server?'])
  })

  test('that holds a secret and can be read by everybody earns a warning', async () => {
    if (process.platform === 'win32') return
    for (const [text, mode, warnings] of [
      ['uuid = "a long and winding secret"', 0o644, 1],
      ['uuid = "a long and winding secret"', 0o640, 0],
      ['uuid-file = "x"', 0o644, 0],
    ] as const) {
      const path = file(text)
      chmodSync(path, mode)
      const config = await loadConfig(path, 'server')
      assert.equal(config.warnings.length, warnings)
      assert.ok(!config.warnings.join().includes('winding'))
    }
  })
})

describe('what is wrong with a file', () => {
  test('is a mapping whose halves do not go together', async () => {
    const why = 'udp cannot be forwarded to tcp: udp carries datagrams, and tcp a stream of bytes'
    const halves = 'listen = ":53/udp"\nforward = "127.0.0.1:53"'
    assert.deepEqual(await problemsOf(`role = "server"\n[[mapping]]\n${halves}`), [`mapping[0]: ${why}`])
    const json = { role: 'server', listener: [{ Listen: 'udp://:53', Forward: 'tcp://127.0.0.1:53' }] }
    const { problems } = await readConfig(file(JSON.stringify(json), 'x.json'))
    assert.deepEqual(problems.map(describeProblem), [`listener[0]: ${why}`])
  })

  test('is told with file, line and column if it is no TOML or JSON', async () => {
    for (const [text, name, says] of [
      ['a = 1\nb = \n', 'x.toml', /x\.toml: line 2, column 5: malformed TOML: invalid value$/],
      ['a = "b\n', 'x.toml', /x\.toml: line 1, column \d+: malformed TOML: [^\n]+$/],
      ['{"a": 1,\n "b" 2}', 'x.json', /x\.json: line 2, column 6: malformed JSON: expected ':' before "2\}"$/],
      ['{"a": 1', 'x.json', /x\.json: line 1, column 8: malformed JSON: expected ',' or '\}' at the end$/],
      ['', 'x.json', /x\.json: line 1, column 1: malformed JSON/],
      ['[1]', 'x.json', /x\.json: write a table$/],
      ['null', 'x.json', /x\.json: write a table$/],
    ] as const) {
      await assert.rejects(loadConfig(file(text, name), 'server'), (error: Error & { code?: string }) => {
        assert.equal(error.code, 'PROXY_ERR_CONFIG')
        assert.match(error.message, says)
        return true
      })
    }
  })

  test('is told if it cannot be read', async () => {
    const rejects = (path: string, message: RegExp): Promise<void> =>
      assert.rejects(loadConfig(path, 'server'), { code: 'PROXY_ERR_CONFIG', message })
    await rejects(join(folder, 'no such file'), /there is no such file$/)
    await rejects(folder, /it is a folder$/)
    await rejects(file(Buffer.alloc(1024 * 1024 + 1, 0x20)), /larger than 1 MiB$/)
    await rejects('/dev/zero', /larger than 1 MiB$/)
    await rejects(file(new Uint8Array([0x61, 0xff])), /it is not UTF-8 text$/)
    assert.deepEqual(await problemsOf(' '.repeat(1024 * 1024)), [])
  })

  test('is told by the dotted path of its key, all of it', async () => {
    const text = `port = 99999
      allow = ["127.0.0.1", "*:80"]
      drain-timeout = 30
      keepalive = "1ms"
      balance = "yes"
      when = 2020-01-01
      tls.cert = "x"
      log.level = "inof"
      http = { real-ip-header = "a b", proxy-protocol = true }
      limits = { pending-opens = 5000, sub-connections = 0, open-timeout = "30", max-sessions = 1.5 }
      buffers = { window = "1XiB", kept = 5, held = -1 }
      state = 7
      admin = "127.0.0.1:9251"
      listener = "1:2"
      [[mapping]]
      listen = ":8078"
      forward = "127.0.0.1:99999"
      node = "a"
      nodes = ["b c"]
      balance = "frist"
      wait = "61s"
      health = { interval = "1ms" }
      [[mapping]]
      forward = 5`
    assert.deepEqual((await problemsOf(text, 'server')).sort(), [
      'admin: write a table',
      'allow[0]: bad pattern "127.0.0.1": write HOST:PORT, HOST:PORT-PORT or HOST:*',
      'balance: write true or false, without quotes',
      'buffers.held: at least 1024KiB',
      'buffers.kept: at least 64KiB',
      'buffers.window: "1XiB" has a unit that is not known: did you mean 1KiB?',
      'drain-timeout: write a time with its unit, in quotes: "30s", "2m" or "500ms"',
      'http.real-ip-header: "a b" is not a header\'s name',
      'http.trusted-proxies: it is missing: http.proxy-protocol needs it',
      'keepalive: at least 1s',
      'limits.max-sessions: write a whole number',
      'limits.open-timeout: "30" is not a duration: write 30s, 2m or 500ms',
      'limits.pending-opens: at most 1024',
      'limits.sub-connections: at least 1',
      'listener: bad SPEC "1:2": write [bind:]port:host:hostport, or tcp://host:port,tcp://host:port, or JSON',
      'log.level: "inof" is not known: did you mean info?',
      'mapping[0].balance: "frist" is not known: did you mean first?',
      'mapping[0].forward: port 99999 is out of range (1 to 65535)',
      'mapping[0].health.interval: at least 100ms',
      'mapping[0].nodes[0]: an id has 1 to 64 bytes, and no spaces',
      'mapping[0].wait: at most 60s',
      'mapping[0]: node and nodes are both there: keep one',
      'mapping[1].forward: write text, in quotes',
      'mapping[1].listen: it is missing',
      'port: a port is a number from 0 to 65535',
      'state: write text, in quotes',
      'tls.key: it is missing: tls.cert needs it',
      'when: unknown key: doc/config.md has all of them',
    ])
  })

  test('is the first problem and the number of the others, for whoever starts with it', async () => {
    const path = file('port = "x"\nstate = 1\nuuid = ""')
    await assert.rejects(loadConfig(path, 'server'), {
      code: 'PROXY_ERR_CONFIG',
      message: `${path}: port: a port is a number from 0 to 65535 (and 2 more: symport check ${path})`,
    })
    const one = file('port = "x"')
    await assert.rejects(loadConfig(one, 'server'), { message: `${one}: port: a port is a number from 0 to 65535` })
  })

  test('names the key that was meant, or where it belongs', async () => {
    const unknown = async (text: string, role: Role, says: string): Promise<void> =>
      assert.deepEqual(await problemsOf(text, role), [says])
    await unknown('hots = "x"', 'server', 'hots: unknown key: did you mean host?')
    await unknown('peer_listner = []', 'node', 'peer-listner: unknown key: did you mean peer-listener?')
    await unknown('log-level = "info"', 'server', 'log-level: unknown key: write it as level in [log]')
    await unknown(
      'trusted_proxies = []',
      'server',
      'trusted-proxies: unknown key: write it as trusted-proxies in [http]',
    )
    await unknown('limits.window = "1MiB"', 'node', 'limits.window: unknown key: write it as window in [buffers]')
    await unknown('log.port = 1', 'node', 'log.port: unknown key: write it as port, above all tables')
    await unknown('id = "x"', 'server', 'id: unknown key: it is for a node')
    await unknown('mapping = []', 'node', 'mapping: unknown key: it is for a server')
    await unknown('log.xyzzy = 1', 'node', 'log.xyzzy: unknown key: known are level, file')
    await unknown(
      'mapping = [{listen = ":1", forward = ":2", blance = 1}]',
      'server',
      'mapping[0].blance: unknown key: did you mean balance?',
    )
    await unknown(
      'listener = [{listen = ":1", forward = ":2", wait = "1s"}]',
      'node',
      'listener[0].wait: unknown key: known are listen, forward, note, enabled',
    )
    await unknown('"a\\tb\\u0007" = 1', 'node', '"a b ": unknown key: doc/config.md has all of them')
  })

  test('shows no secret', async () => {
    for (const text of [
      'uuid = "symport_hunter2"',
      'uuid = "hun\\nter2"',
      'uuid = ["hunter2"]',
      'proxy = "http://u:hunter2@/"',
      '[uuid]\nhunter2 = 1',
    ]) {
      const problems = await problemsOf(text, 'node')
      assert.equal(problems.length, 1, text)
      assert.doesNotMatch(problems.join(), /hunter2|ter2/)
    }
  })

  test('is found without reaching a prototype, however the keys are called', async () => {
    for (const text of [
      '__proto__.port = 1',
      '[limits.__proto__]\nx = 1',
      'constructor.prototype.x = 1',
      '[limits]\nprototype = 1',
    ]) {
      await assert.rejects(loadConfig(file(text), 'server'), { code: 'PROXY_ERR_CONFIG' }, text)
    }
    for (const text of ['{"__proto__": {"port": 1}}', '{"limits": {"constructor": 1}}', '{"toString": 1}']) {
      await assert.rejects(loadConfig(file(text, 'x.json'), 'server'), { code: 'PROXY_ERR_CONFIG' }, text)
    }
    assert.equal('port' in {}, false)
  })

  test('is a key that is there twice, in both spellings too', async () => {
    for (const text of ['port = 1\nport = 2', 'uuid-file = "a"\nuuid_file = "b"', '[limits]\n[limits]']) {
      await assert.rejects(loadConfig(file(text), 'server'), { code: 'PROXY_ERR_CONFIG' }, text)
    }
  })

  test('is told in a moment, for files that are made to be slow', async () => {
    const long = 1024 * 1000
    const hostile: [string, string][] = [
      ['['.repeat(long), 'x.json'],
      ['{"a":'.repeat(long / 5), 'x.json'],
      [`{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, 'x.json'],
      [`a = ${'['.repeat(long)}`, 'x.toml'],
      [`a = ${'{a='.repeat(long / 4)}`, 'x.toml'],
      [`${'a.'.repeat(long / 3)}a = 1`, 'x.toml'],
      [Array.from({ length: 60_000 }, (_, i) => `key${i} = 1`).join('\n'), 'x.toml'],
      [`allow = [${'"x",'.repeat(long / 5)}]`, 'x.toml'],
      [`allow = "${'@'.repeat(long)}"`, 'x.toml'],
      [`${'x'.repeat(long)} = 1`, 'x.toml'],
    ]
    for (const [text, name] of hostile) {
      const started = performance.now()
      await assert.rejects(loadConfig(file(text, name), 'server'), (error: Error & { code?: string }) => {
        assert.equal(error.code, 'PROXY_ERR_CONFIG')
        assert.ok(error.message.length < 1000 && !error.message.includes('\n'), error.message.slice(0, 200))
        return true
      })
      assert.ok(performance.now() - started < 5000, `${text.slice(0, 20)}: ${performance.now() - started} ms`)
    }
  })
})

describe('a command line and a file', () => {
  const flags = {
    host: undefined as string | undefined,
    port: undefined as string | undefined,
    server: undefined as string | undefined,
    uuid: undefined as string | undefined,
    'uuid-file': undefined as string | undefined,
    state: undefined as string | undefined,
    allow: [] as string[],
    balance: false,
    listener: [] as string[],
    peer_listener: [] as string[],
    'log-level': undefined as string | undefined,
  }
  const env = {}

  test('without a file the command line stays as it is', () => {
    assert.equal(mergeConfig(flags, undefined), flags)
  })

  test('the command line goes before the file, and its lists take the place of those in the file', async () => {
    const text = 'port = 1\nallow = ["a:1", "b:2"]\nbalance = true\nlog.level = "warn"\npeer_listener = "1:c:2"'
    const config = await loadConfig(file(text), 'server')
    const before = structuredClone(flags)
    assert.deepEqual(mergeConfig(flags, config, { env }), {
      ...flags,
      port: '1',
      allow: ['a:1', 'b:2'],
      balance: true,
      'log-level': 'warn',
      peer_listener: ['{"Listen":{"Domain":"tcp","Addr":"127.0.0.1:1"},"Forward":{"Domain":"tcp","Addr":"c:2"}}'],
    })
    const given = { ...flags, port: '7', allow: ['c:3'], peer_listener: ['x'], 'log-level': 'debug' }
    assert.deepEqual(mergeConfig(given, config, { env }), { ...given, balance: true })
    assert.deepEqual(flags, before, 'neither is changed')
  })

  test('the environment goes before the file, and the secret is one thing, however it is given', async () => {
    const inside = await loadConfig(file('uuid = "a"'), 'server')
    const beside = await loadConfig(file('uuid-file = "/a"'), 'server')
    const secret = (config: typeof inside, given: object, environment: object): unknown => {
      const { uuid, 'uuid-file': path } = mergeConfig({ ...flags, ...given }, config, { env: { ...environment } })
      return uuid ?? path
    }
    assert.equal(secret(inside, {}, {}), 'a')
    assert.equal(secret(beside, {}, {}), '/a')
    assert.equal(secret(inside, {}, { SYMPORT_UUID: 'b' }), undefined)
    assert.equal(secret(beside, {}, { SYMPORT_UUID: 'b' }), undefined)
    for (const config of [inside, beside]) {
      assert.deepEqual(mergeConfig({ ...flags, uuid: 'c' }, config, { env }), { ...flags, uuid: 'c' })
      assert.deepEqual(mergeConfig({ ...flags, 'uuid-file': 'c' }, config, { env }), { ...flags, 'uuid-file': 'c' })
    }
  })

  test('a place on the command line takes that of the file away, and its port where it has one', async () => {
    const apart = await loadConfig(file('host = "a"\nport = 1'), 'node')
    const place = (given: object, config = apart, named = false): unknown[] => {
      const { host, port, server } = mergeConfig({ ...flags, ...given }, config, { env, named })
      return [host ?? server, port]
    }
    assert.deepEqual(place({}), ['a', '1'])
    assert.deepEqual(place({ host: 'b' }), ['b', '1'])
    assert.deepEqual(place({ host: 'b:2' }), ['b:2', undefined])
    assert.deepEqual(place({ server: 'wss://b/x' }), ['wss://b/x', undefined])
    assert.deepEqual(place({ server: 'unix:///run/b' }), ['unix:///run/b', undefined])
    assert.deepEqual(place({ port: '3' }), ['a', '3'])
    assert.deepEqual(place({}, apart, true), [undefined, undefined])
    const together = await loadConfig(file('host = "[::1]:1"'), 'node')
    assert.deepEqual(place({ port: '3' }, together), ['[::1]', '3'])
    const url = await loadConfig(file('server = "wss://a/x"'), 'node')
    assert.deepEqual(place({ host: 'b' }, url), ['b', undefined])
  })

  test("a node's mappings come as SPECs, those of a server with all that a file says about them", async () => {
    const spec = '{"Listen":{"Domain":"tcp","Addr":":1"},"Forward":{"Domain":"tcp","Addr":"127.0.0.1:2"}}'
    const node = await loadConfig(
      file('listener = [{listen = ":1", forward = ":2"}, {listen = ":3", forward = ":4", enabled = false}]'),
      'node',
    )
    assert.deepEqual(mergeConfig(flags, node, { env }).listener, [spec])
    const server = await loadConfig(
      file('mapping = {listen = ":1", forward = ":2", note = "x", nodes = ["a", "b"]}'),
      'server',
    )
    assert.deepEqual(mergeConfig(flags, server, { env }).listener, [])
    assert.deepEqual(configMappings(flags, server), [
      {
        listen: { Domain: 'tcp', Addr: ':1' },
        forward: { Domain: 'tcp', Addr: '127.0.0.1:2' },
        nodes: ['a', 'b'],
        note: 'x',
      },
    ])
    assert.deepEqual(configMappings({ listener: ['x'] }, server), [])
    assert.deepEqual(configMappings(flags, undefined), [])
    const peer = await loadConfig(file('peer-listener = {listen = ":1", forward = ":2", nodes = ["a", "b"]}'), 'server')
    assert.deepEqual(
      mergeConfig(flags, peer, { env }).peer_listener.map((text) => JSON.parse(text).Node),
      ['a', 'b'],
    )
  })

  test('passwords of channels come through as they are', async () => {
    const path = file(`dynamic = ["1080", "socks5://work:pass@:1081"]
      local = "tcp://ssh:p%40ss@127.0.0.1:2200"
      remote = ["tunnel://work:pass@"]
      listener = ["tcp://:1,channel://a:pass@"]
      [[peer-listener]]
      listen = "channel://b:pass@"
      forward = ":22"`)
    const config = await loadConfig(path, 'node')
    const flags = { dynamic: [], listener: [], peer_listener: [] }
    const merged = mergeConfig(flags, config)
    const a = '{"Listen":{"Domain":"tcp","Addr":":1"},"Forward":{"Domain":"channel","Addr":"a","Password":"pass"}}'
    const b =
      '{"Listen":{"Domain":"channel","Addr":"b","Password":"pass"},"Forward":{"Domain":"tcp","Addr":"127.0.0.1:22"}}'
    assert.deepEqual(merged, {
      dynamic: ['1080', 'socks5://work:pass@:1081'],
      listener: [a, 'tcp://ssh:p%40ss@127.0.0.1:2200'],
      peer_listener: [b, 'tunnel://work:pass@'],
    })
    const given = { dynamic: ['1'], listener: ['2:a:2'], peer_listener: ['3:a:3'] }
    assert.deepEqual(mergeConfig(given, config), given)
    assert.deepEqual(mergeConfig(flags, await loadConfig(file('role = "node"'), 'node')), flags)
    assert.doesNotMatch(JSON.stringify([config.listeners, config.peerListeners]), /pass/)
  })

  test('what the command has no flag for is an error, and not left out', async () => {
    const config = await loadConfig(file('keepalive = "5s"'), 'server')
    assert.throws(() => mergeConfig(flags, config, { env }), {
      code: 'PROXY_ERR_CONFIG',
      message: /"symport server" has no --keepalive$/,
    })
  })
})

test('one URL is the same SPEC on a command line, in TOML, in JSON, and in a file of wsp', async () => {
  const dynamic = ['socks5://:1080', 'http://127.0.0.1:8080', 'http://work:p%40ss@:8081', 'mixed://work@:1081', '1082']
  const local = ['tcp://ssh:p%40ss@127.0.0.1:2200', 'udp://dns@:53', 'unix://ssh:pass@/run/x.sock', 'socks5://:1083']
  const remote = [
    'tcp://ssh:p%40ss@192.168.1.200:22',
    'udp://dns@10.0.0.1:53',
    'unix://x:pass@/run/x.sock',
    'tunnel://work:pass@',
    'http://127.0.0.1:8080?mode=path&value=api',
    'http://127.0.0.1:8080/api/?mode=domain&value=customapi.com',
    'https://intern.example?mode=path&value=%E4%BD%A0&verify=off',
    'tcp://127.0.0.1:5900?mode=path&value=vnc',
    'unix:///run/y.sock?mode=domain&value=y.example.com',
  ]
  const lists = { dynamic, local, remote }
  const toml = Object.entries(lists).map(([key, texts]) => `${key} = ${JSON.stringify(texts)}`)
  const client = { server: 'ws://127.0.0.1:1', auth: 'pass', ...lists }
  const domains = createDomains()
  const none = {
    ...{ host: undefined, server: undefined, port: undefined, id: 'me', uuid: undefined, 'uuid-file': undefined },
    ...{ ca: undefined, pin: undefined, proxy: 'none', dynamic: [], listener: [], peer_listener: [], allow: [] },
  }
  /** All halves of what such a node asks for, with the passwords of channels. */
  const specsOf = async (values: PlanValues, config?: NodeConfig): Promise<unknown[]> => {
    const [plan, more] = await planServers(values, [], { config, domains })
    assert.ok(plan !== undefined && more === undefined)
    return [plan.listeners, plan.peerListeners].map((specs) =>
      specs.flatMap(({ Listen, Forward }) =>
        [Listen, Forward].map((at) => [at.Domain, at.Addr, passwordOf(at)?.reveal()]),
      ),
    )
  }
  const expected = await specsOf({ ...none, dynamic, listener: local, peer_listener: remote })
  assert.deepEqual(
    expected.map((halves) => Array.isArray(halves) && halves.length / 2),
    [dynamic.length + local.length, remote.length],
  )
  for (const [name, text, isWsp] of [
    ['x.toml', toml.join('\n'), false],
    ['x.toml', ['[[client]]', 'server = "ws://127.0.0.1:1"', ...toml].join('\n'), false],
    ['x.json', JSON.stringify(lists), false],
    ['x.json', JSON.stringify({ role: 'node', client: [client] }), false],
    ['wspc.json', JSON.stringify({ client: [client] }), true],
  ] as const) {
    const config = await loadConfig(file(text, name), 'node')
    assert.ok(config.role === 'node')
    assert.deepEqual([config.wsp, config.warnings], [isWsp, []], text)
    assert.deepEqual(await specsOf(mergeConfig(none, config, { env: {} }), config), expected, text)
  }
})
