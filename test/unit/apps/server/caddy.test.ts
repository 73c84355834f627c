import assert from 'node:assert/strict'
import test from 'node:test'
import { parseCaddyUrl } from '../../../../apps/common/caddy-flags.ts'
import { parseDomain } from '../../../../apps/common/domain.ts'
import { reachableHost } from '../../../../apps/common/identity.ts'
import { parsePlace } from '../../../../apps/common/transports.ts'
import { dialOf } from '../../../../apps/server/caddy.ts'
import { PublicPlaces } from '../../../../apps/server/public-places.ts'
import { createWeb } from '../../../../lib/domains/web.ts'

const placeOf = (host: string) => parsePlace(host, '--host', { port: undefined, listening: true })

test('Caddy dials where the server listens, on this machine by loopback', () => {
  const dial = (host: string, address: string, caddy = 'http://127.0.0.1:2019'): string =>
    dialOf(placeOf(host), address, { place: parseCaddyUrl(caddy), server: undefined })
  assert.equal(dial('0.0.0.0', '0.0.0.0:925'), '127.0.0.1:925')
  assert.equal(dial(':0', '[::]:34567', 'unix:///run/caddy.sock'), '127.0.0.1:34567')
  assert.equal(dial('[::1]', '[::1]:925'), '[::1]:925')
  assert.equal(dial('192.0.2.1', '192.0.2.1:925'), '192.0.2.1:925')
  assert.equal(dial('0.0.0.0', '0.0.0.0:925', 'https://caddy.internal'), `${reachableHost('')}:925`)
  assert.equal(dial('unix:///run/symport.sock', '/run/symport.sock'), 'unix//run/symport.sock')
  for (const path of ['/run/{env.HOME}', '/run/a|0777']) {
    assert.throws(() => dial(`unix://${path}`, path), { code: 'PROXY_ERR_USAGE' })
  }
})

test('visitors are told what Caddy has, unless the operator says what they see', async () => {
  const asked: string[] = []
  const front = {
    async placeOf(host: string) {
      asked.push(host)
      return { scheme: 'https', port: 8443 } as const
    },
  }
  const of = async (domain: string): Promise<unknown> => {
    const places = new PublicPlaces(placeOf('127.0.0.1:925'), {
      domain: parseDomain(domain),
      isTrusted: () => false,
      front,
    })
    return await places.of(`a.${parseDomain(domain).host}`, false)
  }
  assert.deepEqual(await of('example.com'), { scheme: 'https', port: 8443 })
  assert.deepEqual(await of('http://example.org:81'), { scheme: 'http', port: 81 })
  assert.deepEqual(asked, ['a.example.com', 'a.example.org'], 'either waits until Caddy has it')
})

test('a web port tells when hosts come and go, and not of their paths', async () => {
  const web = createWeb()
  const seen: string[] = []
  const unsubscribe = web.onHosts(() => seen.push(web.hosts().join(' ')))
  const [domain] = web.domains
  assert.ok(domain?.listen)
  const context = { signal: new AbortController().signal, open: () => Promise.reject(new Error('nobody')) }
  const listen = (Addr: string) => domain.listen?.({ Domain: 'web', Addr }, context)
  const [a, path, b] = [await listen('a.example.com'), await listen('a.example.com/x'), await listen('b.example.com')]
  await a?.close()
  await path?.close()
  unsubscribe()
  await b?.close()
  assert.deepEqual(seen, ['a.example.com', 'a.example.com b.example.com', 'b.example.com'])
})
