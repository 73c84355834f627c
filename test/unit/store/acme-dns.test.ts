import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import type { ProxyError } from '../../../lib/core/errors.ts'
import { type AcmeDns, DnsProver } from '../../../lib/store/acme-dns.ts'
import { DnsLook } from '../../../lib/store/acme-dns-look.ts'
import { type Records, startZone, type Zone } from '../../helpers/system/zone.ts'

const NAME = '_acme-challenge.example.com'
const BASE: Record<string, Records> = {
  'example.com': { NS: ['ns1.example.com'] },
  'ns1.example.com': { A: ['127.0.0.1'] },
  'ns2.example.com': { A: ['127.0.0.2'] },
}

async function zone(t: TestContext, more: Record<string, Records> = {}, host?: string, port?: number): Promise<Zone> {
  const zone = await startZone({ ...BASE, ...more }, host, port)
  t.after(() => zone.close())
  return zone
}

function lookAt({ port }: Zone, patience = 5000): DnsLook {
  return new DnsLook({ resolvers: [`127.0.0.1:${port}`], port, patience, timeout: 50 })
}

const { signal } = new AbortController()

test('waits until the name server of the zone has all values', async (t) => {
  const server = await zone(t)
  const seen = lookAt(server).until(NAME, ['one', 'two'], signal)
  const records: string[] = []
  const add = (value: string): void => {
    records.push(value)
    server.names.set(NAME, { TXT: records })
  }
  while (!server.asked.includes(`TXT ${NAME}`)) await new Promise((resolve) => setTimeout(resolve, 5))
  add('other')
  add('one')
  const before = server.asked.length
  while (server.asked.length === before) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.equal(await Promise.race([seen.then(() => 'seen'), Promise.resolve('not yet')]), 'not yet')
  add('two')
  await seen
  assert.deepEqual(server.asked.slice(0, 3), [`NS ${NAME}`, 'NS example.com', 'A ns1.example.com'])
})

test('waits for each name server that answers, and for none that does not', async (t) => {
  const both = { 'example.com': { NS: ['ns1.example.com', 'ns2.example.com', 'ns3.example.com'] } }
  const has = { [NAME]: { TXT: ['one'] } }
  const first = await zone(t, { ...both, ...has })
  const second = await zone(t, both, '127.0.0.2', first.port)
  await assert.rejects(lookAt(first, 800).until(NAME, ['one'], signal), {
    code: 'PROXY_ERR_ACME',
    message:
      /^nothing of _acme-challenge\.example\.com \(TXT\) was seen at ns2\.example\.com within 1 s: present has to/,
  })
  second.silent = true
  await lookAt(first).until(NAME, ['one'], signal)
})

test('says how much of it is there, or that nobody answers, or that there is no zone', async (t) => {
  const server = await zone(t, { [NAME]: { TXT: ['two'] } })
  await assert.rejects(
    lookAt(server, 0).until(NAME, ['one', 'two'], signal),
    /^ProxyError.*only 1 of 2 values of _acme/,
  )
  await assert.rejects(lookAt(server, 0).until('_acme-challenge.example.org', ['one'], signal), {
    message: 'there is no zone for _acme-challenge.example.org in the DNS',
  })
  const nowhere = { 'example.net': { NS: ['ns.none.example'] } }
  for (const [name, records] of Object.entries(nowhere)) server.names.set(name, records)
  await assert.rejects(lookAt(server, 0).until('_acme-challenge.example.net', ['one'], signal), {
    message: 'the name servers of example.net (ns.none.example) have no address',
  })
  // Nothing listens there.
  const look = new DnsLook({ resolvers: [`127.0.0.1:${server.port}`], port: 1, patience: 0 })
  await assert.rejects(look.until(NAME, ['one'], signal), {
    message: /^ns1\.example\.com did not answer within 0 s: --acme-dns-wait waits without looking there$/,
  })
  const nobody = new DnsLook({ resolvers: ['127.0.0.1:1'] })
  await assert.rejects(
    nobody.target(NAME, signal),
    /the DNS cannot be asked for .*--acme-dns-wait waits without asking/,
  )
})

const ODD = /alias \(CNAME\) of what is no name|cannot be asked/

test('an alias leads to where the record is to be written, and one in a circle nowhere', async (t) => {
  const server = await zone(t, {
    [NAME]: { CNAME: ['example.com.auth.example.net'] },
    'example.com.auth.example.net': {},
    'a.example.com': { CNAME: ['b.example.com'] },
    'b.example.com': { CNAME: ['a.example.com'] },
    'c.example.com': { CNAME: ['-x; id'] },
    'd.example.com': { CNAME: ['x\ny'] },
  })
  const look = lookAt(server)
  assert.equal(await look.target(NAME, signal), 'example.com.auth.example.net')
  assert.equal(await look.target('_acme-challenge.example.org', signal), '_acme-challenge.example.org')
  // What a program must not be called with.
  for (const name of ['c', 'd']) await assert.rejects(look.target(`${name}.example.com`, signal), ODD)
  await assert.rejects(look.target('a.example.com', signal), /is an alias \(CNAME\) of too many others$/)
})

test('is given up at once', async (t) => {
  const server = await zone(t)
  const giving = new AbortController()
  const seen = lookAt(server, 60_000).until(NAME, ['one'], giving.signal)
  while (!server.asked.includes(`TXT ${NAME}`)) await new Promise((resolve) => setTimeout(resolve, 5))
  giving.abort()
  await assert.rejects(seen, { code: 'PROXY_ERR_ACME' })
})

interface Bench {
  readonly prover: DnsProver
  readonly called: string[]
  readonly problems: string[]
  readonly closing: AbortController
}

function bench(dns: Partial<AcmeDns> & { fail?: (call: string) => void } = {}): Bench {
  const called: string[] = []
  const problems: string[] = []
  const closing = new AbortController()
  const call = (action: string) => async (name: string, value: string) => {
    called.push(`${action} ${name} ${value}`)
    dns.fail?.(`${action} ${value}`)
  }
  const records = { present: call('present'), cleanup: call('cleanup') }
  const onProblem = (error: ProxyError): void => void problems.push(error.message)
  const prover = new DnsProver(
    { domain: 'example.com', records, wait: 0, ...dns },
    { closing: closing.signal, onProblem },
  )
  return { prover, called, problems, closing }
}

const PROOFS = ['one', 'two'].map((value) => ({ host: 'example.com', value }))

test('all records stand together, and each is taken away once', async () => {
  const { prover, called } = bench()
  const withdraw = await prover.show(PROOFS, signal)
  assert.deepEqual(called, [`present ${NAME} one`, `present ${NAME} two`])
  await withdraw()
  await withdraw()
  assert.deepEqual(called.slice(2), [`cleanup ${NAME} one`, `cleanup ${NAME} two`])
})

test('what could not be written is cleaned up, too, and what could not be cleaned up is told and no failure', async () => {
  const { prover, called, problems } = bench({
    fail(call) {
      if (call === 'present two' || call === 'cleanup one') throw new Error(`no ${call}`)
    },
  })
  await assert.rejects(prover.show(PROOFS, signal), { code: 'PROXY_ERR_ACME', message: 'no present two' })
  assert.deepEqual(called.slice(2), [`cleanup ${NAME} one`, `cleanup ${NAME} two`])
  assert.deepEqual(problems, ['no cleanup one'])
})

test('records behind an alias are written there; and taken away if they are not to be seen', async (t) => {
  const server = await zone(t, { [NAME]: { CNAME: ['auth.example.com'] }, 'auth.example.com': {} })
  const look = { resolvers: [`127.0.0.1:${server.port}`], port: server.port, patience: 300 }
  const { prover, called } = bench({ wait: undefined, look })
  await assert.rejects(prover.show(PROOFS, signal), /nothing of auth\.example\.com \(TXT\) was seen/)
  assert.deepEqual(
    called,
    ['present', 'cleanup'].flatMap((action) => ['one', 'two'].map((value) => `${action} auth.example.com ${value}`)),
  )
})

test('an end in between takes the records away', async () => {
  const { prover, called, closing } = bench({ wait: 60_000 })
  const shown = prover.show(PROOFS, closing.signal)
  while (called.length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
  closing.abort()
  await assert.rejects(shown)
  assert.equal(called.length, 4)
})
