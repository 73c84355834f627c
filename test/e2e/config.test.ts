import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { describe, test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { checkFile } from '../../apps/common/config-schema.ts'
import { boundAt, connectNode, keptAtHome, logLine, run, SECRET, start } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { startEcho, visit } from '../helpers/e2e/talk.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, parseAddress, symportEnvironment } from '../helpers/system/symport.ts'
import { Identity } from '../helpers/transports/authority.ts'

/** Writes a configuration that only its owner can read, and gives its path. */
function config(stage: Stage, name: string, text: string): string {
  writeFileSync(stage.path(name), text, { mode: 0o600 })
  return stage.path(name)
}

describe('symport check', { concurrency: 3 }, () => {
  test('says ok and what a good file does, and starts nothing', async (t) => {
    const stage = new Stage(t)
    const path = config(
      stage,
      'server.toml',
      `host = "127.0.0.1:8925"
      uuid = "${SECRET}"
      admin.listen = "127.0.0.1:9251"
      domain = "example.com"
      allow-ports = "9000-9009"
      http.caddy = "http://127.0.0.1:2019"
      node-limits.out = "10Mbit/s"
      [[mapping]]
      listen = ":8078"
      forward = "127.0.0.1:8077"
      node = "nobody-knows-this-one"
      [[mapping]]
      listen = ":8079"
      forward = "127.0.0.1:8077"
      enabled = false
      [[mapping]]
      listen = ":8078/udp"
      forward = "127.0.0.1:8077/udp"`,
    )
    const { status, stdout, stderr } = await run(stage, ['check', path])
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
    assert.equal(
      stdout,
      `${path}: ok, for a server
  nodes connect to 127.0.0.1:8925
  nodes get names below example.com
  nodes may have these ports: 9000-9009
  Caddy at http://127.0.0.1:2019 gets a route for each name
  each node without limits of its own: out 1.25MB/s
  3 mappings listen here (1 switched off)
    tcp://:8078 -> tcp://127.0.0.1:8077
    tcp://:8079 -> tcp://127.0.0.1:8077
    udp://:8078 -> udp://127.0.0.1:8077
  the API listens on 127.0.0.1:9251
`,
    )
    const json = await runHere(stage, ['check', '--json', path])
    assert.equal(json.status, 0)
    const { ok, role, problems } = JSON.parse(json.stdout)
    assert.deepEqual({ ok, role, problems }, { ok: true, role: 'server', problems: [] })
    assert.deepEqual(keptAtHome(stage), [])
  })

  test('says of a file of wsp that it is one, and what it does, without its passwords', async (t) => {
    const stage = new Stage(t)
    const path = config(
      stage,
      'wspc.json',
      `{"client": [
        {"Server": "ws://mywsps.com:8010", "auth": "hunter2", "dynamic": ["socks5://:11080"], "remots": [],
         "remote": ["http://127.0.0.1:8080?mode=path&value=api", "http://127.0.0.1:8080/api/?mode=path&value=api"]},
        {"server": "wss://other.example/x", "local": ["tcp://ssh:hunter2@127.0.0.1:2200"],
         "remote": ["tunnel://work@"]}]}`,
    )
    const { status, stdout, stderr } = await runHere(stage, ['check', path])
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
    assert.equal(
      stdout,
      `${path}: warning: client[0].remots: unknown key, left out: did you mean remote?
${path}: warning: client[0].remote[1]: /api is registered by client[0].remote[0] already: left out
${path}: warning: client[1]: there is no secret: add "auth" to client[1]: it is the "auth" of the server's file, or what "symport uuid" shows there
${path}: ok, a file of wsp, for a node
  connects to ws://mywsps.com:8010/
  connects to wss://other.example:443/x
  SERVER                     LISTENS     AT                            LEADS TO
  ws://mywsps.com:8010/      this side   socks5://:11080               whatever is asked for
  ws://mywsps.com:8010/      the server  web:///api                    tcp://127.0.0.1:8080
  wss://other.example:443/x  this side   tcp://127.0.0.1:2200          channel://ssh (with its password)
  wss://other.example:443/x  the server  channel://work (no password)  whatever is asked for
`,
    )
    const server = config(stage, 'wsps.json', '{"PORT": 18010, "host": "mywsps.com", "allow": ["10.0.0.0/8:*"]}')
    assert.equal(
      (await runHere(stage, ['check', server])).stdout,
      `${server}: warning: this file is read as one of wsp: as in wsp, nodes may dial 10.0.0.0/8:*, and nothing else, register channels, and take names of the web port; with "role": "server" it is symport's own, and allows only what it names
${server}: ok, a file of wsp, for a server
  nodes connect to :18010
  the WebSocket is at /
  its own name is mywsps.com
  nodes may dial: 10.0.0.0/8:*
`,
    )
    const json = await runHere(stage, ['check', '--json', server])
    const { ok, kind, role } = JSON.parse(json.stdout)
    assert.deepEqual({ ok, kind, role }, { ok: true, kind: 'wsp', role: 'server' })
  })

  test('says all that is wrong, a line each, with the status 2', async (t) => {
    const stage = new Stage(t)
    const path = config(stage, 'node.json', '{"id": "a b", "prot": 1, "uuid": "symport_hunter2", "tls": {"ca": 5}}')
    const { status, stdout, stderr } = await runHere(stage, ['check', path])
    assert.deepEqual({ status, stderr }, { status: 2, stderr: '' })
    assert.deepEqual(stdout.trimEnd().split('\n').sort(), [
      `${path}: id: an id has 1 to 64 bytes, and no spaces`,
      `${path}: prot: unknown key: did you mean port?`,
      `${path}: tls.ca: write text, in quotes`,
      `${path}: uuid: the token is damaged: copy the whole line of "symport uuid"`,
    ])
    const json = await runHere(stage, ['check', path, '--json'])
    assert.equal(json.status, 2)
    const { ok, problems } = JSON.parse(json.stdout)
    assert.equal(ok, false)
    assert.equal(problems.length, 4)
    const other = await runHere(stage, ['check', '--role', 'server', path])
    assert.match(other.stdout, /: id: unknown key: it is for a node$/m)
  })

  test('says where a file stops being TOML, and that there is none', async (t) => {
    const stage = new Stage(t)
    const path = config(stage, 'x.toml', 'port = 1\nhost =\n')
    const bad = await runHere(stage, ['check', path])
    assert.deepEqual(bad, {
      status: 2,
      stdout: `${path}: line 2, column 7: malformed TOML: invalid value\n`,
      stderr: '',
    })
    const none = await runHere(stage, ['check', stage.path('none')])
    assert.deepEqual(none, { status: 2, stdout: `${stage.path('none')}: there is no such file\n`, stderr: '' })
  })

  test('notices what no schema can', async (t) => {
    const stage = new Stage(t)
    const path = config(
      stage,
      'server.toml',
      `port = 8925
      uuid-file = "none.txt"
      domain = "example.com"
      tls = { cert = "cert.pem", key = ".", acme-email = "a@b.example", acme-ca = "ca.pem", acme-dns-hook = "hook" }
      [[mapping]]
      listen = ":8078"
      forward = ":1"
      [[mapping]]
      listen = "127.0.0.1:8078"
      forward = ":2"
      [[listener]]
      listen = "127.0.0.1:8925"
      forward = ":3"`,
    )
    const { status, stdout } = await runHere(stage, ['check', path])
    assert.equal(status, 2)
    assert.deepEqual(stdout.trimEnd().split('\n'), [
      `${path}: uuid-file: ${stage.path('none.txt')}: there is no such file`,
      `${path}: tls.cert: ${stage.path('cert.pem')}: there is no such file`,
      `${path}: tls.key: ${stage.path('')}: it is a folder`.replace(/\/: /, ': '),
      `${path}: tls.acme-ca: ${stage.path('ca.pem')}: there is no such file`,
      `${path}: tls.acme-dns-hook: ${stage.path('hook')}: there is no such file`,
      `${path}: listener[0].listen: tcp://127.0.0.1:8925: the port for nodes listens there`,
      `${path}: mapping[1].listen: tcp://127.0.0.1:8078: mapping[0].listen listens there`,
    ])
    const bad = config(stage, 'bad.toml', 'host = "ftp://x"')
    assert.match((await runHere(stage, ['check', bad])).stdout, /: host: unknown transport "ftp"/)
  })

  test('warns of a secret that others can read or guess, and of ports that need root', async (t) => {
    const stage = new Stage(t)
    const path = config(stage, 'server.toml', 'uuid = "123456"\nmapping = {listen = ":80", forward = ":8080"}')
    chmodSync(path, 0o644)
    const { status, stdout } = await runHere(stage, ['check', path])
    assert.equal(status, 0)
    assert.match(stdout, /warning: .* holds a secret, and every user of this machine can read it: chmod 600$/m)
    assert.match(stdout, /warning: uuid: this secret can be guessed/)
    const root = process.getuid?.() === 0
    assert.equal(/warning: mapping\[0\]\.listen: port 80 needs root/.test(stdout), !root)
    assert.doesNotMatch(stdout, /123456/)
  })

  test('takes one file, and a role that there is', async (t) => {
    const stage = new Stage(t)
    for (const args of [[], ['a', 'b'], [''], ['a', '--role', 'x']]) {
      const { status, stdout, stderr } = await runHere(stage, ['check', ...args])
      assert.deepEqual({ status, stdout }, { status: 2, stdout: '' })
      assert.match(stderr, /^symport: .+$/)
    }
  })
})

describe('--config', { concurrency: 3 }, () => {
  test('runs a server and a node by files alone', async (t) => {
    const stage = new Stage(t)
    const echo = parseAddress(await startEcho(stage))
    config(stage, 'secret.txt', SECRET)
    const serverFile = config(
      stage,
      'server.toml',
      `host = "127.0.0.1"
      port = 0
      uuid-file = "secret.txt"
      state = "server-state"
      [[mapping]]
      listen = "127.0.0.1:0"
      forward = "${echo.host}:${echo.port}"
      node = "home"
      note = "by a file"`,
    )
    const server = await start(stage, ['server', '--config', serverFile])
    const at = parseAddress((await logged(server, 'listening')).address)
    const nodeFile = config(
      stage,
      'node.json',
      JSON.stringify({
        server: `tcp://${at.host}:${at.port}`,
        id: 'home',
        uuid_file: 'secret.txt',
        state: 'node-state',
      }),
    )
    const node = await start(stage, ['node', '-c', nodeFile])
    await logged(node, 'connected')
    assert.equal(await visit(stage, await boundAt(server)), 'hello')
  })

  test('takes files of wsp as they are: ssl, no auth, names given twice, a server named twice', async (t) => {
    const stage = new Stage(t)
    const certificate = Identity.create('of the file')
    config(stage, 'cert.pem', certificate.cert)
    config(stage, 'key.pem', certificate.key)
    const ssl = { enable: true, key: 'key.pem', cert: 'cert.pem' }
    const secure = config(stage, 'wsps.json', JSON.stringify({ Port: 0, auth: SECRET, SSL: ssl }))
    const plain = config(stage, 'plain.json', '{"port": 0}')
    const server = await start(stage, ['server', '-c', secure, '--state', stage.path('server')])
    const other = await start(stage, ['server', '-c', plain, '--state', stage.path('other')])
    const opens = await logLine(other, 'what it opens', ({ msg }) => /^this file is read as one of wsp: /.test(msg))
    assert.equal(opens.level, 'warn')
    const { port } = parseAddress((await logged(server, 'listening')).address)
    const { port: otherPort } = parseAddress((await logged(other, 'listening')).address)
    const secret = await run(stage, ['uuid', '--state', stage.path('other')])
    const [made] = /symport_\S{20,}/.exec(secret.stdout) ?? []
    assert.ok(made, 'a server without auth makes one')

    const hasIpv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === '::1'))
    for (const host of hasIpv6 ? ['127.0.0.1', '::1'] : ['127.0.0.1']) {
      const socket = connectTls({ host, port, rejectUnauthorized: false })
      await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject))
      assert.equal(socket.getPeerX509Certificate()?.toString(), certificate.cert, host)
      socket.destroy()
    }

    const url = `ws://127.0.0.1:${port}`
    const remote = [
      'http://127.0.0.1:8080?mode=path&value=api',
      'http://127.0.0.1:8080?mode=domain&value=customwsp.com',
      'http://127.0.0.1:8080/api/?mode=path&value=api',
      'http://127.0.0.1:8080/api/?mode=domain&value=customapi.com',
    ]
    const client = [
      { server: url, auth: SECRET, remote },
      { server: url, auth: SECRET },
      { server: `ws://127.0.0.1:${otherPort}`, auth: made },
    ]
    const nodeFile = config(stage, 'wspc.json', JSON.stringify({ client }))
    const node = await start(stage, ['node', '-c', nodeFile, '--state', stage.path('node')])
    const twice = 'client[0].remote[2]: /api is registered by client[0].remote[0] already: left out'
    assert.equal((await logLine(node, 'the second /api', ({ msg }) => msg.includes(twice))).level, 'warn')
    const first = await logged(server, 'node connected')
    const second = await logged(server, 'node connected', 0, ({ address }) => address !== first.address)
    assert.equal(second.node, first.node, 'two instances of one node')
    await logged(other, 'node connected')
  })

  test('with a full-width comma says so on one line', async (t) => {
    const stage = new Stage(t)
    const path = config(stage, 'wspc.json', '{"client": [{"server": "ws://a:1"}，{"server": "ws://b:1"}]}')
    const { status, stdout, stderr } = await runHere(stage, ['node', '-c', path])
    assert.deepEqual({ status, stdout }, { status: 2, stdout: '' })
    assert.match(
      stderr,
      /^symport: [^\n]*wspc\.json: line 1, column 35: [^\n]*full-width "，" stands there: write ","\n?$/,
    )
  })

  test('goes behind the command line', async (t) => {
    const stage = new Stage(t)
    const path = config(stage, 'server.toml', `host = "127.0.0.1"\nport = 1\nlog.level = "error"\nstate = "state"`)
    const server = await start(stage, ['server', '--config', path, '--port', '0', '--log-level', 'info'], {
      env: { SYMPORT_UUID: SECRET },
    })
    const { host, port } = parseAddress((await logged(server, 'listening')).address)
    assert.equal(host, '127.0.0.1')
    assert.notEqual(port, 1)
    await connectNode(stage, { host, port })
  })

  test('with a bad file is an error on one line, and nothing is started or kept', async (t) => {
    const stage = new Stage(t)
    const path = config(stage, 'x.toml', 'port = "x"\nhots = 1')
    for (const command of ['server', 'node']) {
      const { status, stdout, stderr } = await runHere(stage, [command, '--config', path], {
        env: symportEnvironment(stage, { SYMPORT_UUID: SECRET }),
      })
      assert.deepEqual({ status, stdout }, { status: 2, stdout: '' })
      assert.match(
        stderr,
        /^symport: .*x\.toml: port: a port is a number from \d to 65535 \(and 1 more: symport check /,
      )
    }
    assert.deepEqual(keptAtHome(stage), [])
  })

  test('has a key for every flag', async (t) => {
    const stage = new Stage(t)
    const apart = ['help', 'config', 'state', 'listener', 'peer_listener']
    for (const role of ['server', 'node'] as const) {
      const { stdout } = await runHere(stage, [role, '--help'])
      const flags = [...stdout.matchAll(/^ +(?:-\w, )?--([a-z_-]+)( |$)/gm)].map(([, name = '']) => name)
      assert.ok(flags.includes('uuid') && flags.includes('config'), flags.join())
      for (const flag of flags.filter((name) => !apart.includes(name))) {
        // Whichever table it is in, the error about the flag's own name says so.
        const told = checkFile({ [flag.replaceAll('_', '-')]: [] }, role).problems.map(({ message }) => message)
        assert.doesNotMatch(told.join(), /unknown key: (?!write it as)/, `--${flag}`)
      }
    }
  })
})
