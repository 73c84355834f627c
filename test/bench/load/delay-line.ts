import { fileURLToPath } from 'node:url'
import type { Processes } from '../processes.ts'
import type { Path } from '../tunnels.ts'
import type { Target } from './sockets.ts'

export interface DelayLineOptions {
  /** One way. */
  readonly delayMs: number
  readonly bitsPerSecond: number
}

const MAIN = fileURLToPath(new URL('../../helpers/faults/delay-line-main.js', import.meta.url))

/** Delay lines, each in a process of its own, as the paths of tunnels. */
export class DelayLines implements AsyncDisposable {
  readonly #processes: Processes
  readonly #options: DelayLineOptions
  readonly #lines: Target[] = []

  constructor(processes: Processes, options: DelayLineOptions) {
    this.#processes = processes
    this.#options = options
  }

  readonly path: Path = async (port) => {
    const line = await startDelayLine(this.#processes, port, this.#options)
    this.#lines.push(line)
    return line.port
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const line of this.#lines.splice(0)) await line[Symbol.asyncDispose]()
  }
}

async function startDelayLine(processes: Processes, port: number, o: DelayLineOptions): Promise<Target> {
  const args = [MAIN, String(port), '--delay', String(o.delayMs), '--rate', String(o.bitsPerSecond)]
  const line = processes.start(process.execPath, args, 'the delay line', { attended: true })
  const own = await line.waitFor('its port', portOf)
  return { port: own, [Symbol.asyncDispose]: () => line.stop() }
}

function portOf(line: string): number | undefined {
  const port = /^\{"port":(\d+)\}$/.exec(line)?.[1]
  return port === undefined ? undefined : Number(port)
}
