import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import type { ClientEntry, NodeConfig } from '../../../../apps/common/config.ts'
import { createDomains } from '../../../../apps/common/options.ts'
import { findSecrets } from '../../../../apps/node/find-secrets.ts'
import { type PlanValues, planServers, type ServerPlan } from '../../../../apps/node/plan.ts'
import { formatEndpoint, ProxyError } from '../../../../lib/core/index.ts'
import { StateFolder } from '../../../../lib/index.ts'
import { keepSecret, secretFileFor } from '../../../../lib/store/secrets.ts'

const NONE: PlanValues = {
  ...{ host: undefined, server: undefined, port: undefined, id: 'me', uuid: undefined, 'uuid-file': undefined },
  ...{ ca: undefined, pin: undefined, proxy: 'none', dynamic: [], listener: [], peer_listener: [], allow: [] },
}

function client(number: number, more: Partial<ClientEntry>): ClientEntry {
  const lists = { allow: [], dynamic: [], local: [], remote: [] }
  return { key: `client[${number}]`, secretAdvice: `add auth to client[${number}]`, ...lists, ...more }
}

function configOf(...clients: ClientEntry[]): NodeConfig {
  return {
    ...{ role: 'node', path: 'node.toml', values: {}, clients, wsp: false, dynamic: [], local: [], remote: [] },
    ...{ listeners: [], peerListeners: [], listenerKeys: [], options: {}, warnings: [] },
  }
}

function plan(values: Partial<PlanValues>, positionals: string[] = [], config?: NodeConfig): Promise<ServerPlan[]> {
  return planServers({ ...NONE, ...values }, positionals, { config, domains: createDomains() })
}

function stateOf(t: TestContext): StateFolder {
  const folder = mkdtempSync(join(tmpdir(), 'symport-'))
  t.after(() => rmSync(folder, { recursive: true }))
  return new StateFolder(folder)
}

describe('the plan of a node', () => {
  test('without a server is one for this machine', async () => {
    const [only, more] = await plan({ listener: ['0:127.0.0.1:80'], dynamic: ['0'], uuid: 'of the flags' })
    assert.equal(more, undefined)
    assert.deepEqual(
      [only?.place.name, only?.id, only?.secret, only?.dial],
      ['127.0.0.1:925', 'me', 'of the flags', 'any'],
    )
    assert.deepEqual(
      only?.listeners.map(({ Listen, Forward }) => [formatEndpoint(Listen), formatEndpoint(Forward)]),
      [
        ['tcp://127.0.0.1:0', 'tcp://127.0.0.1:80'],
        ['mixed://127.0.0.1:0', 'tunnel://'],
      ],
    )
  })

  test('has what flags say for each of several servers, and --port for those without', async () => {
    const plans = await plan({ port: '8925', peer_listener: ['0:127.0.0.1:80'] }, ['a', 'wss://b/x', 'unix:///c'])
    assert.deepEqual(
      plans.map(({ place, peerListeners, listeners }) => [place.name, peerListeners.length, listeners.length]),
      [
        ['a:8925', 1, 0],
        ['wss://b:8925/x', 1, 0],
        ['unix:///c', 1, 0],
      ],
    )
  })

  test('has what an entry of a file says before what flags say for all', async () => {
    const config = configOf(
      client(0, { server: 'a', secret: 'of a', id: 'mine', allow: ['10.0.0.1:80'], local: ['tcp://x:y@:2200'] }),
      client(1, { server: 'a', remote: ['tunnel://work:pw@'], dynamic: ['socks5://:1080'] }),
    )
    const plans = await plan({ uuid: 'of all', peer_listener: ['0:127.0.0.1:80'] }, [], config)
    assert.deepEqual(
      plans.map(({ place, id, name, secret, dial, listeners, peerListeners }) => [
        ...[place.name, id, name, secret, dial === 'any' ? dial : dial.length],
        ...[...listeners, ...peerListeners].map(({ Listen }) => formatEndpoint(Listen)),
      ]),
      [
        ['a:925', 'mine', 'mine', 'of a', 1, 'tcp://:2200', 'tcp://127.0.0.1:0'],
        ['a:925', 'me', 'me', 'of all', 'any', 'socks5://:1080', 'channel://work', 'tcp://127.0.0.1:0'],
      ],
    )
    assert.doesNotMatch(
      JSON.stringify(plans.flatMap(({ listeners, peerListeners }) => [listeners, peerListeners])),
      /"pw"|"y"/,
    )
  })

  test('is refused where it makes no sense', async () => {
    const config = configOf(client(0, { server: 'a' }), client(1, { server: 'b', local: ['0:c:2'] }))
    for (const [values, positionals, why, from] of [
      [
        { listener: ['1:c:2'] },
        ['a', 'b'],
        /^-L with 2 servers: connections could go to one of them only\. Say which in /,
      ],
      [{ dynamic: ['1080'] }, ['a', 'b'], /^-D with 2 servers: /],
      [{ dynamic: ['1080'] }, [], /^-D with 2 servers: /, config],
      [{ host: 'a' }, ['b'], /^the server is named with --host and without: /],
      [{ host: 'a', server: 'b' }, [], /^--host and --server are both given: keep one$/],
      [{}, ['a', 'htp://b'], /^the server: unknown transport "htp": /],
      [{ server: 'c' }, [], /^--server: node\.toml has no server c:925: it has a:925, b:925$/, config],
      [{ port: '1' }, ['a:2'], /^the server: a:2 has a port, and --port is given: keep one$/],
    ] as const) {
      await assert.rejects(plan(values, [...positionals], from), { code: 'PROXY_ERR_USAGE', message: why })
    }
    const [chosen, more] = await plan({ dynamic: ['1080'] }, ['b'], config)
    assert.deepEqual([chosen?.place.name, chosen?.listeners.length, more], ['b:925', 2, undefined])
  })

  test('says where in a file it is that something is wrong', async () => {
    for (const [entry, why] of [
      [{ server: 'htp://a' }, /^node\.toml: client\[0\]: server: unknown transport "htp"/],
      [{ server: 'a', secret: ' ' }, /^node\.toml: client\[0\]: uuid: the secret is empty/],
      [{ server: 'a', id: 'a b' }, /^node\.toml: client\[0\]: id: a name has 1 to 64 bytes, and no spaces$/],
      [{ server: 'a', remote: ['tcp://a:pa55@'] }, /^node\.toml: client\[0\]: bad SPEC /],
    ] as const) {
      await assert.rejects(plan({}, [], configOf(client(0, entry))), (error) => {
        assert.ok(error instanceof ProxyError)
        assert.equal(error.code, 'PROXY_ERR_CONFIG')
        assert.match(error.message, why)
        assert.doesNotMatch(error.message, /pa55|\n/)
        return true
      })
    }
  })
})

describe('the secret of a server', () => {
  test('is the given one, the one that was kept for it, that of a server on this machine, or what a person types', async (t) => {
    const state = stateOf(t)
    await keepSecret(state, 'of this machine')
    await keepSecret(state, 'kept for b', secretFileFor('b:925'))
    const asked: string[] = []
    const ask = async (question: string): Promise<string> => {
      asked.push(question)
      return 'typed'
    }
    const given = await plan({ uuid: 'given' }, ['b'])
    const others = await plan({}, ['b', '127.0.0.1', 'c', 'c'])
    const { ready, exposed } = await findSecrets([...given, ...others], state, ask)
    assert.deepEqual(
      ready.map(({ secret }) => secret),
      ['given', 'kept for b', 'of this machine', 'typed', 'typed'],
    )
    assert.deepEqual([asked.length, exposed], [1, false])
    assert.match(asked[0] ?? '', /^Secret of c:925 /)
    assert.equal(statSync(state.file(secretFileFor('c:925'))).size, 'typed\n'.length)
  })

  test('is missing with a line that says what to do, and nothing is kept of the others', async (t) => {
    const state = stateOf(t)
    const config = configOf(client(0, { server: 'a' }), client(1, { server: 'b' }))
    const answers = ['typed', undefined]
    await assert.rejects(
      findSecrets(await plan({}, [], config), state, async () => answers.shift()),
      {
        code: 'PROXY_ERR_SECRET',
        message: 'the secret of b:925 is missing: add auth to client[1]',
      },
    )
    assert.throws(() => statSync(state.file(secretFileFor('a:925'))), { code: 'ENOENT' })
  })
})
