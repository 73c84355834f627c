import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ListenContext, SubConnection } from '../../../lib/core/index.ts'
import { localPair } from '../../../lib/core/local-pair.ts'
import { channel, createChannels, tunnel } from '../../../lib/domains/channel.ts'
import { watchForStrays } from '../../helpers/contract/strays.ts'

watchForStrays()

const SSH = { Domain: 'channel', Addr: 'ssh' }

/** One that registers: what is opened to it. */
function registrant(): ListenContext & { readonly far: SubConnection[] } {
  const far: SubConnection[] = []
  return {
    far,
    signal: new AbortController().signal,
    async open({ from } = {}) {
      const [near, other] = localPair(from)
      far.push(other)
      return near
    },
  }
}

function context(signal = new AbortController().signal): { signal: AbortSignal; addresses: readonly string[] } {
  return { signal, addresses: [] }
}

test('a name leads to who has registered it, until that one lets go', async () => {
  const { domain, names } = createChannels()
  const one = registrant()
  const listener = await domain.listen?.(SSH, one)
  assert.deepEqual(listener?.bound, SSH)
  assert.deepEqual([...names], ['ssh'])
  const dialling = domain.dial?.(SSH, context())
  await new Promise((resolve) => setImmediate(resolve))
  const [far] = one.far
  assert.ok(far)
  await listener?.close()
  assert.deepEqual([...names], [])
  await assert.rejects(domain.dial?.(SSH, context()) ?? Promise.resolve(), {
    code: 'PROXY_ERR_NO_CHANNEL',
    message: 'no node offers channel ssh',
    retryable: true,
  })
  far.destroy()
  await assert.rejects(dialling ?? Promise.resolve())
})

test('a name is registered once; whoever lets go late takes nobody else\u2019s away', async () => {
  const { domain, names } = createChannels()
  const first = await domain.listen?.(SSH, registrant())
  await assert.rejects(domain.listen?.(SSH, registrant()) ?? Promise.resolve(), {
    code: 'PROXY_ERR_CHANNEL_TAKEN',
    message: 'channel ssh is offered already',
    retryable: true,
  })
  await first?.close()
  await domain.listen?.(SSH, registrant())
  await first?.close()
  assert.deepEqual([...names], ['ssh'])
})

test('what is no name is neither registered nor found, and not repeated', async () => {
  const { domain, names } = createChannels()
  for (const Addr of ['', '..', 'a b', 'a\nb', 'x'.repeat(65), 'ssh:s3cr3t@']) {
    const at = { Domain: 'channel', Addr }
    const quiet = (error: Error): boolean => !error.message.includes('s3cr3t') && !error.message.includes('\n')
    await assert.rejects(domain.listen?.(at, registrant()) ?? Promise.resolve(), quiet)
    await assert.rejects(domain.dial?.(at, context()) ?? Promise.resolve(), quiet)
  }
  assert.deepEqual([...names], [])
})

test('there is an end to how many names are registered', async () => {
  const { domain } = createChannels()
  for (let number = 0; number < 32_768; number++) {
    await domain.listen?.({ Domain: 'channel', Addr: `n${number}` }, registrant())
  }
  await assert.rejects(domain.listen?.(SSH, registrant()) ?? Promise.resolve(), { code: 'PROXY_ERR_LISTEN_FAILED' })
})

test('a dial that is given up leaves nothing open', async () => {
  const { domain } = createChannels()
  const one = registrant()
  await domain.listen?.(SSH, one)
  const abort = new AbortController()
  const dialling = domain.dial?.(SSH, context(abort.signal))
  await new Promise((resolve) => setImmediate(resolve))
  abort.abort()
  await assert.rejects(dialling ?? Promise.resolve(), { code: 'PROXY_ERR_ABORTED' })
  await assert.rejects(domain.dial?.(SSH, context(AbortSignal.abort())) ?? Promise.resolve(), {
    code: 'PROXY_ERR_ABORTED',
  })
})

test('a node neither listens on channels itself nor dials them, and says what to do', async () => {
  const unknown = { code: 'PROXY_ERR_UNKNOWN_DOMAIN' }
  const here = channel()
  await assert.rejects(here.listen?.(SSH, registrant()) ?? Promise.resolve(), /--peer_listener/)
  await assert.rejects(here.dial?.(SSH, context()) ?? Promise.resolve(), unknown)
  await assert.rejects(tunnel().dial?.({ Domain: 'tunnel', Addr: 'x' }, context()) ?? Promise.resolve(), unknown)
  assert.equal(tunnel().listen, undefined)
})
