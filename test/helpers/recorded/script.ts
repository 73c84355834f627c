import { Frame } from '../../../lib/core/frame.ts'
import { frame, openPayload, PREAMBLE, u32 } from '../core/bytes.ts'
import type { Act, Fixture, RecordedLink, Step } from './fixture.ts'

/** What the raw side does in the recorded sessions; what the real side answers is recorded. */

const LIMITS = '00000000 00004000 00000400'
const ECHO = { Domain: 'echo', Addr: 'x' }
const CODE = { Domain: 'code', Addr: 'x' }

const text = (bytes: Buffer): string => `${bytes.toString('hex', 0, 8)} ${bytes.toString('hex', 8)}`.trim()
const json = (value: unknown): string => JSON.stringify(value)
const raw = (...frames: readonly Buffer[]): Step => ({ raw: frames.map(text) })
const act = (act: Act): Step => ({ act })

function reason(code: string, words: string, retryable = false): Buffer {
  return Buffer.concat([Buffer.from([code.length + (retryable ? 0x80 : 0)]), Buffer.from(code + words)])
}

/** Fields of a hello: a label, and one that nobody knows. */
const FIELDS = '01 0004 72617731 7f 0003 787878'
/** Of a hello with these: 8 bytes of number, and 13. */
const HEADER = '0000000000000015'

/** The n-th id of the raw side, and of the real one. */
interface Ids {
  mine(n: number): number
  theirs(n: number): number
}

/** Everything that concerns one sub-connection, one after the other. */
function subConnections({ mine, theirs }: Ids): Step[] {
  const data = (id: number, bytes: string): Buffer => frame(Frame.data, id, bytes)
  const fin = (id: number): Buffer => frame(Frame.fin, id)
  return [
    // Early data and an early fin; unknown keys; data in pieces, one of them empty.
    raw(
      frame(Frame.open, mine(1), openPayload(1000, { to: { ...ECHO, Port: 7 }, from: '192.0.2.1:1', later: [1] })),
      data(mine(1), 'ear'),
      data(mine(1), ''),
      data(mine(1), 'ly'),
      fin(mine(1)),
    ),
    // Half-close from this side only after an answer.
    raw(frame(Frame.open, mine(2), openPayload(65_536, { to: ECHO }))),
    raw(data(mine(2), 'one'), frame(Frame.credit, mine(2), u32(5000))),
    raw(data(mine(2), 'two')),
    raw(fin(mine(2))),
    // Refused, confirmed; the id is free, and what may have crossed does no harm.
    raw(frame(Frame.open, mine(3), openPayload(1, { to: { Domain: 'nobody', Addr: '' } }))),
    raw(frame(Frame.reset, mine(3), Buffer.from([0]))),
    raw(frame(Frame.reset, mine(3), Buffer.from([0])), frame(Frame.credit, mine(3), u32(1))),
    raw(frame(Frame.open, mine(4), openPayload(1, { to: { Domain: 'echo', Addr: 'nowhere' } }))),
    raw(fin(mine(4))),
    raw(frame(Frame.open, mine(5), openPayload(1, { listener: 99 }))),
    raw(frame(Frame.reset, mine(5), reason('PROXY_ERR_OWN', 'ours'))),
    // The real side opens: answered, refused, given up by itself.
    act('open'),
    raw(frame(Frame.opened, theirs(1), u32(100))),
    act('write'),
    raw(data(theirs(1), 'back'), fin(theirs(1))),
    act('end'),
    act('open'),
    raw(frame(Frame.reset, theirs(2), reason('PROXY_ERR_DIAL_FAILED', 'no', true))),
    act('open'),
    act('destroy'),
    raw(frame(Frame.opened, theirs(3), u32(100)), frame(Frame.reset, theirs(3), Buffer.from([0]))),
  ]
}

function listeners({ mine, theirs }: Ids): Step[] {
  const listen = (id: number, at: unknown): Buffer => frame(Frame.listen, id, json({ Listen: at, more: 1 }))
  return [
    raw(listen(1, CODE)),
    act('come'),
    act('write'),
    act('end'),
    raw(frame(Frame.opened, theirs(4), u32(1000)), frame(Frame.fin, theirs(4))),
    raw(frame(Frame.unlisten, 1)),
    raw(listen(7, { Domain: 'nobody', Addr: '' })),
    // The raw side listens, and somebody comes in there.
    act('listen'),
    raw(frame(Frame.listening, 1, json({ bound: { Domain: 'raw', Addr: 'here' } }))),
    raw(
      frame(Frame.open, mine(6), openPayload(500, { listener: 1, from: '192.0.2.2:2' })),
      frame(Frame.data, mine(6), 'in'),
    ),
    raw(frame(Frame.fin, mine(6))),
    act('unlisten'),
    raw(frame(Frame.open, mine(7), openPayload(500, { listener: 1 }))),
    raw(frame(Frame.reset, mine(7), Buffer.from([0]))),
    act('listen'),
    raw(frame(Frame.refused, 2, reason('PROXY_ERR_LISTEN_FAILED', 'no'))),
  ]
}

const session: readonly Step[] = [
  raw(frame(Frame.ping, 0, 'pingpong')),
  raw(frame(Frame.draining, 0, Buffer.from([0]))),
]

/** All steps, without any answers. */
export function script(suite: Fixture['suite'], role: Fixture['raw']): Fixture {
  const first = role === 'dialler' ? 1 : 2
  const ids: Ids = { mine: (n) => first + 2 * (n - 1), theirs: (n) => 3 - first + 2 * (n - 1) }
  const hello = { raw: `${HEADER} 0000000000000000 ${FIELDS}`, real: '' }
  const end = role === 'dialler' ? raw(frame(Frame.goaway, 0, reason('PROXY_ERR_CLOSED', 'bye'))) : act('close')
  if (suite === 'key') {
    const steps = [...subConnections(ids), ...listeners(ids), ...session, end]
    return { protocol: 1, suite, raw: role, links: [{ hello, steps }] }
  }
  const preamble = PREAMBLE[suite].toString('hex')
  const resuming = (epoch: number): [string, string, string] => [
    preamble,
    `session ${epoch.toString(16).padStart(8, '0')} ${LIMITS}`,
    `session 01 ${LIMITS}`,
  ]
  const again = (number: string): RecordedLink['hello'] => ({ raw: `${HEADER} ${number} ${FIELDS}`, real: '' })
  const open: Step = raw(frame(Frame.open, ids.mine(8), openPayload(1000, { to: ECHO })))
  const links: RecordedLink[] = [
    {
      handshake: [preamble, `${'00'.repeat(16)} 00000000 ${LIMITS}`, `session 00 ${LIMITS}`],
      hello,
      steps: [...subConnections(ids), open, raw(frame(Frame.data, ids.mine(8), 'before'))],
    },
    // All had arrived: nothing goes again.
    {
      handshake: resuming(1),
      hello: again('received'),
      steps: [
        raw(frame(Frame.data, ids.mine(8), 'behind')),
        ...listeners(ids),
        raw(frame(Frame.data, ids.mine(8), 'last')),
      ],
    },
    // The last one had not: the real side sends it once more, before anything else.
    {
      handshake: resuming(2),
      hello: again('received-1'),
      steps: [...session, raw(frame(Frame.fin, ids.mine(8))), end],
    },
  ]
  return { protocol: 1, suite, raw: role, links }
}
