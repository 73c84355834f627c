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

test('URLs in other headers are masked too, and what a WebSocket is let in by', () => {
  for (const [name, value, shown] of [
    ['HX-Current-URL', 'https://x.test/a?token=s3 cret&b=1', 'https://x.test/a?token=***&b=1'],
    ['X-Original-URL', '/a?b=1&sig=s3cret', '/a?b=1&sig=***'],
    ['Refresh', '5; url=https://u:pw@x.test/?b=1&api_key=s3cret', '5; url=https://***@x.test/?b=1&api_key=***'],
    [
      'Link',
      '<https://x.test/?a=1&token=s3cret>; rel="next", </b#code=s3cret>; rel=last',
      '<https://x.test/?a=1&token=***>; rel="next", </b#code=***>; rel=last',
    ],
    ['Referer', '/?next=%2Fcb%3Fa%3D1%26token%3Ds3cret&b=%2Fcb%3Fa%3D1', '/?next=***&b=%2Fcb%3Fa%3D1'],
    ['X-Next', '/in?to=/cb?id_token=s3cret', '/in?to=***'],
    ['Set-Cookie2', 'sid=s3cret; Version=1, b=s3cret', '***'],
    ['Sec-WebSocket-Protocol', 'graphql-ws, bearer, s3cret', 'graphql-ws, bearer, ***'],
    ['Sec-WebSocket-Protocol', 'access_token,s3cret,json', 'access_token,***,json'],
    ['Sec-WebSocket-Protocol', 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.s', '***'],
    ['Sec-WebSocket-Protocol', 'realtime, api-key.sk-s3cret1, v1', 'realtime, ***, v1'],
  ] as const) {
    assert.equal(maskHeader(name, value), shown)
  }
  for (const [name, value] of [
    ['Sec-CH-UA', '"Not?A_Brand";v="99", "Chromium";v="130"'],
    ['Sec-CH-UA-Mobile', '?0'],
    ['User-Agent', 'bot/1 (+https://x.test/?about=1)'],
    ['Link', '</style.css>; rel=preload; as=style'],
    ['Stripe-Signature', 't=1,v1=abc'],
    ['Sec-WebSocket-Protocol', 'graphql-transport-ws, v5.channel.k8s.io, json.reliable.webpubsub.azure.v1'],
  ] as const) {
    assert.equal(maskHeader(name, value), value)
  }
})

test('what one logs in with by OAuth or SAML is masked in forms and JSON', () => {
  assert.equal(
    maskForm(
      'grant_type=authorization_code&code=1&code_verifier=2&SAMLResponse=3&id_token=4&assertion=5&device_code=6',
    ),
    'grant_type=authorization_code&code=***&code_verifier=***&SAMLResponse=***&id_token=***&assertion=***&device_code=***',
  )
  assert.equal(maskForm('to=%2Fcb%3Fcode%3D1%E0'), 'to=***')
  assert.equal(
    maskJson('{"redirectUri":"/cb","code":"1","codeVerifier":"2","SAMLResponse":"3","id_token":"4"}'),
    '{"redirectUri":"/cb","code":"***","codeVerifier":"***","SAMLResponse":"***","id_token":"***"}',
  )
  assert.equal(maskJson('{"code":"1","state":"2"}'), '{"code":"***","state":"2"}')
  for (const open of ['{"error":{"code":"declined"}}', '{"a":[{"state":"CA"}],"code":"x"}', '{"code":1,"state":"a"}']) {
    assert.equal(maskJson(open), open)
  }
  const part = '--B\r\nContent-Disposition: form-data; name="code"\r\n\r\ns3cret\r\n--B--'
  assert.doesNotMatch(maskBody(part, 'multipart/form-data; boundary=B'), /s3cret/)
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
  assert.equal(maskForm('zip_code=1'), 'zip_code=1')
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
    '?'.repeat(size),
    '://'.repeat(size / 3),
    ' https://a?a=?a'.repeat(size / 16),
    '{"state":'.repeat(size / 9),
    `{"state"${' '.repeat(size)}{`,
    `a=${'%3F'.repeat(size / 3)}`,
    ','.repeat(size),
  ]) {
    for (const type of ['application/x-www-form-urlencoded', 'application/json', 'text/plain']) maskBody(text, type)
    maskUrl(text)
    maskHeader('X-Url', text)
    maskHeader('Sec-WebSocket-Protocol', text)
    maskHeader('Cookie', text)
    maskHeader('Set-Cookie', text)
    maskHeader('Authorization', text)
    maskBody(text, 'multipart/form-data; boundary=a')
  }
  assert.ok(performance.now() - started < 3000)
})
