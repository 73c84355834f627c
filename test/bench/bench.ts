import type { Processes } from './processes.ts'
import type { Progress } from './progress.ts'
import { openTunnel, type Path, type Tunnel, type TunnelName, tunnelMissing } from './tunnels.ts'

export interface BenchOptions {
  readonly rounds: number
  readonly quick: boolean
  /** Where symport's two sides write CPU profiles; undefined: none are taken. */
  readonly profile: string | undefined
  /** The only tunnels that are compared; undefined: all. */
  readonly only: readonly TunnelName[] | undefined
}

/** What every part is given: how often, how long, and how to open the tunnels it compares. */
export class Bench {
  readonly rounds: number
  readonly quick: boolean
  readonly processes: Processes
  /** What could not be measured, and why; said once, after the table. */
  readonly missing: Set<string> = new Set()
  readonly #progress: Progress
  readonly #profile: string | undefined
  readonly #only: readonly TunnelName[] | undefined
  #part = ''
  #profiles = 0

  constructor(o: BenchOptions, processes: Processes, progress: Progress) {
    this.rounds = o.rounds
    this.quick = o.quick
    this.#profile = o.profile
    this.#only = o.only
    this.processes = processes
    this.#progress = progress
  }

  startPart(id: string): void {
    this.#part = id
    this.progress('starts')
  }

  progress(text: string): void {
    this.#progress.show(`${this.#part} ${text}`)
  }

  /** How long something lasts: as given, or a third of it in a quick run. */
  seconds(full: number): number {
    return this.quick ? Math.max(1, Math.round(full / 3)) : full
  }

  /** Opens those of the tunnels that this machine has, hands them over, and closes them whatever happens. */
  async withTunnels<T>(
    names: readonly TunnelName[],
    targets: readonly number[],
    use: (tunnels: readonly Tunnel[]) => Promise<T>,
    path?: Path,
  ): Promise<T> {
    const tunnels: Tunnel[] = []
    try {
      for (const name of names) {
        if (this.takesPart(name)) tunnels.push(...(await this.#open(name, targets, path)))
      }
      return await use(tunnels)
    } finally {
      this.progress('ends')
      for (const tunnel of tunnels) await tunnel.close()
    }
  }

  /** Whether a tunnel is wanted, and can be opened here. */
  takesPart(name: TunnelName): boolean {
    return (this.#only === undefined || this.#only.includes(name)) && !this.isMissing(name)
  }

  /** Whether a tunnel cannot be opened here; what it lacks is then said after the table. */
  isMissing(name: TunnelName): boolean {
    const missing = tunnelMissing(name)
    if (missing !== undefined) this.missing.add(missing)
    return missing !== undefined
  }

  /** Every round with every tunnel in turn, A B A B: what disturbs the machine disturbs all of them alike. */
  async rotate(
    tunnels: readonly Tunnel[],
    what: string,
    measure: (tunnel: Tunnel, round: number) => Promise<void>,
  ): Promise<void> {
    for (let round = 0; round < this.rounds; round++) {
      for (const tunnel of tunnels) {
        this.progress(`${what}: round ${round + 1} of ${this.rounds}, ${tunnel.name}`)
        await measure(tunnel, round)
      }
    }
  }

  /** Flags for node that make one side of symport write a CPU profile when it ends; none without --profile. */
  profileFlags(side: 'server' | 'node'): readonly string[] {
    if (this.#profile === undefined) return []
    const name = `${this.#part}-${++this.#profiles}-${side}.cpuprofile`
    return ['--cpu-prof', `--cpu-prof-dir=${this.#profile}`, `--cpu-prof-name=${name}`]
  }

  /** A reference that is there but does not start is missing too; symport not starting is a failure. */
  async #open(name: TunnelName, targets: readonly number[], path?: Path): Promise<readonly Tunnel[]> {
    this.progress(`opens ${name}`)
    try {
      return [await openTunnel(name, this, targets, path)]
    } catch (error) {
      if (name !== 'ssh') throw error
      this.missing.add(`a working ssh (${error instanceof Error ? error.message : String(error)})`)
      return []
    }
  }
}
