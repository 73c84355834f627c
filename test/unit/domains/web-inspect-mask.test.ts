import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isSecretName } from '../../../lib/domains/secret-names.ts'
import {
  maskBody,
  maskForm,
  maskHeader,
  maskHeaders,
  maskJson,
  maskUrl,
} from '../../../lib/domains/web-inspect-mask.ts'

test('names of secrets are known in all spellings, and others are left alone', () => {
  const secret = ['password', 'Password', 'user[password]', 'newPassword', 'passwd', 'access_token', 'accessToken']
  const more = ['api_key', 'api-key', 'apiKey', 'APIKEY', 'X-Api-Key', 'key', 'client_secret', 'refreshtoken', 'jwt']
  for (const name of [...secret, ...more, 'csrf-token', 'PHPSESSID_session', 'auth', 'x'.repeat(201)]) {
    assert.ok(isSecretName(name), name)
  }
  for (const name of ['monkey', 'keyboard', 'author', 'name', 'compass', 'spinning', 'user', 'message', '', 'статус']) {
    assert.ok(!isSecretName(name), name)
  }
})

test('headers that log somebody in are masked, and the others stay', () => {
  assert.equal(maskHeader('Authorization', 'Bearer abc.def'), 'Bearer ***')
  assert.equal(maskHeader('authorization', 'abc'), '***')
  assert.equal(maskHeader('Proxy-Authorization', 'Basic eDp5'), 'Basic ***')
  assert.equal(maskHeader('Cookie', 'sid=1; theme=a=b; flag'), 'sid=***; theme=***; ***')
  assert.equal(maskHeader('Set-Cookie', 'sid=1; Path=/; HttpOnly'), 'sid=***; Path=/; HttpOnly')
  assert.equal(maskHeader('X-Api-Key', 'k e y'), '***')
  assert.equal(maskHeader('X-Auth-Token', 'abc'), '***')
  assert.equal(maskHeader('X-CSRF-Token', 'abc'), '***')
  assert.equal(maskHeader('X-Amz-Security-Token', 'abc'), '***')
  assert.equal(
    maskHeader('Location', 'https://u:p@x.test/cb?token=1&a=2#access_token=3'),
    'https://***@x.test/cb?token=***&a=2#access_token=***',
  )
  assert.equal(maskHeader('Referer', '/?key=1'), '/?key=***')
  for (const [name, value] of [
    ['Host', 'x.test'],
    ['Sec-WebSocket-Key', 'dGhl'],
    ['WWW-Authenticate', 'Basic realm="x"'],
    ['Idempotency-Key', '1'],
    ['X-Hub-Signature-256', 'sha256=1'],
  ] as const) {
    assert.equal(maskHeader(name, value), value)
  }
  assert.deepEqual(maskHeaders(['a', 'b', 'cookie', 'c=d']), ['a', 'b', 'cookie', 'c=***'])
})

test('query parameters are masked, whatever their names are written like', () => {
  assert.equal(maskUrl('/a?x=1&access_token=abc&y=2'), '/a?x=1&access_token=***&y=2')
  assert.equal(maskUrl('/a?pass%77ord=abc'), '/a?pass%77ord=***')
  assert.equal(maskUrl('/a?user%5Bpassword%5D=abc'), '/a?user%5Bpassword%5D=***')
  assert.equal(
    maskUrl('/a?X-Amz-Signature=abc&sig=1&code=2&X-Amz-Date=3'),
    '/a?X-Amz-Signature=***&sig=***&code=***&X-Amz-Date=3',
  )
  assert.equal(maskUrl('/a?token=&token&%E0=1'), '/a?token=&token&%E0=1')
  assert.equal(maskUrl('/token/abc'), '/token/abc')
})

test('forms and JSON are masked as they stand', () => {
  assert.equal(maskForm('user=a&password=b+c&x=%20'), 'user=a&password=***&x=%20')
  assert.equal(maskForm('code=1'), 'code=1')
  assert.equal(
    maskJson('{ "user": "a", "password" : "b\\"c", "n": [1, {"token": 5, "pin": null}] , "x": true}'),
    '{ "user": "a", "password" : "***", "n": [1, {"token": "***", "pin": null}] , "x": true}',
  )
  assert.equal(maskJson('{"pass\\u0077ord":"x"}'), '{"pass\\u0077ord":"***"}')
  assert.equal(
    maskJson('{"secret": {"a": "b", "c": [1, "d"]}, "e": "f"}'),
    '{"secret": {"a": "***", "c": ["***", "***"]}, "e": "f"}',
  )
  assert.equal(maskJson('{"token":"abc'), '{"token":"***"', 'cut off in the middle')
  assert.equal(maskJson('{"token":"ab\\'), '{"token":"***"')
  assert.equal(maskJson('{"a":1}\n{"token":"x"}\n'), '{"a":1}\n{"token":"***"}\n')
  assert.equal(maskJson("{password: 'a b', c: 1}"), `{password: "***" "***", c: 1}`)
  assert.equal(maskJson('["token", "password"]'), '["token", "password"]')
})

test('a body is masked by its kind', () => {
  assert.equal(maskBody('token=1', 'application/x-www-form-urlencoded; charset=utf-8'), 'token=***')
  assert.equal(maskBody('token=1', ''), 'token=***')
  assert.equal(maskBody('{"token":1}', 'application/vnd.x+json'), '{"token":"***"}')
  assert.equal(maskBody(' {"token":1}', 'text/plain'), ' {"token":"***"}')
  assert.equal(maskBody('<p>token=1</p>', 'text/html'), '<p>token=1</p>')
  const part = (name: string, value: string): string =>
    `--B\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`
  const type = 'multipart/form-data; boundary=B'
  assert.equal(
    maskBody(`${part('a', '1')}${part('password', 'x\r\ny')}--B--\r\n`, type),
    `${part('a', '1')}${part('password', '***')}--B--\r\n`,
  )
})

test('masking takes no time that grows with the square of what is masked', () => {
  const size = 262_144
  const started = performance.now()
  for (const text of [
    'a'.repeat(size),
    '='.repeat(size),
    '&'.repeat(size),
    `"${'\\'.repeat(size)}`,
    '['.repeat(size),
  ]) {
    for (const type of ['application/x-www-form-urlencoded', 'application/json', 'text/plain']) maskBody(text, type)
    maskUrl(text)
    maskHeader('Cookie', text)
    maskHeader('Set-Cookie', text)
    maskHeader('Authorization', text)
    maskBody(text, 'multipart/form-data; boundary=a')
  }
  assert.ok(performance.now() - started < 3000)
})
