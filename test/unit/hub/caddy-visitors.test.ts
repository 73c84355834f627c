import assert from 'node:assert/strict'
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import test from 'node:test'
import { caddyVisitors } from '../../../lib/hub/caddy-visitors.ts'
import type { Origin } from '../../../lib/sockets/requests.ts'

const TOKEN = 'f00dfeed'
const FOR = ['X-Forwarded-For', '192.0.2.7', 'X-Forwarded-Proto', 'https']

function originOf(rawHeaders: string[], trustedProxies: string[] = []): { origin: Origin; headers: string[] } {
  const seen: Origin[] = []
  const { onRequest, onUpgrade } = caddyVisitors({
    ...{ token: TOKEN, trustedProxies },
    onRequest: (_request, _response, origin) => void seen.push(origin),
    onUpgrade: (_request, _socket, _head, origin) => void seen.push(origin),
  })
  const requests = [0, 1].map(() => {
    const request = new IncomingMessage(new Socket())
    for (let at = 0; at < rawHeaders.length; at += 2) {
      request.headers[String(rawHeaders[at]).toLowerCase()] = String(rawHeaders[at + 1])
    }
    request.rawHeaders = [...rawHeaders]
    return request
  })
  const [first, second] = requests
  assert.ok(first && second)
  const direct = { remote: '127.0.0.1:5', secure: false }
  onRequest(first, new ServerResponse(first), direct)
  onUpgrade(second, new Socket(), Buffer.alloc(0), direct)
  assert.deepEqual(seen[0], seen[1])
  assert.ok(seen[0])
  assert.equal(first.headers['x-forwarded-symport'], undefined)
  return { origin: seen[0], headers: first.rawHeaders }
}

test('who knows the token is believed, and nobody further on is told it', () => {
  const { origin, headers } = originOf(['Host', 'a.b', 'x-FORWARDED-symport', TOKEN, ...FOR])
  assert.deepEqual(origin, { remote: '192.0.2.7', secure: true })
  assert.deepEqual(headers, ['Host', 'a.b', ...FOR])
})

test('who does not is not', () => {
  const direct = { remote: '127.0.0.1:5', secure: false }
  for (const token of ['', 'f00dfee', 'f00dfeee', `${TOKEN}x`, `${TOKEN}, ${TOKEN}`]) {
    const { origin, headers } = originOf(['X-Forwarded-Symport', token, ...FOR])
    assert.deepEqual(origin, direct)
    assert.deepEqual(headers, FOR)
  }
  assert.deepEqual(originOf(FOR).origin, direct)
})

test('behind Caddy those proxies are passed over that are trusted anyway; garbage is nobody', () => {
  const chain = ['X-Forwarded-Symport', TOKEN, 'X-Forwarded-For', '198.51.100.1, 192.0.2.7']
  assert.equal(originOf(chain).origin.remote, '192.0.2.7')
  assert.equal(originOf(chain, ['192.0.2.0/24', 'unix']).origin.remote, '198.51.100.1')
  assert.equal(originOf(['X-Forwarded-Symport', TOKEN, 'X-Forwarded-For', 'x']).origin.remote, '127.0.0.1:5')
})
