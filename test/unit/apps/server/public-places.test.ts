import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseDomain } from '../../../../apps/common/domain.ts'
import { parsePlace } from '../../../../apps/common/transports.ts'
import { PublicPlaces } from '../../../../apps/server/public-places.ts'

const place = parsePlace('127.0.0.1', '--host', { port: 0, listening: true })
const HOST = 'db.example.com'

function places(domain: string, front = false): PublicPlaces {
  const made = new PublicPlaces(place, {
    domain: parseDomain(domain),
    isTrusted: () => true,
    front: front ? { placeOf: async () => ({ scheme: 'https', port: 443 }) } : undefined,
  })
  made.listening('127.0.0.1:8925')
  return made
}

test('TLS that ends at the target comes in where HTTPS does, and not at who ends it', async () => {
  for (const [domain, front, port] of [
    ['example.com', false, 8925],
    ['https://example.com', false, 443],
    ['https://example.com:8443', false, 8443],
    ['http://example.com:8080', false, 8925],
    ['https://example.com', true, 8925],
    ['example.com', true, 8925],
  ] as const) {
    assert.deepEqual(await places(domain, front).of(HOST, true), { scheme: 'tls', port }, domain)
  }
  assert.deepEqual(await places('https://example.com:8443').of(HOST, false), { scheme: 'https', port: 8443 })
  assert.deepEqual(await places('example.com').of(HOST, false), { scheme: 'https', port: 8925 })
})
