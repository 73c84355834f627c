import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Flag, parseFlags, toDuration, toPort } from '../../../../apps/common/flags.ts'

const table = [
  { name: 'host', kind: 'string', help: '', value: 'HOST' },
  { name: 'port', kind: 'string', help: '', value: 'PORT' },
  { name: 'uuid', kind: 'string', help: '', value: 'SECRET' },
  { name: 'config', alias: 'c', kind: 'string', help: '' },
  { name: 'listener', alias: 'L', kind: 'list', help: '', value: 'SPEC' },
  { name: 'peer_listener', alias: 'R', kind: 'list', help: '', value: 'SPEC' },
  { name: 'balance', kind: 'boolean', help: '' },
  { name: 'help', alias: 'h', kind: 'boolean', help: '' },
] as const satisfies readonly Flag[]

const parse = (...argv: string[]) => parseFlags(argv, table)
const rejects = (argv: string[], message: RegExp | string): void =>
  assert.throws(() => parse(...argv), { name: 'ProxyError', code: 'PROXY_ERR_USAGE', message })

test('what is not given is undefined, empty or false', () => {
  assert.deepEqual(parse(), {
    values: {
      host: undefined,
      port: undefined,
      uuid: undefined,
      config: undefined,
      listener: [],
      peer_listener: [],
      balance: false,
      help: false,
    },
    positionals: [],
  })
})

test('takes a flag with one dash or two, and its value behind = or a blank', () => {
  for (const argv of [['--host', 'a'], ['--host=a'], ['-host', 'a'], ['-host=a']]) {
    assert.equal(parse(...argv).values.host, 'a')
  }
})

test("takes the seed's command line", () => {
  const spec = '{"Listen":{"Domain":"tcp","Addr":"127.0.0.1:1022"},"Forward":{"Domain":"tcp", "Addr":"127.0.0.1:22"}}'
  const { values } = parse('-host', '0.0.0.0', '-port', '925', '-uuid', 'testuuid', '-peer_listener', spec)
  assert.equal(values.host, '0.0.0.0')
  assert.equal(values.port, '925')
  assert.equal(values.uuid, 'testuuid')
  assert.deepEqual(values.peer_listener, [spec])
})

test('dashes and underscores in names are the same, and short names are names', () => {
  const argv = ['--peer-listener', 'a', '--peer_listener=b', '-peer-listener', 'c', '-R', 'd', '-R=e', '--R', 'f']
  assert.deepEqual(parse(...argv).values.peer_listener, ['a', 'b', 'c', 'd', 'e', 'f'])
  assert.equal(parse('-c', 'x').values.config, 'x')
  assert.equal(parse('-h').values.help, true)
})

test('values stay the strings they are', () => {
  for (const value of ['007', '0x10', '1e3', 'true', 'false', '', ' ', 'a=b', '{"a":1}', 'a\nb', 'a.b', '-', '—']) {
    assert.equal(parse(`--uuid=${value}`).values.uuid, value)
    assert.equal(parse('--uuid', value).values.uuid, value)
    assert.deepEqual(parse('-L', value, '-L', value).values.listener, [value, value])
  }
})

test('takes a value that begins with a dash, unless it is a known flag', () => {
  assert.equal(parse('--uuid=-host').values.uuid, '-host')
  assert.equal(parse('--uuid', '-secret').values.uuid, '-secret')
  assert.equal(parse('--uuid', '--secret').values.uuid, '--secret')
  rejects(['--uuid', '--host', 'a'], 'flag --uuid needs a value: --uuid SECRET')
  rejects(['--uuid', '-peer-listener=a'], /--uuid needs a value/)
  rejects(['--uuid', '-h'], /--uuid needs a value/)
  rejects(['--uuid', '--', 'a'], /--uuid needs a value/)
  rejects(['--config'], 'flag --config needs a value: --config VALUE')
})

test('positionals stay strings, a dash alone is one, and -- ends the flags', () => {
  assert.deepEqual(parse('007', '--balance', 'true', '-', '--', '--host', '-x', '--').positionals, [
    '007',
    'true',
    '-',
    '--host',
    '-x',
    '--',
  ])
})

test('an unknown flag is an error that names the nearest known one', () => {
  rejects(['--hots', 'a'], 'unknown flag --hots: did you mean --host?')
  rejects(['-prot=1'], 'unknown flag -prot: did you mean --port?')
  rejects(['--peer-listner', 'a'], 'unknown flag --peer-listner: did you mean --peer_listener?')
  rejects(['--Host', 'a'], 'unknown flag --Host: did you mean --host?')
  rejects(['--xyzzy'], 'unknown flag --xyzzy: see --help')
  rejects(['--no-balance'], /unknown flag --no-balance/)
  rejects(['-5'], /unknown flag -5/)
  for (const word of ['--=x', '-=x', '---host=a']) rejects([word], /unknown flag/)
})

test('a flag that may be given once is not taken twice', () => {
  rejects(['--host', 'a', '-host=b'], 'flag --host is given twice: keep one')
  rejects(['--host', 'a', '--host', 'a'], /twice/)
  assert.equal(parse('--balance', '--balance').values.balance, true)
})

test('a boolean takes no value', () => {
  rejects(['--balance=true'], /flag --balance takes no value/)
  rejects(['-h='], /flag --help takes no value/)
})

test('errors show no value', () => {
  for (const argv of [['--uuuid=hunter2'], ['--balance=hunter2'], ['--uuid=hunter2', '--uuid=hunter2']]) {
    assert.throws(
      () => parse(...argv),
      (error: Error) => !error.message.includes('hunter2'),
    )
  }
})

test('no command line reaches a prototype', () => {
  const argvs = ['--__proto__.x', '--__proto__', '--constructor.prototype.x', '-__proto__.x', '--toString', '--host.x']
  for (const name of argvs) {
    rejects([`${name}=polluted`], /unknown flag/)
    rejects([name, 'polluted'], /unknown flag/)
  }
  const { values } = parse('--host', '__proto__', '-L', '__proto__.x=1')
  assert.equal(Object.getPrototypeOf(values), Object.prototype)
  assert.equal('x' in {}, false)
})

test('any values come back in order, however they are written', () => {
  const style = fc.constantFrom('--listener=', '-listener=', '-L=', '--L=')
  fc.assert(
    fc.property(fc.array(fc.tuple(style, fc.string())), fc.array(fc.string()), (given, rest) => {
      const { values, positionals } = parse(...given.map(([flag, value]) => flag + value), '--', ...rest)
      assert.deepEqual(
        values.listener,
        given.map(([, value]) => value),
      )
      assert.deepEqual(positionals, rest)
    }),
  )
})

test('a port is a number from 1 to 65535', () => {
  assert.equal(toPort('925', 'port'), 925)
  assert.equal(toPort('0', 'port', { allowZero: true }), 0)
  const rejects = (text: string, message: string | RegExp): void =>
    assert.throws(() => toPort(text, 'port'), { code: 'PROXY_ERR_USAGE', message })
  rejects('99999', '--port: port 99999 is out of range (1 to 65535)')
  rejects('0', /out of range/)
  rejects('http', /is not a number/)
  rejects('', /missing/)
})

test('a duration has a unit', () => {
  assert.equal(toDuration('30s', 'x'), 30_000)
  assert.equal(toDuration('2m', 'x'), 120_000)
  assert.equal(toDuration('500ms', 'x'), 500)
  assert.equal(toDuration('1.5h', 'x'), 5_400_000)
  assert.equal(toDuration('0s', 'x'), 0)
  for (const text of ['30', 's', '', '-1s', '1d', '1 s', '1e3s', '30S', '1s1s']) {
    assert.throws(() => toDuration(text, 'drain-timeout'), {
      code: 'PROXY_ERR_USAGE',
      message: /^--drain-timeout: ".*" is not a duration: write 30s, 2m or 500ms$/,
    })
  }
  assert.throws(() => toDuration('1000h', 'x'), { code: 'PROXY_ERR_USAGE', message: /too long/ })
})
