import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import type { Endpoint, ListenContext, Listener } from '../../../lib/core/index.ts'
import { ProxyError } from '../../../lib/core/index.ts'
import { tcp } from '../../../lib/domains/tcp.ts'
import { createTlsNames } from '../../../lib/domains/tls-names.ts'
import { createWeb, type Web } from '../../../lib/domains/web.ts'
import { parseWeb } from '../../../lib/domains/web-address.ts'
import type { Registrant } from '../../../lib/hub/claims.ts'
import { isReservedHost, Publisher, type PublisherOptions } from '../../../lib/hub/publisher.ts'
import { parseNamePattern } from '../../../lib/policy/names.ts'
import { parsePortRanges } from '../../../lib/policy/patterns.ts'
import { createPolicy } from '../../../lib/policy/policy.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'

const TAKEN = { code: 'PROXY_ERR_NAME_TAKEN' }
const DENIED = { code: 'PROXY_ERR_LISTEN_DENIED' }
const LIMITS = { subConnections: 1, pendingOpens: 1 }
const DOMAIN = 'example.com'

function node(key: string | undefined, credential = ''): Registrant {
  const bytes = key === undefined ? undefined : Buffer.alloc(32, key)
  const closed = new Promise<ProxyError>(() => {})
  return { peer: { credential, label: 'x', key: bytes, limits: LIMITS }, closed, close() {} }
}

interface Bench {
  readonly web: Web
  publisher: Publisher
  /** As a node asks for it. */
  ask(main: Registrant, at: Endpoint | string): Promise<Listener>
  again(): Promise<void>
}

interface Settings extends Partial<PublisherOptions> {
  readonly names?: readonly string[]
  readonly allowPorts?: string
}

async function bench(t: TestContext, { names, allowPorts, ...options }: Settings = {}): Promise<Bench> {
  const path = await mkdtemp(join(tmpdir(), 'symport-names-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  const folder = new StateFolder(path)
  const tls = createTlsNames({ isWeb: (host) => web.hasHost(host) })
  const web: Web = createWeb({ isTls: tls.has })
  const ranges = allowPorts === undefined ? [] : parsePortRanges(allowPorts)
  const domain = 'domain' in options ? options.domain : DOMAIN
  const patterns = (names ?? (domain === undefined ? [] : [`*.${domain}`])).map((text) =>
    parseNamePattern(text, parseWeb),
  )
  const own = { host: domain, reserved: (host: string) => isReservedHost(host, domain) }
  const policy = createPolicy({ dial: 'none', listenPorts: ranges, names: { patterns, read: parseWeb, own } })
  const open = (): Promise<Publisher> =>
    Publisher.open(folder, {
      ...{ domains: [...web.domains, tls.domain, tcp()], bind: '127.0.0.1', ports: () => ranges },
      placeOf: (_host, isTls) => (isTls ? { scheme: 'tls', port: 8443 } : { scheme: 'https', port: 443 }),
      ...options,
      domain,
    })
  const made: Bench = {
    web,
    publisher: await open(),
    async ask(main, at) {
      const asked = typeof at === 'string' ? { Domain: 'public', Addr: at } : at
      await made.publisher.policyFor(policy).listen(asked)
      const plugin = made.publisher.domainsFor(main, policy).find(({ name }) => name === asked.Domain)
      const context: ListenContext = {
        signal: new AbortController().signal,
        open: () => Promise.reject(new Error('nobody comes')),
      }
      if (!plugin?.listen) throw new TypeError('it cannot be listened on')
      const listener = await plugin.listen(asked, context)
      t.after(() => listener.close())
      return listener
    },
    async again() {
      await made.publisher[Symbol.asyncDispose]()
      made.publisher = await open()
    },
  }
  t.after(() => made.publisher[Symbol.asyncDispose]())
  return made
}

test('a name that is asked for is below the domain, and is told as visitors write it', async (t) => {
  const { ask, web } = await bench(t)
  const { bound, close } = await ask(node('a'), 'http?name=checkout')
  assert.deepEqual(bound, { Domain: 'https', Addr: 'checkout.example.com' })
  assert.deepEqual(web.hosts(), ['checkout.example.com'])
  assert.equal(web.hasHost('checkout.example.com'), true)
  await close()
  assert.deepEqual(web.hosts(), [])
  assert.equal(web.hasHost('checkout.example.com'), false)
})

test('where the port is not the usual one, it is part of the URL', async (t) => {
  const { ask } = await bench(t, { placeOf: async () => ({ scheme: 'http', port: 8080 }) })
  const { bound } = await ask(node('a'), 'http?name=checkout')
  assert.deepEqual(bound, { Domain: 'http', Addr: 'checkout.example.com:8080' })
})

test("a name is its first owner's, also while that is away and after a restart, however another asks for it", async (t) => {
  const made = await bench(t)
  const { ask } = made
  await (await ask(node('a'), 'http?name=checkout')).close()
  for (const _ of ['before', 'after a restart']) {
    for (const at of ['http?name=checkout', 'http?name=CHECKOUT']) {
      await assert.rejects(ask(node('b'), at), TAKEN)
      await assert.rejects(ask(node(undefined), at), TAKEN)
    }
    for (const Domain of ['web', 'ws', 'tls']) {
      for (const Addr of [
        'checkout.example.com',
        ...(Domain === 'tls' ? [] : ['checkout.example.com/path']),
        'a.checkout.example.com',
        '*.checkout.example.com',
      ]) {
        await assert.rejects(ask(node('b'), { Domain, Addr }), TAKEN, Addr)
      }
    }
    await (await ask(node('a'), 'http?name=checkout')).close()
    await made.again()
  }
  await (await ask(node('a'), { Domain: 'web', Addr: 'a.checkout.example.com' })).close()
})

test('a name of TLS that ends at the target is given like one of the web, and never both', async (t) => {
  const { ask } = await bench(t)
  const listener = await ask(node('a'), 'tls?name=db')
  assert.deepEqual(listener.bound, { Domain: 'tls', Addr: 'db.example.com:8443' })
  await assert.rejects(ask(node('a'), 'tls?name=db'), { ...TAKEN, message: /is in use already$/ })
  await assert.rejects(ask(node('a'), 'http?name=db'), TAKEN)
  for (const at of ['http?name=db', 'tls?name=db', { Domain: 'tls', Addr: 'x.db.example.com' }]) {
    await assert.rejects(ask(node('b'), at), { ...TAKEN, message: /belongs to another node/ })
  }
  await ask(node('a'), { Domain: 'tls', Addr: '*.db.example.com' })
  await listener.close()
  await ask(node('a'), 'http?name=db')
  await assert.rejects(ask(node('a'), 'tls?name=db'), TAKEN)
  await assert.rejects(ask(node('a'), 'tls?name=www'), DENIED)
  assert.match((await ask(node('a'), 'tls')).bound.Addr, /^[a-z2-9]{8}\.example\.com:8443$/)
})

test('a name of TLS that is granted to another node is taken from who has it', async (t) => {
  const { identities, grant } = granting()
  const { ask } = await bench(t, { identities })
  const closed: string[] = []
  await ask({ ...node('a'), close: () => void closed.push('db') }, { Domain: 'tls', Addr: 'db.example.com' })
  await grant('db.example.com')
  assert.deepEqual(closed, ['db'])
})

test('without a domain there are no names of TLS', async (t) => {
  const { ask } = await bench(t, { domain: undefined, allowPorts: '41000-41900', names: ['*'] })
  await assert.rejects(ask(node('a'), 'tls?name=db'), { ...DENIED, message: /no domain/ })
  await assert.rejects(ask(node('a'), 'tls'), { ...DENIED, message: /no domain/ })
})

test('of two that ask at once one has the name', async (t) => {
  const { ask } = await bench(t)
  const asked = await Promise.allSettled(['a', 'b', 'c'].map((key) => ask(node(key), 'http?name=checkout')))
  assert.equal(asked.filter(({ status }) => status === 'fulfilled').length, 1)
})

test('a name that is in use is taken for its owner too', async (t) => {
  const { ask } = await bench(t)
  await ask(node('a'), 'http?name=checkout')
  await assert.rejects(ask(node('a'), 'http?name=checkout'), { ...TAKEN, message: /is in use already$/ })
})

test('a random name is one label, and stays the same for a node and what it is for', async (t) => {
  const made = await bench(t)
  const { ask } = made
  const again = async (key: string | undefined, use: string): Promise<string> => {
    const listener = await ask(node(key), `http?use=${use}`)
    await listener.close()
    return listener.bound.Addr
  }
  const first = await again('a', 'x')
  assert.match(first, /^[a-z][a-z2-9]{7}\.example\.com$/)
  assert.equal(await again('a', 'x'), first)
  await made.again()
  assert.equal(await again('a', 'x'), first)
  const others = [
    await again('a', 'y'),
    await again('b', 'x'),
    await again(undefined, 'x'),
    await again(undefined, 'x'),
  ]
  assert.equal(new Set([first, ...others]).size, 5)
})

test('nobody gets the domain itself, all below it, or what is taken for its own', async (t) => {
  const { ask } = await bench(t)
  for (const name of ['www', 'mail', 'admin', 'wpad', 'autodiscover', 'mta-sts', 'WWW']) {
    await assert.rejects(ask(node('a'), `http?name=${name}`), DENIED, name)
    await assert.rejects(ask(node('a'), { Domain: 'web', Addr: `x.${name}.example.com` }), DENIED, name)
  }
  for (const Domain of ['web', 'tls']) {
    for (const Addr of ['example.com', '*.example.com', '', '/', '_dmarc.example.com', 'xn--a.example.com']) {
      await assert.rejects(ask(node('a'), { Domain, Addr }), DENIED, Addr)
    }
  }
  // A name that only ends like it is somebody else's matter.
  await assert.rejects(ask(node('a'), { Domain: 'web', Addr: 'badexample.com' }), DENIED)
})

test('what the policy says holds: a pattern narrows, and one that says a name gives it', async (t) => {
  const { ask } = await bench(t, { names: ['shop.example.com', 'www.example.com'] })
  assert.equal((await ask(node('a'), 'http?name=shop')).bound.Addr, 'shop.example.com')
  assert.equal((await ask(node('a'), 'http?name=www')).bound.Addr, 'www.example.com')
  await assert.rejects(ask(node('a'), 'http?name=other'), DENIED)
  await assert.rejects(ask(node('a'), 'http'), { ...DENIED, message: /no random names/ })
})

test('a name that was granted is for those nodes only', async (t) => {
  const identities = {
    has: (id: string) => id === 'office',
    hostOwners: (host: string) => (/^(?:shop|x\.mine)\.example\.com$/.test(host) ? ['office'] : []),
    portsOf: () => [],
    onChanged: () => () => {},
  }
  const { ask } = await bench(t, { identities })
  await assert.rejects(ask(node('a'), 'http?name=shop'), TAKEN)
  await assert.rejects(ask(node('a', 'other'), { Domain: 'web', Addr: 'shop.example.com/x' }), TAKEN)
  assert.equal((await ask(node('a', 'office'), 'http?name=shop')).bound.Addr, 'shop.example.com')
  // Also one below the name of another node, and that alone.
  await ask(node('a'), 'http?name=mine')
  await assert.rejects(ask(node('a'), { Domain: 'web', Addr: 'x.mine.example.com' }), TAKEN)
  await ask(node('b', 'office'), { Domain: 'web', Addr: 'x.mine.example.com' })
  await assert.rejects(ask(node('b', 'office'), { Domain: 'web', Addr: 'y.mine.example.com' }), TAKEN)
})

test('a name that is granted while another node has it is taken away from that one, and no other is', async (t) => {
  let tell: (id: string, why: 'added') => void = () => {}
  const granted: string[] = []
  const identities = {
    has: () => true,
    hostOwners: (host: string) => (granted.includes(host) ? ['office'] : []),
    portsOf: () => [],
    onChanged: (listener: typeof tell) => {
      tell = listener
      return () => {}
    },
  }
  const { ask } = await bench(t, { identities })
  const closed: (string | undefined)[] = []
  for (const [main, name] of [
    [node('a'), 'shop'],
    [node('b'), 'other'],
    [node('c', 'office'), 'mine'],
  ] as const) {
    await ask({ ...main, close: (reason) => closed.push(`${name} ${reason?.code}`) }, `http?name=${name}`)
  }
  granted.push('shop.example.com', 'mine.example.com')
  tell('office', 'added')
  await Promise.resolve()
  assert.deepEqual(closed, ['shop PROXY_ERR_LISTEN_DENIED'])
})

/** Ids may be granted hosts while it runs. */
function granting(): Pick<PublisherOptions, 'identities'> & { grant(...hosts: string[]): Promise<void> } {
  let tell: (id: string, why: 'added') => void = () => {}
  const granted = new Set<string>()
  return {
    identities: {
      has: () => true,
      hostOwners: (host) => (granted.has(host) ? ['office'] : []),
      portsOf: () => [],
      onChanged: (listener) => {
        tell = listener
        return () => {}
      },
    },
    async grant(...hosts) {
      for (const host of hosts) granted.add(host)
      tell('office', 'added')
      await Promise.resolve()
    },
  }
}

test('with a name that is granted goes all below it, but for what was granted by itself', async (t) => {
  const { identities, grant } = granting()
  const { ask } = await bench(t, { identities })
  const closed: string[] = []
  for (const Addr of ['a.shop.example.com', '*.shop.example.com', 'a.other.example.com']) {
    const main = { ...node('a'), close: () => void closed.push(Addr) }
    await ask(main, { Domain: 'web', Addr })
  }
  await grant('shop.example.com')
  assert.deepEqual(closed, ['a.shop.example.com', '*.shop.example.com'])
  for (const Addr of ['b.shop.example.com', '*.shop.example.com/x']) {
    await assert.rejects(ask(node('a'), { Domain: 'web', Addr }), TAKEN, Addr)
  }
  await grant('a.other.example.com')
  assert.equal(closed.at(-1), 'a.other.example.com')
})

test('a name that is granted while it is being listened on is not had', async (t) => {
  const { identities, grant } = granting()
  const web = createWeb()
  const domains = web.domains.map((plugin) => ({
    ...plugin,
    async listen(at: Endpoint, context: ListenContext): Promise<Listener> {
      if (!plugin.listen) throw new TypeError('it cannot be listened on')
      const listener = await plugin.listen(at, context)
      await grant(parseWeb(at.Addr).host.replace(/^a\./, ''))
      return listener
    },
  }))
  const { ask } = await bench(t, { identities, domains })
  for (const at of ['http?name=shop', { Domain: 'web', Addr: 'a.mine.example.com' }]) {
    await assert.rejects(ask(node('a'), at), TAKEN)
  }
  assert.deepEqual(web.hosts(), [])
})

test('a node is set aside when it may listen, and not for what it is denied', async (t) => {
  const { publisher } = await bench(t)
  const policy = createPolicy({ dial: 'none', listenPorts: parsePortRanges('1-65535') })
  let aside = 0
  const denied = { ...policy, listen: () => Promise.reject(new ProxyError('PROXY_ERR_LISTEN_DENIED', 'no')) }
  for (const [rules, count] of [
    [denied, 0],
    [{ ...policy, listen: () => {} }, 1],
  ] as const) {
    const plugin = publisher.domainsFor(node('a'), rules, () => aside++).find(({ name }) => name === 'public')
    const context: ListenContext = {
      signal: new AbortController().signal,
      open: () => Promise.reject(new Error('nobody comes')),
    }
    const listened = plugin?.listen?.({ Domain: 'public', Addr: 'http?name=shop' }, context)
    await listened?.then((listener) => listener.close()).catch(() => {})
    assert.equal(aside, count)
  }
})

test('an owner has 100 names at most: more take the place of those that are not in use', async (t) => {
  const { ask } = await bench(t)
  const main = node('a')
  const all = Array.from({ length: 100 }, (_, i) => ask(main, `http?name=n${i}`))
  await Promise.all(all)
  await assert.rejects(ask(main, 'http?name=one-more'), { ...DENIED, message: /100 names already/ })
  await ask(node('b'), 'http?name=one-more')
})

test('without a domain a web service has a port, the same one for the same use, and no name', async (t) => {
  const { ask } = await bench(t, { domain: undefined, allowPorts: '22,41000-41900' })
  const listener = await ask(node('a'), 'http?use=x')
  const { Domain, Addr } = listener.bound
  assert.equal(Domain, 'http')
  assert.ok(Number(Addr.slice(1)) >= 41_000, Addr)
  await listener.close()
  const again = await ask(node('a'), 'http?use=x')
  assert.equal(again.bound.Addr, Addr)
  const other = await ask(node('a'), 'http?use=x')
  assert.notEqual(other.bound.Addr, Addr, 'one that is in use is passed over')
  await assert.rejects(ask(node('a'), 'http?name=checkout'), { ...DENIED, message: /no domain/ })
  await assert.rejects(ask(node('a'), 'http?base=/x/'), { ...DENIED, message: /no path/ })
})

test('a port that is not allowed or taken is told as such, and where none is allowed, none is had', async (t) => {
  const busy = createServer()
  await new Promise<void>((resolve) => void busy.listen(0, '127.0.0.1', resolve))
  t.after(() => busy.close())
  const address = busy.address()
  const port = typeof address === 'object' && address ? address.port : 0
  const { ask } = await bench(t, { allowPorts: String(port) })
  await assert.rejects(ask(node('a'), `tcp?port=${port}`), {
    code: 'PROXY_ERR_LISTEN_FAILED',
    message: `port taken: ${port}`,
  })
  await assert.rejects(ask(node('a'), 'tcp'), { code: 'PROXY_ERR_LISTEN_FAILED', message: /^no port is free: / })
  await assert.rejects(ask(node('a'), `tcp?port=${port === 1 ? 2 : port - 1}`), DENIED)
  const none = await bench(t)
  await assert.rejects(none.ask(node('a'), 'tcp'), { ...DENIED, message: /see --allow-ports/ })
})

test('whatever a node sends is a listener or a ProxyError, and no name of it leads anywhere else', async (t) => {
  const { ask, web } = await bench(t)
  const garbage = [
    ...['', 'http?', 'http?name=..', 'http?name=a.b', 'http?name=%2e', 'http?name=x%00', 'http?name=*', 'udp', 'tcp'],
    ...[
      'http?name="',
      'http?name=xn--a',
      `http?name=${'x'.repeat(64)}`,
      'http?name=a/b',
      'http?base=/../x',
      '?',
      'web',
    ],
  ]
  for (const Addr of garbage) {
    await ask(node('a'), Addr).catch((error) => assert.ok(error instanceof ProxyError, Addr))
  }
  for (const host of web.hosts()) assert.match(host, /^[a-z][a-z2-9]{7}\.example\.com$/)
})
