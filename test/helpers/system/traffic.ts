import { fileURLToPath } from 'node:url'
import type { Child } from './child.ts'
import type { Stage } from './stage.ts'
import type { Address } from './symport.ts'

const MAIN = fileURLToPath(new URL('./traffic-main.js', import.meta.url))

/** What comes first: both directions at once, one behind the end of the other. */
export type Order = 'together' | 'up, then down' | 'down, then up'

/** One connection, and how many bytes it carries. Up is from who opens it. */
export interface Stream {
  readonly id: number
  readonly order: Order
  readonly up: number
  readonly down: number
}

export interface Passed {
  readonly bytes: number
  readonly sha256: string
}

/** One end of a stream, when it is over. */
export interface StreamEnd {
  readonly id: number
  readonly sent: Passed
  readonly received: Passed
  /** Why it ended early, or null. */
  readonly failure: string | null
}

export interface TrafficTarget {
  readonly child: Child
  readonly port: number
}

/** Takes streams, in a process of its own. */
export async function startTrafficTarget(stage: Stage): Promise<TrafficTarget> {
  const child = await stage.start(process.execPath, [MAIN])
  const port = await child.line((line) => (/^\d+$/.test(line) ? Number(line) : undefined), 'its port')
  return { child, port }
}

/**
 * Opens all streams at once, in a process of its own, and waits for their ends. Throws unless each of them has carried
 * every byte in order, with every end where it belongs.
 */
export async function carry(
  stage: Stage,
  options: { target: TrafficTarget; through: Address; streams: readonly Stream[]; timeoutMs: number },
): Promise<void> {
  const { target, through, streams, timeoutMs } = options
  const client = await stage.start(process.execPath, [
    MAIN,
    through.host,
    String(through.port),
    JSON.stringify(streams),
  ])
  await client.line((line) => (line === 'over' ? true : undefined), 'the end of all streams', 0, timeoutMs)
  for (const { id, up, down } of streams) {
    const opened = await endOf(client, id)
    const accepted = await endOf(target.child, id)
    for (const [from, to, bytes, way] of [
      [opened, accepted, up, 'up'],
      [accepted, opened, down, 'down'],
    ] as const) {
      const failure = from.failure ?? to.failure
      const same = from.sent.bytes === bytes && to.received.bytes === bytes && from.sent.sha256 === to.received.sha256
      if (failure !== null || !same) {
        throw new Error(
          `stream ${id} ${way}: ${JSON.stringify({ bytes, sent: from.sent, received: to.received, failure })}`,
        )
      }
    }
  }
}

function endOf(child: Child, id: number): Promise<StreamEnd> {
  const pick = (line: string): StreamEnd | undefined => {
    if (!line.startsWith('{')) return undefined
    const end: StreamEnd = JSON.parse(line)
    return end.id === id ? end : undefined
  }
  return child.line(pick, `the end of stream ${id}`)
}
