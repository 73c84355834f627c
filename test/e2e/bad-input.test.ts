import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { keptAtHome, run } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { Stage } from '../helpers/system/stage.ts'
import { symportEnvironment } from '../helpers/system/symport.ts'

interface Case {
  readonly what: string
  readonly args: readonly string[]
  /** What the line says after `symport: `. */
  readonly says: RegExp
  readonly env?: NodeJS.ProcessEnv
  /** What stands in the file that the arguments call FILE. */
  readonly file?: string
}

const GOOD = '0:127.0.0.1:80'
const json = (listen: string, forward: string): string =>
  `{"Listen":{"Domain":"tcp","Addr":"${listen}"},"Forward":{"Domain":"tcp","Addr":"${forward}"}}`

const CASES: readonly Case[] = [
  {
    what: 'malformed listener JSON, with the position',
    args: ['server', '--listener', '{"Listen":{"Domain":"tcp","Addr":":0"},"Forward":{"Domain":"tcp","Addr" "x"}}'],
    says: /^bad SPEC .*: malformed JSON at character 73: expected ':' before ".*"$/,
  },
  {
    what: 'JSON that ends too early',
    args: ['server', '-peer_listener', '{"Listen":{"Domain":"tcp","Addr":":0"}'],
    says: /^bad SPEC .*: malformed JSON at character 39: expected ',' or '}' at the end$/,
  },
  {
    what: 'a missing half',
    args: ['server', '--listener', '{"Listen":{"Domain":"tcp","Addr":":0"}}'],
    says: /^bad SPEC .*: the key "Forward" is missing$/,
  },
  {
    what: 'an unknown key, with the nearest',
    args: ['server', '--listener', json(':0', ':80').replace('Forward', 'Froward')],
    says: /^bad SPEC .*: (unknown key "Froward": did you mean "Forward"\?|the key "Forward" is missing.*)$/,
  },
  {
    what: 'a value of the wrong type',
    args: ['server', '--listener', json(':0', ':80').replace('":80"', '80')],
    says: /^bad SPEC .*: Forward\.Addr is not a string in quotes$/,
  },
  {
    what: 'an unknown domain, with the nearest',
    args: ['server', '--listener', 'tpc://127.0.0.1:0,tcp://127.0.0.1:80'],
    says: /^bad SPEC .*: Listen: unknown domain "tpc": did you mean tcp\? \(known: tcp, udp, unix, socks5, http, mixed, tls, web, ws, channel\)$/,
  },
  {
    what: 'an unknown flag, with the nearest',
    args: ['server', '--listner', GOOD],
    says: /^unknown flag --listner: did you mean --listener\?$/,
  },
  {
    what: 'an unknown flag with one dash',
    args: ['node', '-hots', '127.0.0.1'],
    says: /^unknown flag -hots: did you mean --host\?$/,
  },
  {
    what: 'an unknown command, with the nearest',
    args: ['sever', '--port', '0'],
    says: /^unknown command "sever": did you mean "symport server"\?$/,
  },
  { what: 'a port out of range', args: ['server', '--port', '70000'], says: /^--port: port 70000 is out of range.*$/ },
  { what: 'a port that is no number', args: ['node', '-port', '9x'], says: /^--port: port "9x" is not a number.*$/ },
  { what: 'the port 0 of a node', args: ['node', '--port', '0'], says: /^--port: port 0 is out of range.*$/ },
  {
    what: 'a port out of range in a SPEC',
    args: ['server', '--listener', '0:127.0.0.1:65536'],
    says: /^bad SPEC .*: Forward: port 65536 is out of range \(1 to 65535\)$/,
  },
  {
    what: 'the port 0 to forward to',
    args: ['forward', '0:127.0.0.1:0'],
    says: /^bad SPEC .*: Forward: port 0 is out of range \(1 to 65535\)$/,
  },
  { what: 'an empty secret', args: ['server', '--uuid', ''], says: /^--uuid: the secret is empty.*$/ },
  { what: 'an empty secret after =', args: ['node', '-uuid='], says: /^--uuid: the secret is empty.*$/ },
  {
    what: 'an empty secret in the environment',
    args: ['server'],
    env: { SYMPORT_UUID: ' ' },
    says: /^SYMPORT_UUID: the secret is empty.*$/,
  },
  {
    what: 'an empty secret file',
    args: ['node', '--uuid-file', 'EMPTY'],
    says: /^--uuid-file: the secret is empty.*$/,
  },
  {
    what: 'quotes that the shell has eaten, with the form that needs none',
    args: ['server', '--listener', json('127.0.0.1:13389', '127.0.0.1:3389').replaceAll('"', '')],
    says: /^bad SPEC .*: the JSON has lost its quotes.*: write 127\.0\.0\.1:13389:127\.0\.0\.1:3389 instead$/,
  },
  { what: 'a missing value', args: ['server', '--listener'], says: /^flag --listener needs a value.*$/ },
  {
    what: 'a flag in the place of a value',
    args: ['server', '--uuid', '--port', '925'],
    says: /^flag --uuid needs a value.*$/,
  },
  { what: 'a flag given twice', args: ['server', '--port', '1', '-port', '2'], says: /^flag --port is given twice.*$/ },
  { what: 'a bad pattern', args: ['server', '--allow', '127.0.0.1'], says: /^bad pattern "127\.0\.0\.1": .+$/ },
  { what: 'a bad CIDR', args: ['node', '--allow', '10.0.0.0/33:80'], says: /^bad pattern "10\.0\.0\.0\/33:80": .+$/ },
  { what: 'bad ports', args: ['server', '--allow-ports', '9000-8000'], says: /^bad ports "9000-8000": .+$/ },
  {
    what: 'a bad duration',
    args: ['server', '--drain-timeout', '30'],
    says: /^--drain-timeout: "30" is not a duration: write 30s, 2m or 500ms$/,
  },
  {
    what: 'a bad log level',
    args: ['node', '--log-level', 'loud'],
    says: /^--log-level: "loud" is not one of trace, debug, info, warn, error, silent$/,
  },
  {
    what: 'two servers',
    args: ['node', '--host', '127.0.0.1', 'tcp://127.0.0.2:925'],
    says: /^the server is named with --host and without: keep one, or write several URLs without a flag$/,
  },
  {
    what: '--uuid and --uuid-file',
    args: ['server', '--uuid', 'a', '--uuid-file', 'EMPTY'],
    says: /^--uuid and --uuid-file are both given: keep one$/,
  },
  {
    what: 'a path that is not absolute',
    args: ['forward', 'unix://x.sock,tcp://127.0.0.1:80'],
    says: /^bad SPEC .*: Listen: the path "x\.sock" is not absolute: write unix:\/\/\/path\/to\/socket$/,
  },
  {
    what: 'an unknown transport, with the nearest',
    args: ['node', 'tcpp://127.0.0.1:925'],
    says: /^the server: unknown transport "tcpp": did you mean tcp:\/\/\?$/,
  },
  { what: 'a word too many', args: ['server', '925'], says: /^there is nothing to do with "925": see --help$/ },
  { what: 'an id with a space', args: ['node', '--id', 'a b'], says: /^--id: .+$/ },
  { what: 'forward without a SPEC', args: ['forward'], says: /^forward what\? .+$/ },
  {
    what: 'a bad SPEC behind a good one: nothing is bound',
    args: ['forward', 'unix://BOUND,tcp://127.0.0.1:80', '127.0.0.1'],
    says: /^bad SPEC "127\.0\.0\.1": .+$/,
  },
  {
    what: 'a line break in a value',
    args: ['server', '--listener', 'tcp://a\nb:1,tcp://:2'],
    says: /^bad SPEC "tcp:\/\/a b:1,tcp:\/\/:2": .+$/,
  },
  {
    what: '-D without a port',
    args: ['node', '-D', 'socks5://work:hunter2@127.0.0.1'],
    says: /^bad SPEC "…@127\.0\.0\.1": "127\.0\.0\.1" has no port: write host:port$/,
  },
  {
    what: '-D with what is for -R',
    args: ['node', '-D', 'mixed://:1080?mode=path&value=x'],
    says: /^bad SPEC ".*": mode is for what is offered with -R \(remote\)$/,
  },
  {
    what: '-L of a channel without a name',
    args: ['node', '-L', 'tcp://:hunter2@127.0.0.1:2200'],
    says: /^bad SPEC "…@127\.0\.0\.1:2200": it has one endpoint, and names no channel: write [^\n]+$/,
  },
  {
    what: '-L of a channel without a port',
    args: ['node', '-L', 'udp://dns:hunter2@127.0.0.1'],
    says: /^bad SPEC "…@127\.0\.0\.1": "127\.0\.0\.1" has no port: write host:port$/,
  },
  {
    what: '-R with an unknown mode',
    args: ['node', '-R', 'http://127.0.0.1:8080?mode=pth&value=api'],
    says: /^bad SPEC ".*": unknown mode "pth": did you mean path\?$/,
  },
  {
    what: '-R with an empty value',
    args: ['node', '-R', 'tcp://127.0.0.1:5900?mode=path&value='],
    says: /^bad SPEC ".*": the value is empty: it says what stands in the URL at the server$/,
  },
  {
    what: '-R of a tunnel without the @',
    args: ['node', '-R', 'tunnel://work:hunter2'],
    says: /^bad SPEC "tunnel:\/\/…": it names no channel: write tunnel:\/\/CHANNEL:PASSWORD@, with the @$/,
  },
  {
    what: 'a file of wsp with a wrong URL, and where in the file it is',
    args: ['node', '-c', 'FILE'],
    file: '{"client":[{"server":"ws://127.0.0.1:1","auth":"hunter2","remote":["https://h?mode=zzz&value=x"]}]}',
    says: /^\S*FILE: client\[0\]\.remote\[0\]: (?:line 1, column \d+: )?bad SPEC ".*": unknown mode "zzz": path and domain are known$/,
  },
]

describe('bad input gets one line that says what is wrong, and the status 2:', { concurrency: 3 }, () => {
  for (const [number, { what, args, says, env = {}, file }] of CASES.entries()) {
    // Every eighth in a process of its own.
    const runs = number % 8 === 0 ? run : runHere
    test(what, async (t) => {
      const stage = new Stage(t)
      writeFileSync(stage.path('EMPTY'), '\n')
      if (file !== undefined) writeFileSync(stage.path('FILE'), file, { mode: 0o600 })
      const named = args.map((arg) =>
        arg.replace(/\b(?:EMPTY|FILE)$/, (name) => stage.path(name)).replace('BOUND', stage.path('bound')),
      )
      const { status, stdout, stderr } = await runs(stage, named, { env: symportEnvironment(stage, env) })
      assert.match(stderr, /^symport: [^\n]+$/)
      assert.match(stderr.slice('symport: '.length), says)
      assert.doesNotMatch(stderr, /hunter2/)
      assert.deepEqual({ status, stdout }, { status: 2, stdout: '' })
      assert.deepEqual(keptAtHome(stage), [], 'no state is kept')
      assert.ok(!existsSync(stage.path('bound')), 'nothing is bound')
    })
  }
})

describe('help', { concurrency: 3 }, () => {
  for (const args of [[], ['--help'], ['-h'], ['help'], ['server', '--help'], ['node', '-help'], ['--version']]) {
    test(`symport ${args.join(' ')} ends with 0 and writes on standard output only`, async (t) => {
      const stage = new Stage(t)
      const { status, stdout, stderr } = await (args.length === 1 ? runHere : run)(stage, args)
      assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
      assert.match(stdout, args[0] === '--version' ? /^\d+\.\d+\.\d+\n$/ : /symport (server|node) /)
    })
  }

  test('every command that the overview names has examples', async (t) => {
    const stage = new Stage(t)
    const { stdout } = await runHere(stage, [])
    const names = [...(stdout.split('Commands')[1] ?? '').matchAll(/^ {2}(\w+) /gm)].map(([, name]) => name ?? '')
    assert.ok(names.includes('server') && names.includes('forward'), names.join())
    for (const name of names) {
      const help = await runHere(stage, [name, '--help'])
      assert.equal(help.status, 0)
      assert.match(help.stdout, /Examples:\n {2}.*symport/s, name)
    }
  })
})
