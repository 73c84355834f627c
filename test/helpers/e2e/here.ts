import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { Stage } from '../system/stage.ts'
import { symportEnvironment } from '../system/symport.ts'
import type { Result } from './cli.ts'

export interface Asked {
  readonly args: readonly string[]
  readonly env: NodeJS.ProcessEnv
}

export type Answered = Result

/**
 * Runs command lines one after another in a thread that has loaded symport once: for the many of which only the words
 * and the status matter. Not for what serves, logs, reads standard input or waits for a signal; and that a process
 * ends by itself, with this status, is for tests with `run`.
 */
class Here {
  #worker: Worker | undefined
  #last: Promise<unknown> = Promise.resolve()

  run(asked: Asked, timeoutMs: number): Promise<Result> {
    const answer = this.#last.then(() => this.#ask(asked, timeoutMs))
    this.#last = answer.catch(() => {})
    return answer
  }

  async #ask(asked: Asked, timeoutMs: number): Promise<Result> {
    this.#worker ??= new Worker(new URL('here-main.js', import.meta.url), { env: {}, execArgv: [] })
    const worker = this.#worker
    worker.ref()
    const signal = AbortSignal.timeout(timeoutMs)
    try {
      worker.postMessage(asked)
      const [answered]: Result[] = await once(worker, 'message', { signal })
      if (!answered) throw new TypeError('no answer')
      return answered
    } catch (error) {
      this.#worker = undefined
      await worker.terminate()
      throw new Error(`symport ${asked.args.join(' ')} has not ended well`, { cause: error })
    } finally {
      worker.unref()
    }
  }
}

const here = new Here()

/** Runs `symport ARGS` to its end, as `run` does, without a process of its own. */
export function runHere(
  stage: Stage,
  args: readonly string[],
  { env = symportEnvironment(stage), timeoutMs = 20_000 }: { env?: NodeJS.ProcessEnv; timeoutMs?: number } = {},
): Promise<Result> {
  return here.run({ args, env }, timeoutMs)
}
