import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Frame } from '../../lib/core/frame.ts'
import type { ProxyError, SubConnection } from '../../lib/core/index.ts'
import { createPolicy, parsePattern, parsePortRanges, tcp } from '../../lib/index.ts'
import { type Attack, attack, credit, json, NEVER, ROLES, SINK } from '../helpers/contract/attacker.ts'
import { CODE } from '../helpers/contract/code.ts'
import { program } from '../helpers/contract/programs.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { frame, openPayload, u32, u64 } from '../helpers/core/bytes.ts'

/** A peer that holds the secret and does what it likes. Each rule broken ends the session with a code of its own. */

watchForStrays()

const RESET = Buffer.from([0])
const fin = (id: number): Buffer => frame(Frame.fin, id)
const reset = (id: number): Buffer => frame(Frame.reset, id, RESET)
const data = (id: number, length: number): Buffer => frame(Frame.data, id, Buffer.alloc(length))
const listen = (id: number, at: unknown = CODE): Buffer => frame(Frame.listen, id, json({ Listen: at }))
const reasonOf = (payload: Buffer): string => payload.toString('latin1', 1, 1 + ((payload[0] ?? 0) & 0x7f))

/** Attacks that end the session: what is done, and the code. */
const FATAL: Record<string, [code: string, run: (attack: Attack) => Promise<void> | void]> = {
  'data for an id that is not in use': ['PROXY_ERR_UNKNOWN_ID', ({ raw, mine }) => raw.send(data(mine(1), 1))],
  'data for an id of the other side that is not in use': [
    'PROXY_ERR_UNKNOWN_ID',
    ({ raw, theirs }) => raw.send(data(theirs(1), 1)),
  ],
  'data for id 0': ['PROXY_ERR_UNKNOWN_ID', ({ raw }) => raw.send(data(0, 1))],
  'no data at all for an id that is not in use': ['PROXY_ERR_UNKNOWN_ID', ({ raw }) => raw.send(data(9, 0))],
  'a fin for an id that is not in use': ['PROXY_ERR_UNKNOWN_ID', ({ raw, mine }) => raw.send(fin(mine(1)))],
  'an opened for an id that is not in use': [
    'PROXY_ERR_UNKNOWN_ID',
    ({ raw, theirs }) => raw.send(frame(Frame.opened, theirs(1), u32(1))),
  ],
  'data for an id that is free again': [
    'PROXY_ERR_UNKNOWN_ID',
    async ({ raw, mine, sink }) => {
      await sink(1)
      raw.send(reset(mine(1)))
      await raw.next(Frame.reset, mine(1))
      raw.send(data(mine(1), 1))
    },
  ],
  'data beyond the window': [
    'PROXY_ERR_WINDOW_EXCEEDED',
    async ({ raw, mine, sink }) => raw.send(data(mine(1), (await sink(1)) + 1)),
  ],
  'data beyond the window, a byte at a time': [
    'PROXY_ERR_WINDOW_EXCEEDED',
    async ({ raw, mine, sink }) => {
      const window = await sink(1)
      raw.send(data(mine(1), window))
      for (let turn = 0; turn < 3; turn++) raw.send(data(mine(1), 1))
    },
  ],
  'data beyond the window of one that was reset, and not confirmed': [
    'PROXY_ERR_WINDOW_EXCEEDED',
    async ({ raw, mine, sink }) => {
      const window = await sink(1)
      for (const sub of raw.proxy.subConnections) sub.destroy()
      await raw.next(Frame.reset, mine(1))
      raw.send(data(mine(1), window), data(mine(1), 1))
    },
  ],
  'data after fin': [
    'PROXY_ERR_DATA_AFTER_FIN',
    async ({ raw, mine, sink }) => {
      await sink(1)
      raw.send(fin(mine(1)), data(mine(1), 1))
    },
  ],
  'data in the same record as the open and its fin': [
    'PROXY_ERR_DATA_AFTER_FIN',
    ({ raw, mine, open }) => raw.send(open(mine(1), NEVER), fin(mine(1)), data(mine(1), 1)),
  ],
  'a second fin': [
    'PROXY_ERR_DATA_AFTER_FIN',
    async ({ raw, mine, sink }) => {
      await sink(1)
      raw.send(fin(mine(1)), fin(mine(1)))
    },
  ],
  'an open with an id of the other side': ['PROXY_ERR_ID', ({ raw, theirs, open }) => raw.send(open(theirs(1)))],
  'an open with id 0': ['PROXY_ERR_ID', ({ raw, open }) => raw.send(open(0))],
  'an open with an id that is in use': [
    'PROXY_ERR_ID',
    async ({ raw, mine, open, sink }) => {
      await sink(1)
      raw.send(open(mine(1)))
    },
  ],
  'an open with an id that was reset, and not confirmed': [
    'PROXY_ERR_ID',
    async ({ raw, mine, open }) => {
      raw.send(open(mine(1), { Domain: 'nowhere', Addr: '' }))
      await raw.next(Frame.reset, mine(1))
      raw.send(open(mine(1)))
    },
  ],
  'a credit of zero': [
    'PROXY_ERR_FRAME',
    async ({ raw, mine, sink }) => {
      await sink(1)
      raw.send(credit(mine(1), 0))
    },
  ],
  'a credit of 3 bytes': ['PROXY_ERR_FRAME', ({ raw }) => raw.send(frame(Frame.credit, 1, 'abc'))],
  'a credit of 5 bytes': ['PROXY_ERR_FRAME', ({ raw }) => raw.send(frame(Frame.credit, 1, 'abcde'))],
  'credit beyond all bounds': [
    'PROXY_ERR_FRAME',
    async ({ raw, mine, sink }) => {
      await sink(1)
      const many = Buffer.concat(Array<Buffer>(40_000).fill(credit(mine(1), 0xffff_ffff)))
      // 2^53 divided by 2^32, and a record more.
      for (let sent = 0; sent <= 2 ** 21; sent += 40_000) raw.sendRecord(many)
    },
  ],
  'an answer to what was never asked': [
    'PROXY_ERR_FRAME',
    async ({ raw, mine, sink }) => {
      await sink(1)
      raw.send(frame(Frame.opened, mine(1), u32(1)))
    },
  ],
  'a second answer to an open': [
    'PROXY_ERR_FRAME',
    async ({ raw }) => {
      void raw.proxy.open({ to: SINK })
      const { id } = await raw.next(Frame.open)
      raw.send(frame(Frame.opened, id, u32(1)), frame(Frame.opened, id, u32(1)))
    },
  ],
  'an open that is cut off': ['PROXY_ERR_FRAME', ({ raw, mine }) => raw.send(frame(Frame.open, mine(1), 'abc'))],
  'a second hello': ['PROXY_ERR_FRAME', ({ raw }) => raw.sendHello()],
  'an ack in a counted record': [
    'PROXY_ERR_FRAME',
    ({ raw, mine, open }) => raw.send(open(mine(1)), frame(Frame.ack, 0, u64(0))),
  ],
  'a counted frame in an uncounted record': [
    'PROXY_ERR_FRAME',
    ({ raw, mine, open }) => raw.send(frame(Frame.ping, 0, Buffer.alloc(8)), open(mine(1))),
  ],
  'an ack of what was never sent': ['PROXY_ERR_ACK_RANGE', ({ raw }) => raw.ack(1_000_000)],
  'an ack that goes back': [
    'PROXY_ERR_ACK_RANGE',
    async ({ raw, sink }) => {
      await sink(1)
      raw.ack()
      raw.ack(0)
    },
  ],
  'an ack of 7 bytes': ['PROXY_ERR_FRAME', ({ raw }) => raw.send(frame(Frame.ack, 0, Buffer.alloc(7)))],
  'an ack beyond 2^53': ['PROXY_ERR_FRAME', ({ raw }) => raw.send(frame(Frame.ack, 0, Buffer.alloc(8, 0xff)))],
  'a ping of 7 bytes': ['PROXY_ERR_FRAME', ({ raw }) => raw.send(frame(Frame.ping, 0, Buffer.alloc(7)))],
  'a giant control payload': [
    'PROXY_ERR_FRAME',
    ({ raw, mine }) => raw.send(frame(Frame.open, mine(1), Buffer.alloc(8193, 0x20))),
  ],
  'a control payload as large as a record': [
    'PROXY_ERR_FRAME',
    ({ raw }) => raw.send(frame(Frame.listen, 1, Buffer.alloc(400_000, 0x20))),
  ],
  'a frame that is longer than its record': [
    'PROXY_ERR_FRAME',
    ({ raw, mine }) => raw.send(frame(Frame.open, mine(1), 'abcd', 100)),
  ],
  'data that is longer than its record': [
    'PROXY_ERR_FRAME',
    async ({ raw, mine, sink }) => {
      await sink(1)
      raw.send(frame(Frame.data, mine(1), 'abcd', 5))
    },
  ],
  'a header that is cut off': ['PROXY_ERR_FRAME', ({ raw }) => raw.sendRecord(Buffer.from([Frame.fin, 0, 0]))],
  'a listener id that is used twice': [
    'PROXY_ERR_ID',
    async ({ raw }) => {
      raw.send(listen(1))
      await raw.next(Frame.listening, 1)
      raw.send(listen(1))
    },
  ],
  'a listener id that is used again after unlisten': [
    'PROXY_ERR_ID',
    ({ raw }) => raw.send(listen(7), frame(Frame.unlisten, 7), listen(7)),
  ],
  'a listener id that goes down': ['PROXY_ERR_ID', ({ raw }) => raw.send(listen(7), listen(6))],
  'a listener id of 0': ['PROXY_ERR_ID', ({ raw }) => raw.send(listen(0))],
  'a record that is too long': ['PROXY_ERR_RECORD_TOO_LARGE', ({ raw }) => raw.sendRaw(u32(524_289))],
  'a record that is too short': ['PROXY_ERR_RECORD_TOO_SHORT', ({ raw }) => raw.sendRaw(u32(16))],
  'a record that does not open': [
    'PROXY_ERR_RECORD_AUTH',
    ({ raw }) => raw.sendRaw(Buffer.concat([u32(17), Buffer.alloc(17)])),
  ],
}

for (const [what, [code, run]] of Object.entries(FATAL)) {
  for (const role of ROLES) {
    test(`${what} is ${code} (by the ${role})`, async () => {
      await attack(role, {}, async (attack) => {
        await run(attack)
        if (code.startsWith('PROXY_ERR_RECORD_')) {
          // It may have been anybody: nobody is told, and the session waits for another link.
          assert.equal((await soon(attack.raw.lost, 'the end of the link')).code, code)
          await attack.raw.over()
          assert.ok(!attack.raw.frames.some(({ type }) => type === Frame.goaway))
          assert.equal(attack.raw.main.reason, undefined)
          assert.equal(attack.raw.proxy.state, 'resuming')
        } else {
          await attack.ends(code)
        }
      })
    })
  }
}

test('every frame type that protocol.md does not have is PROXY_ERR_FRAME', async () => {
  const known = new Set<number>(Object.values(Frame))
  for (let type = 0x05; type <= 0xff; type += type < 0x30 ? 1 : 23) {
    if (known.has(type)) continue
    await attack('dialler', {}, async ({ raw, ends }) => {
      raw.send(frame(type, 1, 'x'))
      await ends('PROXY_ERR_FRAME')
    })
  }
})

const MALFORMED: Record<string, string | Uint8Array> = {
  'no JSON': '{',
  nothing: '',
  null: 'null',
  'an array': '[]',
  'a number': '7',
  'a string': '"x"',
  'bytes that are no UTF-8': Buffer.from([0x7b, 0xff, 0xfe, 0x7d]),
  'an empty object': '{}',
  'a deep nest': '['.repeat(8000),
  'a deep nest in an object': `{"to":${'['.repeat(4000)}${']'.repeat(4000)},"Listen":1}`.slice(0, 8100),
  'an endpoint that is a string': '{"to":"tcp://x","Listen":"tcp://x"}',
  'an endpoint without Addr': '{"to":{"Domain":"tcp"},"Listen":{"Domain":"tcp"}}',
  'an endpoint of numbers': '{"to":{"Domain":1,"Addr":2},"Listen":{"Domain":1,"Addr":2}}',
  'an endpoint with an empty Domain': '{"to":{"Domain":"","Addr":""},"Listen":{"Domain":"","Addr":""}}',
  'an endpoint with a long Addr': json({
    to: { Domain: 'tcp', Addr: 'x'.repeat(1025) },
    Listen: { Domain: 'tcp', Addr: 'x'.repeat(1025) },
  }),
  'an endpoint behind __proto__':
    '{"__proto__":{"to":{"Domain":"sink","Addr":""},"Listen":{"Domain":"sink","Addr":""}}}',
}

for (const [what, text] of Object.entries(MALFORMED)) {
  test(`an open or a listen with ${what} ends the session and nothing else`, async () => {
    for (const [type, payload] of [
      [Frame.open, Buffer.concat([u32(1), Buffer.from(text)])],
      [Frame.listen, Buffer.from(text)],
    ] as const) {
      await attack('dialler', {}, async ({ raw, mine, ends }) => {
        raw.send(frame(type, mine(1), payload))
        const { code } = await soon(raw.ended, 'the end')
        assert.match(code, /^PROXY_ERR_(FRAME|ENDPOINT)$/)
        await ends(code)
      })
    }
  })
}

test('an open that leads to a listener and an endpoint, or to a listener that is no number, is malformed', async () => {
  for (const request of [
    { listener: 1, to: SINK },
    { listener: '1' },
    { listener: null },
    { listener: {} },
    { from: 'x' },
  ]) {
    await attack('acceptor', {}, async ({ raw, mine }) => {
      raw.send(frame(Frame.open, mine(1), openPayload(1, request)))
      assert.match((await soon(raw.ended, 'the end')).code, /^PROXY_ERR_(FRAME|ENDPOINT)$/)
    })
  }
})

for (const role of ROLES) {
  test(`what may cross on the way is not held against a peer (${role})`, async () => {
    await attack(role, {}, async ({ raw, mine, theirs, sink, goesOn }) => {
      raw.send(credit(mine(1), 5), credit(theirs(1), 5), reset(mine(1)), reset(theirs(1)))
      raw.send(frame(Frame.unlisten, 99), frame(Frame.listening, 99, json({ bound: CODE })))
      raw.send(frame(Frame.refused, 99, RESET))
      raw.send(frame(Frame.pong, 0, Buffer.alloc(8)))
      await goesOn()
      const window = await sink(1)
      for (const sub of raw.proxy.subConnections) if (sub.id === mine(1)) sub.destroy()
      await raw.next(Frame.reset, mine(1))
      // Late data within the window is dropped, and so is its credit.
      raw.send(data(mine(1), window), credit(mine(1), 1), fin(mine(1)))
      await goesOn()
      await nothingLeft(raw.proxy)
    })
  })

  test(`a fin or a reset may come before opened (${role})`, async () => {
    await attack(role, {}, async ({ raw, goesOn }) => {
      const first = await raw.proxy.open({ to: SINK })
      const { id } = await raw.next(Frame.open)
      raw.send(fin(id), frame(Frame.opened, id, u32(100)))
      await once(first, 'connect')
      first.resume()
      first.end()
      const second = raw.proxy.dial({ Domain: 'x', Addr: '' })
      const rejected = assert.rejects(second, { code: 'PROXY_ERR_RESET' })
      raw.send(reset((await raw.next(Frame.open)).id))
      await rejected
      const third = await raw.proxy.open({ to: SINK })
      third.resume()
      third.end()
      const open = await raw.next(Frame.open)
      raw.send(fin(open.id))
      await goesOn()
      await nothingLeft(raw.proxy)
    })
  })

  test(`data in one frame of nothing, or in bytes of one, is data (${role})`, async () => {
    await attack(role, {}, async ({ raw, code, theirs, goesOn }) => {
      raw.send(listen(1))
      await raw.next(Frame.listening)
      const sub = await code.open()
      const id = theirs(1)
      raw.send(frame(Frame.opened, id, u32(100)), data(id, 0), frame(Frame.data, id, 'a'), data(id, 0))
      raw.send(frame(Frame.data, id, 'b'), fin(id))
      sub.setEncoding('utf8')
      let text = ''
      for await (const chunk of sub) text += chunk
      assert.equal(text, 'ab')
      sub.end()
      await goesOn()
    })
  })
}

test('a reason of the peer is cleaned before anybody sees it', async () => {
  const reason = (code: string, text: string): Buffer =>
    Buffer.concat([Buffer.from([code.length]), Buffer.from(code + text)])
  const cases: [Uint8Array, string, RegExp][] = [
    [Buffer.alloc(0), 'PROXY_ERR_RESET', /^the other side reset the sub-connection$/],
    [Buffer.from([255, 1]), 'PROXY_ERR_RESET', /reset/],
    [reason('ENOENT', 'x'), 'PROXY_ERR_RESET', /reset/],
    [reason('PROXY_ERR_x', 'x'), 'PROXY_ERR_RESET', /reset/],
    [reason('PROXY_ERR_OWN', 'a\r\nb\u001b[31m\u2028\u202e'), 'PROXY_ERR_OWN', /^a\?\?b\?\[31m\?\?$/],
    [reason('PROXY_ERR_OWN', 'y'.repeat(8000)), 'PROXY_ERR_OWN', /^y{500}$/],
    [reason('PROXY_ERR_OWN', '\ud800'), 'PROXY_ERR_OWN', /./],
  ]
  await attack('dialler', {}, async ({ raw }) => {
    for (const [payload, code, message] of cases) {
      const sub = await raw.proxy.open({ to: SINK })
      const failed = once(sub, 'error') as Promise<[ProxyError]>
      raw.send(frame(Frame.reset, (await raw.next(Frame.open)).id, payload))
      const [error] = await failed
      assert.equal(error.code, code)
      assert.match(error.message, message)
    }
  })
})

test('a name of a user that the peer tells is cleaned and cut', async () => {
  await attack('dialler', {}, async ({ raw, mine }) => {
    const opened = once(raw.proxy, 'open') as Promise<[SubConnection]>
    const from = `1.2.3.4:5\n${'z'.repeat(5000)}`
    raw.send(frame(Frame.open, mine(1), openPayload(1, { to: SINK, from })))
    const [sub] = await opened
    assert.match(sub.remote ?? '', /^1\.2\.3\.4:5\?z+$/)
    assert.ok((sub.remote ?? '').length <= 128)
  })
})

test('a listen that policy denies is refused, nothing is bound, and the session goes on', async () => {
  const policy = createPolicy({ dial: 'any', listenPorts: parsePortRanges('7000-7010') })
  await attack('dialler', { proxy: { policy, domains: [tcp()] } }, async ({ raw, code, goesOn }) => {
    for (const [id, at] of [
      [1, { Domain: 'tcp', Addr: '127.0.0.1:0' }],
      [2, { Domain: 'tcp', Addr: '127.0.0.1:22' }],
      [3, CODE],
      [4, { Domain: 'tcp', Addr: '127.0.0.1:7000:x' }],
    ] as const) {
      raw.send(listen(id, at))
      assert.equal(reasonOf((await raw.next(Frame.refused, id)).payload), 'PROXY_ERR_LISTEN_DENIED')
    }
    assert.equal(code.listening, 0)
    raw.send(listen(5, { Domain: 'nowhere', Addr: '' }))
    assert.equal(reasonOf((await raw.next(Frame.refused, 5)).payload), 'PROXY_ERR_UNKNOWN_DOMAIN')
    await goesOn()
  })
})

for (const role of ROLES) {
  test(`a dial that resolves to a denied address is PROXY_ERR_DIAL_DENIED, and nothing is connected (${role})`, async () => {
    await using target = await program()
    const policy = createPolicy({
      dial: [parsePattern('10.0.0.0/8:*'), parsePattern('*.example:*')],
      listenPorts: 'none',
    })
    await attack(role, { proxy: { policy, domains: [tcp()] } }, async ({ raw, mine, open }) => {
      const names = [
        'localhost',
        '127.0.0.1',
        '127.1',
        '[::1]',
        '[::ffff:127.0.0.1]',
        '',
        '0',
        '2130706433',
        '0x7f000001',
      ]
      for (const [index, name] of names.entries()) {
        const id = mine(index + 1)
        raw.send(open(id, { Domain: 'tcp', Addr: `${name}:${target.port}` }), data(id, 100))
        const { payload } = await soon(raw.next(Frame.reset, id), name)
        assert.match(reasonOf(payload), /^PROXY_ERR_DIAL_(DENIED|FAILED)$/, name)
        if (index < 2) assert.equal(reasonOf(payload), 'PROXY_ERR_DIAL_DENIED', name)
        raw.send(reset(id))
      }
      assert.equal(target.sockets.size, 0)
      await nothingLeft(raw.proxy)
    })
  })
}

test('opens of a listener that was not asked for are PROXY_ERR_UNKNOWN_LISTENER', async () => {
  await attack('acceptor', {}, async ({ raw, mine, goesOn }) => {
    for (const [index, listener] of [0, 1, -1, 1.5, 2 ** 40].entries()) {
      const id = mine(index + 1)
      raw.send(frame(Frame.open, id, openPayload(1, { listener })))
      assert.equal(reasonOf((await raw.next(Frame.reset, id)).payload), 'PROXY_ERR_UNKNOWN_LISTENER')
      raw.send(reset(id))
    }
    await goesOn()
  })
})

test('answers to a listen that make no sense end the session, or are not heard', async () => {
  for (const [type, payload] of [
    [Frame.listening, json({})],
    [Frame.listening, Buffer.from('x')],
    [Frame.listening, json({ bound: 'x' })],
  ] as const) {
    await attack('acceptor', {}, async ({ raw }) => {
      const accepting = raw.proxy.accept(CODE)
      const rejected = assert.rejects(accepting, { name: 'ProxyError' })
      raw.send(frame(type, (await raw.next(Frame.listen)).id, payload))
      assert.match((await soon(raw.ended, 'the end')).code, /^PROXY_ERR_(FRAME|ENDPOINT)$/)
      await rejected
    })
  }
  await attack('acceptor', {}, async ({ raw, goesOn }) => {
    const accepting = raw.proxy.accept(CODE)
    const { id } = await raw.next(Frame.listen)
    raw.send(frame(Frame.listening, id, json({ bound: CODE })), frame(Frame.listening, id, json({ bound: SINK })))
    raw.send(frame(Frame.refused, id, RESET))
    assert.deepEqual((await accepting).bound, CODE)
    await goesOn()
  })
})

test('a goaway ends the session with its reason, and what stands behind it is not read', async () => {
  await attack('dialler', {}, async ({ raw, mine, open }) => {
    raw.send(frame(Frame.goaway, 0, RESET), open(mine(1), NEVER), open(0))
    assert.equal((await soon(raw.ended, 'the end')).code, 'PROXY_ERR_CLOSED')
  })
})
