import { doorkeeper, fuzzHandshake } from './handshakes.ts'
import { Oracle, type Witness } from './oracle.ts'
import { Random } from './random.ts'
import { acceptors, FuzzedSession, type Tally } from './session.ts'

export interface RunOptions {
  readonly seed: number
  /** Mutated frames at least. */
  readonly frames: number
  readonly handshakes: number
  /** Runs this session alone; below 0, this handshake. */
  readonly only?: number | undefined
  /** Pauses at which nothing is under way, to look at the memory. */
  readonly pauses?: number
  onProgress?(tally: Tally, share: number): void
}

/** Bytes at a moment at which nothing is under way; `done`: the share of the run. */
export interface Sample {
  readonly done: number
  readonly heap: number
  readonly rss: number
}

export interface RunResult {
  readonly tally: Tally
  readonly samples: readonly Sample[]
  readonly faults: readonly string[]
  readonly codes: ReadonlyMap<string, number>
}

/** Sessions, or handshakes, at once: they wait for each other's turns of the event loop, not for the processor. */
const AT_ONCE = 64
/** How long timers may outlive the last session, in ms: an orderly end lingers for 2 s. */
const LINGER = 4000

export async function run(options: RunOptions): Promise<RunResult> {
  const { seed, frames, handshakes, only, pauses = 1 } = options
  using oracle = new Oracle()
  const before = timers()
  const tally: Tally = {
    sessions: 0,
    frames: 0,
    mutated: 0,
    resumes: 0,
    resumed: 0,
    handshakes: 0,
    sent: new Set(),
    received: new Set(),
  }
  const around = { tally, acceptors: acceptors() }
  const door = doorkeeper()
  const samples: Sample[] = []
  const { noise } = new Random(seed)
  const session = (index: number): Promise<void> => {
    const witness = oracle.witness(`--only ${index}`)
    return finished(witness, new FuzzedSession({ ...around, witness }, new Random(seed, index, noise)).run())
  }
  const handshake = (index: number): Promise<void> => {
    tally.handshakes++
    const witness = oracle.witness(`--only ${-1 - index}`)
    return finished(witness, fuzzHandshake(witness, door, new Random(seed, -1 - index, noise)))
  }
  if (only !== undefined) {
    await (only < 0 ? handshake(-1 - only) : session(only))
  } else {
    const progress = setInterval(() => {
      options.onProgress?.(tally, (tally.mutated + tally.handshakes) / (frames + handshakes))
    }, 200)
    let next = 0
    for (let pause = 1; pause <= pauses; pause++) {
      const share = pause / pauses
      await Promise.all([
        together(AT_ONCE, () => (tally.mutated < frames * share ? session(next++) : undefined)),
        together(AT_ONCE / 4, () => (tally.handshakes < handshakes * share ? handshake(tally.handshakes) : undefined)),
      ])
      samples.push(await sample(share))
    }
    clearInterval(progress)
  }
  const left = await leftOver(before)
  if (left > 0) oracle.fault(`${left} timers are left`)
  return { tally, samples, faults: oracle.faults, codes: oracle.codes }
}

/** Calls `next` again and again, `width` at a time, until it has nothing more. */
async function together(width: number, next: () => Promise<void> | undefined): Promise<void> {
  await Promise.all(
    Array.from({ length: width }, async () => {
      for (let task = next(); task; task = next()) await task
    }),
  )
}

async function finished(witness: Witness, task: Promise<void>): Promise<void> {
  try {
    await task
  } catch (error) {
    witness.fault(`the fuzzer itself: ${error instanceof Error ? error.stack : error}`)
  }
}

function timers(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length
}

async function leftOver(before: number): Promise<number> {
  const until = performance.now() + LINGER
  while (timers() > before && performance.now() < until) {
    // The timer of this pause has fired when it is over.
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return timers() - before
}

async function sample(done: number): Promise<Sample> {
  for (let round = 0; round < 3; round++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  return { done, heap: heapUsed + external, rss }
}
