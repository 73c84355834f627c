import fc from 'fast-check'
import type { SubConnection } from '../../../lib/core/index.ts'

/** What one end of a sub-connection does, one after the other. */
export type Step =
  | { readonly do: 'write'; readonly bytes: number }
  | { readonly do: 'pause'; readonly turns: number }
  | { readonly do: 'wait'; readonly turns: number }
  | { readonly do: 'reset' }

export interface Script {
  readonly steps: readonly Step[]
}

/** Mostly small writes, now and then some windows at once. */
const bytes = fc.oneof(
  { weight: 1, arbitrary: fc.constant(0) },
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 300 }) },
  { weight: 4, arbitrary: fc.integer({ min: 4000, max: 70_000 }) },
  { weight: 2, arbitrary: fc.integer({ min: 200_000, max: 900_000 }) },
)
const turns = fc.integer({ min: 1, max: 12 })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('write' as const), bytes }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('pause' as const), turns }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), turns }) },
)

/** Ends with a fin unless there is a reset in it. */
export const script: fc.Arbitrary<Script> = fc
  .tuple(fc.array(step, { maxLength: 7 }), fc.integer({ min: 0, max: 5 }))
  .map(([steps, chance]) => ({ steps: chance === 0 ? [...steps, { do: 'reset' }] : steps }))

export const resets = (of: Script): boolean => of.steps.some((step) => step.do === 'reset')
export const total = (of: Script): number =>
  of.steps.reduce((sum, step) => sum + (step.do === 'write' ? step.bytes : 0), 0)

/** The byte at a place of the stream with this salt: wrong order, loss and doubling all show. */
function byteAt(salt: number, at: number): number {
  return ((at * 167) ^ (at >>> 8) ^ (at >>> 16) ^ salt) & 0xff
}

function bytesFrom(salt: number, at: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  for (let index = 0; index < length; index++) bytes[index] = byteAt(salt, at + index)
  return bytes
}

export interface Played {
  readonly received: number
  readonly ended: boolean
  readonly error: string | undefined
  /** What was wrong with the bytes. */
  readonly fault: string | undefined
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Plays a script at one end; resolves when the sub-connection is closed. `hears` is the salt of the other direction. */
export function play(sub: SubConnection, { steps }: Script, says: number, hears: number): Promise<Played> {
  let received = 0
  let ended = false
  let error: string | undefined
  let fault: string | undefined
  sub.on('error', (reason: Error & { code?: string }) => {
    error = reason.code ?? reason.message
  })
  sub.on('end', () => {
    ended = true
  })
  sub.on('data', (chunk: Buffer) => {
    if (ended) fault ??= 'data after the end'
    for (const byte of chunk) {
      if (byte !== byteAt(hears, received)) fault ??= `a wrong byte at ${received}`
      received++
    }
  })
  const acting = (async () => {
    let written = 0
    for (const step of steps) {
      if (sub.destroyed) return
      if (step.do === 'reset') {
        sub.destroy()
        return
      }
      if (step.do === 'write') {
        const room = sub.write(bytesFrom(says, written, step.bytes))
        written += step.bytes
        if (!room) {
          await new Promise<void>((resolve) => {
            sub.once('drain', resolve)
            sub.once('close', resolve)
          })
        }
      } else {
        if (step.do === 'pause') sub.pause()
        for (let left = step.turns; left > 0; left--) await turn()
        if (step.do === 'pause') sub.resume()
      }
    }
    sub.end()
  })()
  const closed = new Promise<void>((resolve) => {
    if (sub.closed) resolve()
    else sub.once('close', () => resolve())
  })
  return Promise.all([acting, closed]).then(() => ({ received, ended, error, fault }))
}
