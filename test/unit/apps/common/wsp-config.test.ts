import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import {
  describe as describeProblem,
  loadConfig,
  mergeConfig,
  type NodeConfig,
  readConfig,
  type ServerConfig,
} from '../../../../apps/common/config.ts'

const folder = mkdtempSync(join(tmpdir(), 'symport-wsp-'))
after(() => rmSync(folder, { recursive: true }))

let files = 0
function file(content: unknown, name = 'wsp.json', mode = 0o600): string {
  const path = join(folder, `${++files}-${name}`)
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content), { mode })
  return path
}

async function node(content: unknown): Promise<NodeConfig> {
  return await loadConfig(file(content), 'node')
}

async function server(content: unknown): Promise<ServerConfig> {
  return await loadConfig(file(content), 'server')
}

async function problemsOf(content: unknown, role?: 'server' | 'node'): Promise<string[]> {
  return (await readConfig(file(content), role)).problems.map(describeProblem)
}

describe("wsp's file of a server", () => {
  test('the smallest one: a port, and the WebSocket at the root', async () => {
    const config = await server('{\n    "port": 8010\n}')
    assert.deepEqual(config.values, { port: '8010', host: 'tcp://', path: '/' })
    assert.deepEqual(config.wsp, { ownName: undefined, allow: undefined })
  })

  test('everything, with keys in any case', async () => {
    const config = await server({
      Port: 443,
      AUTH: 'the secret',
      Path: 'proxy',
      hOst: 'mywsps.com',
      SSL: { Enable: true, KEY: 'key.pem', cert: '/etc/cert.pem' },
      log: { Level: 'TRACE', Output: 'wsp.log' },
      allow: ['10.0.0.0/8:*', 'example.com:443'],
    })
    assert.deepEqual(config.values, {
      port: '443',
      host: 'tcp://',
      path: '/proxy',
      uuid: 'the secret',
      cert: '/etc/cert.pem',
      key: join(folder, 'key.pem'),
      'log-level': 'trace',
      'log-file': join(folder, 'wsp.log'),
      allow: ['10.0.0.0/8:*', 'example.com:443'],
    })
    assert.deepEqual(config.wsp, { ownName: 'mywsps.com', allow: ['10.0.0.0/8:*', 'example.com:443'] })
  })

  test('what is empty, null or switched off is as if it were not there', async () => {
    const config = await server({
      port: 80,
      path: '',
      auth: '',
      host: null,
      ssl: { enable: false, key: 'k', cert: '' },
      log: { output: 'stdout' },
    })
    assert.deepEqual(config.values, { port: '80', host: 'tcp://', path: '/' })
    assert.deepEqual(config.warnings, [])
    assert.deepEqual((await server({ port: 80, path: '/a' })).values.path, '/a')
  })

  test('an empty list of what nodes may dial is not none at all', async () => {
    assert.deepEqual((await server({ port: 80, allow: [] })).wsp?.allow, [])
  })
})

describe("the server's own name", () => {
  const table: readonly (readonly [written: string, read: string])[] = [
    ['MyWSPS.com', 'mywsps.com'],
    ['mywsps.com.', 'mywsps.com'],
    ['MYWSPS.COM.:8010', 'mywsps.com'],
    ['bücher.example', 'xn--bcher-kva.example'],
    ['192.0.2.1:80', '192.0.2.1'],
    ['2001:DB8::1', '[2001:db8::1]'],
    ['[2001:db8:0::1]:443', '[2001:db8::1]'],
  ]
  for (const [written, read] of table) {
    test(`${written} is ${read}`, async () => {
      assert.equal((await server({ host: written, auth: 'x' })).wsp?.ownName, read)
    })
  }
})

describe("wsp's file of a node", () => {
  test("the seed's examples", async () => {
    const url = 'ws://mywsps.com:8010'
    const remote = [
      'http://127.0.0.1:8080?mode=path&value=api',
      'http://127.0.0.1:8080?mode=domain&value=customwsp.com',
      'http://127.0.0.1:8080/api/?mode=domain&value=customapi.com',
      'tcp://127.0.0.1:5900?mode=path&value=vnc',
      'tcp://ssh:ssh@192.168.1.200:22',
      'tunnel://work_tunnel:password@',
    ]
    const { clients, wsp } = await node({
      client: [
        { server: url, dynamic: ['http://:80', 'socks5://:1080'] },
        { server: url, Remote: remote, auth: 'secret' },
        { server: 'wss://a.example/b', local: ['tcp://ssh:ssh@127.0.0.1:2200'] },
      ],
    })
    assert.equal(wsp, true)
    const expected = [
      { server: `${url}/`, secret: undefined, dynamic: ['http://:80', 'socks5://:1080'], local: [], remote: [] },
      { server: `${url}/`, secret: 'secret', dynamic: [], local: [], remote },
      {
        server: 'wss://a.example/b',
        secret: undefined,
        dynamic: [],
        local: ['tcp://ssh:ssh@127.0.0.1:2200'],
        remote: [],
      },
    ]
    for (const [i, { key, secretAdvice, allow, ...entry }] of clients.entries()) {
      assert.deepEqual(entry, expected[i])
      assert.equal(key, `client[${i}]`)
      assert.deepEqual(allow, [])
      assert.match(secretAdvice, new RegExp(`^add "auth" to client\\[${i}\\]: `))
    }
    assert.equal(clients.length, expected.length)
  })

  test('the same name twice at one server: the first one wins, with a warning', async () => {
    const url = 'ws://mywsps.com:8010'
    const { clients, warnings } = await node({
      client: [
        {
          server: url,
          remote: [
            'http://127.0.0.1:8080?mode=path&value=api',
            'http://127.0.0.1:8080/api/?mode=path&value=api',
            'tcp://a:1?mode=path&value=/api',
            'tunnel://ssh:x@',
          ],
        },
        { server: `${url}/`, remote: ['tcp://ssh:y@h:22', 'tcp://other:y@h:22'] },
        { server: 'ws://elsewhere:8010', remote: ['tcp://ssh:y@h:22'] },
      ],
    })
    assert.deepEqual(
      clients.map(({ remote }) => remote),
      [['http://127.0.0.1:8080?mode=path&value=api', 'tunnel://ssh:x@'], ['tcp://other:y@h:22'], ['tcp://ssh:y@h:22']],
    )
    assert.deepEqual(warnings, [
      'client[0].remote[1]: /api is registered by client[0].remote[0] already: left out',
      'client[0].remote[2]: /api is registered by client[0].remote[0] already: left out',
      'client[1].remote[0]: channel ssh is registered by client[0].remote[3] already: left out',
    ])
  })

  test('unknown keys are warned of, with the nearest known one', async () => {
    const { warnings } = await node({
      cleint: [],
      port: 1,
      log: { levle: 'info' },
      client: [{ server: 'ws://a:1', remot: [] }],
    })
    assert.deepEqual(warnings, [
      'cleint: unknown key, left out: did you mean client?',
      'port: unknown key, left out: it is for the file of a server',
      'log.levle: unknown key, left out: did you mean level?',
      'client[0].remot: unknown key, left out: did you mean remote?',
    ])
  })

  test('allow stands in an entry, or above all of them', async () => {
    const { clients, values } = await node({
      client: [{ server: 'ws://a:1', Allow: '10.0.0.0/8:*' }, { server: 'ws://b:1' }],
      allow: ['127.0.0.1:80'],
    })
    assert.deepEqual(
      clients.map(({ allow }) => allow),
      [['10.0.0.0/8:*'], []],
    )
    assert.deepEqual(values.allow, ['127.0.0.1:80'])
  })

  test('a file that everybody may read is warned of, if there is a secret or a password in it', async () => {
    const exposed = async (entry: object): Promise<boolean> => {
      const path = file({ client: [{ server: 'ws://a:1', ...entry }] }, 'x.json', 0o644)
      return (await loadConfig(path, 'node')).warnings.some((warning) => /chmod 600/.test(warning))
    }
    assert.equal(await exposed({}), false)
    assert.equal(await exposed({ auth: 'x' }), true)
    assert.equal(await exposed({ local: ['tcp://ssh:pw@:1'] }), true)
  })
})

describe('what is wrong is told with its line and column', () => {
  test('all of it, and no secret', async () => {
    const problems = await problemsOf(`{
  "log": {"level": "debg", "output": 5},
  "client": [
    {"server": 5, "remote": ["tcp://ssh:hunter2@h", 7, ""], "local": {"a": 1}, "auth": true},
    "x", {"remote": "tcp://ssh:hunter2", "Server": "ftp://hunter2@x", "dynamic": ["1080", "abc"]},
    {}
  ], "allow": ["nope"]
}`)
    assert.doesNotMatch(problems.join('\n'), /hunter2/)
    assert.deepEqual(problems.map((problem) => problem.replace(/(column \d+: ).{12}(.+)$/, '$1')).sort(), [
      'allow[0]: line 7, column 16: ',
      'client[0].auth: line 4, column 88: ',
      'client[0].local: line 4, column 70: ',
      'client[0].remote[0]: line 4, column 30: ',
      'client[0].remote[1]: line 4, column 53: ',
      'client[0].remote[2]: line 4, column 56: it is empty',
      'client[0].server: line 4, column 16: ',
      'client[1]: line 5, column 5: ',
      'client[2].Server: line 5, column 52: ',
      'client[2].dynamic[1]: line 5, column 91: ',
      'client[2].remote: line 5, column 21: ',
      'client[3]: line 6, column 5: ',
      'log.level: line 2, column 20: ',
      'log.output: line 2, column 38: ',
    ])
  })

  const table: readonly (readonly [text: unknown, ...problems: RegExp[]])[] = [
    ['{"port": "80x"}', /^port: line 1, column 10: port "80x" is not a number/],
    ['{"port": 70000}', /^port: .*out of range/],
    ['{"port": {}}', /^port: .*a port is a number/],
    ['{"port": 1, "PORT": 2}', /^PORT: line 1, column 21: port is given twice/],
    ['{"auth": {}}', /^auth: .*write text, in quotes/],
    ['{"auth": "  "}', /^auth: .*the secret is empty/],
    ['{"path": "a b"}', /^path: .*a path has no spaces/],
    ['{"host": "a/b"}', /^host: .*is not the name of a host/],
    ['{"host": "127.1", "auth": "x"}', /^host: .*is not the name of a host/],
    ['{"host": "*.example.com", "auth": "x"}', /^host: .*is not the name of a host/],
    ['{"auth": "x", "alow": ["10.0.0.0/8:*"]}', /^alow: .*did you mean allow\?$/],
    ['{"client": [{"server": "ws://a:1", "Alow": []}]}', /^client\[0\]\.Alow: .*did you mean allow\?$/],
    ['{"client": [{"server": "ws://a:1", "allow": []}]}', /^client\[0\]\.allow: .*it is empty/],
    ['{"client": [{"server": "ws://a:1"}], "allow": []}', /^allow: .*it is empty/],
    ['{"ssl": true}', /^ssl: .*write a table/],
    ['{"ssl": {"enable": "yes"}}', /^ssl\.enable: .*write true or false/],
    ['{"ssl": {"enable": true, "key": "k"}}', /^ssl: line 1, column 9: cert is missing/],
    ['{"log": []}', /^log: .*write a table/],
    ['{"client": []}', /^client: .*it names no server/],
    ['{"client": null}', /^client: .*it names no server/],
    ['{"client": [[]]}', /^client\[0\]: .*write a table/],
    ['{"client": [{"server": "http://a"}]}', /^client\[0\]\.server: .*unknown transport "http"/],
  ]
  for (const [text, ...problems] of table) {
    test(String(text), async () => {
      const found = await problemsOf(text)
      assert.equal(found.length, problems.length, found.join('\n'))
      for (const [i, problem] of problems.entries()) assert.match(found[i] ?? '', problem)
    })
  }

  test("the seed's own example, which has a full-width comma in it", async () => {
    const seed =
      '{\n  "client": [\n    {\n      "server": "ws://wsp1.com:8010",\n      "local": []\n    }，\n    {}\n  ]\n}'
    await assert.rejects(readConfig(file(seed)), {
      code: 'PROXY_ERR_CONFIG',
      message: /: line 6, column 6: malformed JSON: a full-width "，" stands there: write ","$/,
    })
    await assert.rejects(readConfig(file('{"port"：1}')), { message: /a full-width "：" stands there: write ":"$/ })
    await assert.rejects(readConfig(file('{“port”: 1}')), { message: /a full-width "“" stands there: write """$/ })
  })

  test('malformed JSON shows nothing of a text that may be a password', async () => {
    for (const text of [
      '{"client": ["tcp://ssh:x" "hunter2"]}',
      '{"auth" "hunter2"}',
      '{"auth": "\thunter2"}',
      '{"auth": "\\qhunter2"}',
      '{"auth": "hunter2',
      '{"auth": x:hunter2@y}',
    ]) {
      await assert.rejects(readConfig(file(text)), (error: Error) => !error.message.includes('hunter2'), text)
    }
  })
})

describe('which files are those of wsp', () => {
  const isWsp = async (content: unknown, name?: string): Promise<boolean> => {
    const { config } = await readConfig(file(content, name))
    return Boolean(config?.wsp)
  }

  test('those whose keys wsp knows', async () => {
    assert.equal(await isWsp({ port: 1 }), true)
    assert.equal(await isWsp({ Port: 1, log: { level: 'info' } }), true)
    assert.equal(await isWsp({ auth: 'x', whatever: 1 }), true)
    assert.equal(await isWsp({ client: [{ server: 'ws://a:1' }] }, 'noextension'), true)
    assert.equal(await isWsp({ client: [{ server: 'ws://a:1', ALLOW: ['a:1'], foo: 1 }], Foo: 1 }), true)
  })

  test('not ours, which have other keys, or are TOML', async () => {
    assert.equal(await isWsp({ port: 1, uuid: 'x' }), false)
    assert.equal(await isWsp({ port: 1, role: 'server' }), false)
    assert.equal(await isWsp({ port: 1, log: { file: 'x' } }), false)
    assert.equal(await isWsp({ client: [{ server: 'a:1', 'uuid-file': 'x' }] }), false)
    assert.equal(await isWsp({ client: [{ server: 'a:1', id: 'x' }] }), false)
    assert.equal(await isWsp('port = 1', 'x.toml'), false)
    assert.deepEqual(await problemsOf({ port: 1, uid: 'x' }), ['uid: unknown key: did you mean uuid?'])
  })

  test('a key that nobody knows is left out, with a warning, in any case of letters', async () => {
    for (const key of ['port', 'Port', 'PORT']) {
      for (const foo of ['foo', 'Foo', 'comment']) {
        const { wsp, warnings } = await server({ [key]: 8010, [foo]: 1 })
        assert.notEqual(wsp, undefined)
        assert.equal(warnings.at(-1)?.startsWith(`${foo}: unknown key, left out: `), true, warnings.join('\n'))
      }
    }
  })

  test('a typo in a file of ours is an error, and opens nothing', async () => {
    const typos = ['alow', 'Alow', 'prot', 'hots', 'uid', 'UUID', 'uuid_fil', 'mappings', 'maping', 'alow-ports', 'rol']
    for (const typo of [...typos, 'log-level', 'cert', 'loglevel', 'enroled-only', 'domian', 'clients']) {
      const { config, problems } = await readConfig(file({ port: 8010, [typo]: 'x' }), 'server')
      assert.equal(config, undefined, typo)
      assert.match(problems.map(describeProblem).join('\n'), /unknown key|uuid-fil/i, typo)
    }
    for (const log of [{ file: 'x' }, { fiel: 'x' }]) assert.equal(await isWsp({ port: 1, log }), false)
    for (const typo of ['uid', 'uuid_fil', 'proxi', 'lisetner']) {
      assert.equal(await isWsp({ client: [{ server: 'ws://a:1', [typo]: 'x' }] }), false, typo)
    }
    assert.equal(await isWsp({ client: [{ server: 'ws://a:1' }], lisetner: [] }), false)
  })

  test('a host that is where to listen is ours, unless something else is certainly of wsp', async () => {
    const places = [
      '127.0.0.1',
      '0.0.0.0',
      '::',
      '[::1]',
      'localhost',
      'LocalHost:8010',
      '',
      '127.0.0.1:8010',
      '[::]:1',
    ]
    for (const host of [...places, '::ffff:10.0.0.1', 'tcp://0.0.0.0', 'fe80::1%eth0', ' 127.0.0.1']) {
      assert.equal(await isWsp({ host, allow: [] }), false, host)
      assert.equal(await isWsp({ Host: host, foo: 1 }), false, host)
    }
    for (const host of ['mywsps.com', 'mywsps.com:8010', '1.example']) assert.equal(await isWsp({ host }), true, host)
    assert.equal(await isWsp({ host: '192.0.2.1', auth: 'x' }), true)
  })

  test('a node finds its server in a file of ours', async () => {
    const ours = { host: 'server.example.com', port: 8925, allow: ['127.0.0.1:80'] }
    assert.equal((await node(ours)).wsp, false)
    assert.equal((await node({ log: { level: 'info' } })).wsp, false)
  })

  test('one that might be ours is warned of, with what it opens', async () => {
    const [line, ...more] = (await server({ port: 1, host: 'mywsps.com' })).warnings
    assert.deepEqual(more, [])
    assert.match(
      line ?? '',
      /^this file is read as one of wsp: .*nodes may dial all but loopback.*"role": "server"[^\n]+$/,
    )
    const { warnings } = await server({ port: 1, allow: ['10.0.0.0/8:*'] })
    assert.match(warnings.join(), /dial 10\.0\.0\.0\/8:\*, and nothing else/)
    for (const mark of [{ auth: 'x' }, { SSL: { enable: false } }, { Path: '' }]) {
      assert.deepEqual((await server({ port: 1, ...mark })).warnings, [])
    }
  })

  test('of the other command, they say so', async () => {
    assert.deepEqual(await problemsOf({ port: 1 }, 'node'), [
      'this is a file of wsp for a server: start "symport server" with it',
    ])
    assert.deepEqual(await problemsOf({ client: [] }, 'server'), [
      'this is a file of wsp for a node: start "symport node" with it',
    ])
  })
})

test('the command line goes first', async () => {
  const config = await server({ port: 8010, path: 'a', auth: 'x', allow: ['a:1'] })
  const flags = {
    host: 'h',
    port: '1',
    path: undefined,
    uuid: undefined,
    'uuid-file': undefined,
    allow: [],
    peer_listener: [],
  }
  assert.deepEqual(mergeConfig(flags, config, { env: {} }), { ...flags, path: '/a', uuid: 'x', allow: ['a:1'] })
})

test('is told in a moment, for files that are made to be slow', async () => {
  const many = (text: string, count: number): string => `[${Array.from({ length: count }, () => text).join(',')}]`
  const slow = [
    `{"client": ${many('{"server": 5, "remote": [7]}', 9000)}}`,
    `{"client": [{"server": "ws://a:1", "remote": ${many('"tcp://a:b@c"', 9999)}}]}`,
    `{"client": [{"server": "ws://a:1", "remote": ${many('"tcp://a:b@c:1"', 9999)}}]}`,
    `{"client": [{"server": "ws://a:1", "remote": ${many('"a"', 20_000)}}]}`,
    `{"client": [{"server": "${'\\\\'.repeat(300_000)}"}]}`,
    `{"auth": "x", ${Array.from({ length: 50_000 }, (_, i) => `"porrt${i}": 1`).join()}}`,
  ]
  const started = performance.now()
  for (const text of slow) {
    const { problems, config } = await readConfig(file(text))
    assert.ok(problems.length > 0 || (config?.warnings.length ?? 0) > 0)
    assert.ok(problems.every((problem) => describeProblem(problem).length < 500))
  }
  assert.ok(performance.now() - started < 8000)
})
