import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import { Frame } from '../../../lib/core/frame.ts'
import type { DomainPlugin, Endpoint } from '../../../lib/core/index.ts'
import { frame, openPayload, u32 } from '../core/bytes.ts'
import { type RawOptions, type RawPeer, rawPeer } from '../core/raw-peer.ts'
import { type CodeDomain, codeDomain } from './code.ts'
import { nothingLeft, soon } from './strays.ts'

export const SINK: Endpoint = { Domain: 'sink', Addr: '' }
export const NEVER: Endpoint = { Domain: 'never', Addr: '' }
export const ROLES = ['dialler', 'acceptor'] as const

export interface Attack {
  readonly raw: RawPeer
  /** What the real side can be made to listen on, by code. */
  readonly code: CodeDomain
  /** Dials under way to NEVER. */
  readonly dialling: { now: number; most: number }
  /** The attacker's n-th id, and the victim's. */
  mine(n: number): number
  theirs(n: number): number
  /** An open frame. */
  open(id: number, to?: Endpoint, credit?: number): Buffer
  /** Opens to a program that reads nothing; answers the window. */
  sink(n: number): Promise<number>
  /** The session ends with this code and nothing is left; the attacker is told the same. */
  ends(code: string): Promise<void>
  /** Without a look at what the attacker is told. */
  endsSomehow(code: string): Promise<void>
  /** The session goes on: an open is still answered. */
  goesOn(): Promise<void>
}

/** A raw peer of a Proxy with domains `sink` (connects, reads nothing), `never` (dials until given up) and `code`. */
export async function attack(
  role: 'dialler' | 'acceptor',
  options: RawOptions,
  run: (attack: Attack) => Promise<void>,
): Promise<void> {
  const code = codeDomain()
  const dialling = { now: 0, most: 0 }
  const domains: DomainPlugin[] = [code, sinkDomain(), neverDomain(dialling), ...(options.proxy?.domains ?? [])]
  await using raw = await rawPeer(role, { ...options, proxy: { ...options.proxy, domains } })
  const first = role === 'dialler' ? 1 : 2
  const mine = (n: number): number => first + 2 * (n - 1)
  const open = (id: number, to: Endpoint = SINK, credit = 65_536): Buffer =>
    frame(Frame.open, id, openPayload(credit, { to }))
  let probe = 500_000
  const endsSomehow = async (expected: string): Promise<void> => {
    const reason = await soon(raw.ended, `the end with ${expected}`, 20_000)
    assert.equal(reason.code, expected)
    await nothingLeft(raw.proxy)
  }
  await run({
    raw,
    code,
    dialling,
    mine,
    theirs: (n) => 3 - first + 2 * (n - 1),
    open,
    async sink(n) {
      raw.send(open(mine(n)))
      return (await soon(raw.next(Frame.opened, mine(n)), 'opened')).payload.readUInt32BE()
    },
    endsSomehow,
    async ends(expected) {
      await endsSomehow(expected)
      const { payload } = await soon(raw.next(Frame.goaway), 'goaway')
      assert.equal(payload.toString('latin1', 1, 1 + ((payload[0] ?? 0) & 0x7f)), expected)
      await soon(raw.over(), 'the end of the link')
    },
    async goesOn() {
      const id = mine(probe++)
      raw.send(open(id))
      await soon(raw.next(Frame.opened, id), 'an answer, after all')
      raw.send(frame(Frame.reset, id, Buffer.from([0])))
      assert.equal(raw.main.reason, undefined)
    },
  })
}

export const credit = (id: number, bytes: number): Buffer => frame(Frame.credit, id, u32(bytes))
export const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

/** Connects to a program that takes nothing and says nothing. */
function sinkDomain(): DomainPlugin {
  return { name: 'sink', dial: async () => new Duplex({ read() {}, write() {} }) }
}

function neverDomain(dialling: { now: number; most: number }): DomainPlugin {
  return {
    name: 'never',
    dial: (_to, { signal }) =>
      new Promise((_, reject) => {
        dialling.now++
        dialling.most = Math.max(dialling.most, dialling.now)
        signal.addEventListener('abort', () => {
          dialling.now--
          reject(new Error('given up'))
        })
      }),
  }
}
