import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseSpec, type Spec } from '../../../lib/domains/spec.ts'

const context = { domains: ['tcp', 'unix'] }
const parse = (text: string): Spec => parseSpec(text, context)
const rejects = (text: string, message: RegExp): void => {
  assert.throws(() => parse(text), { name: 'ProxyError', code: 'PROXY_ERR_SPEC', message })
  assert.throws(() => parse(text), { message: /^bad SPEC "[^\n]*$/ })
}
const tcp = (Addr: string) => ({ Domain: 'tcp', Addr })
const unix = (Addr: string) => ({ Domain: 'unix', Addr })

test('takes JSON', () => {
  const text = '{"Listen":{"Domain":"tcp","Addr":"0.0.0.0:1080"},"Forward":{"Domain":"tcp", "Addr":"127.0.0.1:80"}}'
  assert.deepEqual(parse(text), { Listen: tcp('0.0.0.0:1080'), Forward: tcp('127.0.0.1:80') })
})

test('takes JSON with a node, and normalises addresses', () => {
  const text = ' {"Node":"a","Listen":{"Domain":"TCP","Addr":":0"},"Forward":{"Domain":"tcp","Addr":":80"}}\n'
  assert.deepEqual(parse(text), { Listen: tcp(':0'), Forward: tcp('127.0.0.1:80'), Node: 'a' })
  const mixed = '{"Listen":{"Domain":"unix","Addr":"/tmp/x"},"Forward":{"Domain":"tcp","Addr":"[::1]:80"}}'
  assert.deepEqual(parse(mixed), { Listen: unix('/tmp/x'), Forward: tcp('[::1]:80') })
})

test('says where JSON is malformed', () => {
  rejects('{"Listen":{"Domain":"tcp","Addr":"127.0.0.1:1080"},}', /malformed JSON at character 52: expected a key/)
  rejects('{"Listen":{"Domain":"tcp"', /malformed JSON at character 26: expected ',' or '}' at the end/)
  rejects('{\n  "Listen": {\n    "Domain" "tcp"}}', /at line 3, column 14: expected ':' before ""tcp"}}"/)
  rejects('[{"Listen":1}]', /one SPEC is one JSON object/)
})

test('recognises JSON whose quotes a shell has eaten, and shows what to write', () => {
  rejects(
    '{Listen:{Domain:tcp,Addr:127.0.0.1:1080},Forward:{Domain:tcp,Addr:127.0.0.1:80}}',
    /write 127\.0\.0\.1:1080:127\.0\.0\.1:80 instead$/,
  )
  rejects('{Listen:{Domain:tcp,Addr::1080},Forward:{Domain:tcp,Addr::80}}', /write :1080::80 instead$/)
  rejects("'{Listen:{Domain:tcp,Addr:127.0.0.1:13389},Forward:{Domain:tcp,", /write 127.0.0.1:13389:host:hostport inst/)
  rejects('{Listen:', /write \[bind:\]port:host:hostport instead/)
  rejects(
    '{\\"Listen\\":{\\"Domain\\":\\"tcp\\",\\"Addr\\":\\"[::1]:1\\"},\\"Forward\\":{\\"Domain\\":\\"tcp\\",\\"Addr\\":\\"a:2\\"}}',
    /write \[::1\]:1:a:2 instead/,
  )
  rejects(
    '{Forward:{Addr:a:80,Domain:tcp},Listen:{Addr:/tmp/x,Domain:unix}}',
    /write unix:\/\/\/tmp\/x,tcp:\/\/a:80 inst/,
  )
  rejects('{Node:a,Listen:{Domain:tcp,Addr::1},Forward:{Domain:tcp,Addr:b:2}}', /a Node needs the JSON/)
})

test('the text that the error shows instead of eaten JSON is a SPEC for the same mapping', () => {
  const host = fc.oneof(
    fc.ipV4(),
    fc.ipV6().map((ip) => `[${ip}]`),
    fc.domain(),
    fc.constant(''),
  )
  const addr = fc.tuple(host, fc.integer({ min: 1, max: 65535 })).map(([host, port]) => `${host}:${port}`)
  fc.assert(
    fc.property(addr, addr, (listen, forward) => {
      const json = JSON.stringify({ Listen: tcp(listen), Forward: tcp(forward) })
      let message = ''
      try {
        parse(json.replaceAll('"', ''))
      } catch (error) {
        message = error instanceof Error ? error.message : ''
      }
      assert.deepEqual(parse(/write (\S+) instead$/.exec(message)?.[1] ?? ''), parse(json))
    }),
  )
})

test('takes two endpoint URLs with a comma', () => {
  assert.deepEqual(parse('tcp://0.0.0.0:1080,tcp://127.0.0.1:80'), {
    Listen: tcp('0.0.0.0:1080'),
    Forward: tcp('127.0.0.1:80'),
  })
  assert.deepEqual(parse('unix:///tmp/x.sock, tcp://host:9299'), {
    Listen: unix('/tmp/x.sock'),
    Forward: tcp('host:9299'),
  })
})

test('a comma separates only before a scheme', () => {
  assert.deepEqual(parse('unix:///tmp/a,b,unix:///tmp/c,d'), { Listen: unix('/tmp/a,b'), Forward: unix('/tmp/c,d') })
})

test('says what is wrong with endpoint URLs, and with which one', () => {
  rejects('tcp://:80', /it has one endpoint/)
  rejects('tcp://:80,127.0.0.1:80', /it has one endpoint/)
  rejects('tcp://:1,tcp://:2,tcp://:3', /more than two endpoints/)
  rejects('tcp://:1,tpc://:2', /Forward: unknown domain "tpc": did you mean tcp\?/)
  rejects('tcp://:70000,tcp://:2', /Listen: port 70000 is out of range \(0 to 65535\)/)
  rejects('tcp://:1,tcp://:0', /Forward: port 0 is out of range \(1 to 65535\)/)
  rejects('127.0.0.1:80,tcp://:2', /Listen: "127.0.0.1:80" is not an endpoint/)
})

test("takes ssh's form", () => {
  assert.deepEqual(parse('8080:db:5432'), { Listen: tcp('127.0.0.1:8080'), Forward: tcp('db:5432') })
  assert.deepEqual(parse('0.0.0.0:8080:db:5432'), { Listen: tcp('0.0.0.0:8080'), Forward: tcp('db:5432') })
  assert.deepEqual(parse('[::1]:0:[fd00::2]:80'), { Listen: tcp('[::1]:0'), Forward: tcp('[fd00::2]:80') })
  assert.deepEqual(parse('*:8080:db:1'), { Listen: tcp(':8080'), Forward: tcp('db:1') })
  assert.deepEqual(parse(':8080::80'), { Listen: tcp(':8080'), Forward: tcp('127.0.0.1:80') })
})

test("takes paths in ssh's form", () => {
  assert.deepEqual(parse('8080:/run/x'), { Listen: tcp('127.0.0.1:8080'), Forward: unix('/run/x') })
  assert.deepEqual(parse('[::]:8080:/run/x'), { Listen: tcp('[::]:8080'), Forward: unix('/run/x') })
  assert.deepEqual(parse('/run/x:db:1'), { Listen: unix('/run/x'), Forward: tcp('db:1') })
  assert.deepEqual(parse('/run/x:/run/y'), { Listen: unix('/run/x'), Forward: unix('/run/y') })
})

test("/udp behind ssh's form is for both halves", () => {
  rejects('53:127.0.0.1:53/udp', /unknown domain "udp".*\(known: tcp, unix\)/)
  assert.deepEqual(parseSpec('53:a:53/udp', { domains: ['tcp', 'udp'] }), {
    Listen: { Domain: 'udp', Addr: '127.0.0.1:53' },
    Forward: { Domain: 'udp', Addr: 'a:53' },
  })
})

test("says what is wrong with ssh's form", () => {
  rejects('8080', /write \[bind:\]port:host:hostport/)
  rejects('8080:80', /write \[bind:\]port:host:hostport/)
  rejects('', /it is empty/)
  rejects('/run/x', /write \[bind:\]/)
  rejects('8080:db:99999', /Forward: port 99999 is out of range \(1 to 65535\)/)
  rejects('1:2:3:4:5', /too many fields/)
  rejects('8080:::1:80', /too many fields|IPv6/)
  rejects('8080:[::1:80', /a bracket is not closed/)
  rejects('8080:user@db:80', /user information/)
  rejects('x'.repeat(5000), /longer than 4096/)
})

test('no error shows a password', () => {
  for (const text of [
    'tcp://:1,tcp://name:hunter2@host:80',
    '{"Listen":{"Domain":"tcp","Addr":"name:hunter2@:1"},"Forward":{"Domain":"tcp","Addr":":1"}}',
    'name:hunter2@host:1:2',
  ]) {
    assert.throws(
      () => parse(text),
      (error: Error) => !error.message.includes('hunter2'),
    )
  }
})

test('any text is a SPEC or rejected with the code, on one line', () => {
  const pieces = [
    'tcp://',
    'unix:///',
    ',',
    ':',
    '80',
    '{',
    '}',
    '"Listen":',
    'Addr',
    '[',
    ']',
    '::1',
    '/x',
    '\n',
    '\\',
  ]
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 10 }), (words) => {
      try {
        parse(words.join(''))
      } catch (error) {
        assert.ok(error instanceof Error && 'code' in error)
        assert.equal(error.code, 'PROXY_ERR_SPEC')
        assert.doesNotMatch(error.message, /\n/)
      }
    }),
    { numRuns: 1000 },
  )
})

test('a domain of datagrams is forwarded to one of datagrams, in each of the three forms', () => {
  const stream = { listen: () => undefined, dial: () => undefined }
  const domains = [
    { name: 'tcp', ...stream },
    { name: 'unix', ...stream },
    { name: 'udp', ...stream, carries: 'datagrams' as const },
  ]
  const take = (text: string) => parseSpec(text, { domains })
  const udp = (Addr: string) => ({ Domain: 'udp', Addr })
  const both = { Listen: udp('127.0.0.1:53'), Forward: udp('192.0.2.1:53') }
  assert.deepEqual(take('53:192.0.2.1:53/udp'), both)
  assert.deepEqual(take('udp://127.0.0.1:53,udp://192.0.2.1:53'), both)
  assert.deepEqual(take('tcp://127.0.0.1:53/udp,tcp://192.0.2.1:53/udp'), both)
  assert.deepEqual(take(JSON.stringify(both)), both)
  assert.deepEqual(take('tcp://:53/udp,udp://:53'), { Listen: udp(':53'), Forward: udp('127.0.0.1:53') })
  take('unix:///run/x,tcp://a:1')
  for (const [text, one, other] of [
    ['udp://:53,tcp://a:53', 'udp', 'tcp'],
    ['tcp://:53,udp://a:53', 'tcp', 'udp'],
    ['tcp://:53,tcp://a:53/udp', 'tcp', 'udp'],
    ['/run/x.sock:a:53/udp', 'unix', 'udp'],
    ['53:/run/x.sock', 'tcp', undefined],
    [JSON.stringify({ Listen: udp(':53'), Forward: unix('/run/x') }), 'udp', 'unix'],
    [JSON.stringify({ Listen: tcp(':53'), Forward: tcp('a:53/udp') }), 'tcp', 'udp'],
  ] as const) {
    if (other === undefined) {
      take(text)
      continue
    }
    const message = new RegExp(`^bad SPEC "[^\\n]*": ${one} cannot be forwarded to ${other}: ${one} carries [^\\n]+$`)
    assert.throws(() => take(text), { code: 'PROXY_ERR_SPEC', message }, text)
  }
})
