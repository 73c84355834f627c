import { cleanEnvironment } from './child.ts'
import { sha256, writeRandomFile } from './net.ts'
import type { RunResult, Stage } from './stage.ts'

/** curl with nothing of the settings of whoever runs the tests, and no proxy but those that it is told. */
export class Curl {
  readonly #stage: Stage
  readonly #program: string

  constructor(stage: Stage, program: string) {
    this.#stage = stage
    this.#program = program
  }

  /** Gives its exit status, and what it printed. */
  run(...args: string[]): Promise<RunResult> {
    const names = ['no_proxy', 'NO_PROXY', 'http_proxy', 'https_proxy', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY']
    const env = cleanEnvironment(Object.fromEntries(names.map((name) => [name, ''])))
    return this.#stage.run(this.#program, ['-q', '-sS', '--max-time', '60', ...args], { env })
  }

  /** The body of an answer that is good. */
  async get(...args: string[]): Promise<string> {
    const { status, output } = await this.run('--fail', ...args)
    if (status !== 0) throw new Error(`curl ${args.join(' ')} ended with ${status}:\n${output}`)
    return output
  }

  /** The status of the answer, whatever that is. */
  async status(...args: string[]): Promise<number> {
    return Number(await this.#write('%{http_code}', args))
  }

  /** Bytes per second of a download that is thrown away. */
  async rate(...args: string[]): Promise<number> {
    return Number(await this.#write('%{speed_download}', ['--fail', ...args]))
  }

  async #write(what: string, args: readonly string[]): Promise<string> {
    const { status, output } = await this.run('--output', '/dev/null', '--write-out', what, ...args)
    if (status !== 0) throw new Error(`curl ${args.join(' ')} ended with ${status}:\n${output}`)
    return output
  }

  /** Uploads a file of random bytes, takes the answer into another one, and gives whether they are the same. */
  async echoes(size: number, ...args: string[]): Promise<boolean> {
    const [up, down] = [this.#stage.path('curl-up'), this.#stage.path('curl-down')]
    const expected = writeRandomFile(up, size)
    await this.get('--header', 'Expect:', '--upload-file', up, '--output', down, ...args)
    return (await sha256(down)) === expected
  }
}
