import type { Processes, Running } from '../processes.ts'
import { requireProgram } from '../programs.ts'
import { freePort } from './sockets.ts'

/** `up` sends from the client through the mapped port to the server; `down` (-R) the other way. */
export type Direction = 'up' | 'down'

/** One `iperf3 -s`, which serves one test after another. */
export class Iperf3 implements AsyncDisposable {
  readonly port: number
  readonly #processes: Processes
  readonly #server: Running

  private constructor(processes: Processes, port: number, server: Running) {
    this.#processes = processes
    this.port = port
    this.#server = server
  }

  static async start(processes: Processes): Promise<Iperf3> {
    const port = await freePort()
    const args = ['-s', '-B', '127.0.0.1', '-p', String(port), '--forceflush']
    const iperf3 = new Iperf3(processes, port, processes.start(requireProgram('iperf3'), args, 'iperf3 -s'))
    await iperf3.#ready()
    return iperf3
  }

  /**
   * Runs one test through `port` and gives what the receiving end counted, in Gbit/s; the first `omit` seconds run before
   * those that count.
   */
  async measure(port: number, direction: Direction, seconds: number, omit = 0): Promise<number> {
    const output = await this.#processes.run(
      requireProgram('iperf3'),
      [...clientArgs(port, direction, seconds), '-O', String(omit), '-J'],
      'iperf3',
      (omit + seconds + 15) * 1000,
    )
    await this.#ready()
    return receivedGbits(output)
  }

  /** Starts a test and gives it back once data flows; `received` settles with Gbit/s when it has ended. */
  async begin(port: number, direction: Direction, seconds: number): Promise<{ received: Promise<number> }> {
    const args = [...clientArgs(port, direction, seconds), '-i', '0.2', '-f', 'g', '--forceflush']
    const client = this.#processes.start(requireProgram('iperf3'), args, 'iperf3')
    await client.waitFor('its first interval', (line) => (/ sec .*bits\/sec/.test(line) ? true : undefined))
    const received = client
      .waitFor('receiver', (line) => /([\d.]+) Gbits\/sec\s+receiver/.exec(line)?.[1], (seconds + 15) * 1000)
      .then(async (gbits) => {
        await client.exited
        await this.#ready()
        return Number(gbits)
      })
    return { received }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop()
  }

  /** It says so before every test; a client that comes earlier is told that the server is busy. */
  async #ready(): Promise<void> {
    await this.#server.waitFor('Server listening', (line) => (line.startsWith('Server listening') ? true : undefined))
  }
}

function clientArgs(port: number, direction: Direction, seconds: number): readonly string[] {
  const args = ['-c', '127.0.0.1', '-p', String(port), '-t', String(seconds)]
  return direction === 'down' ? [...args, '-R'] : args
}

/** What arrived, not what was sent: a tunnel's buffers would count as sent. */
function receivedGbits(output: string): number {
  const report: { end?: { sum_received?: { bits_per_second?: number } } } = JSON.parse(output)
  const bits = report.end?.sum_received?.bits_per_second
  if (bits === undefined) throw new Error('iperf3 reported no received bits')
  return bits / 1e9
}
