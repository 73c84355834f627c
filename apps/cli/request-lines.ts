import type { SeenRequest } from '../../lib/domains/http-watch.ts'

export interface RequestLinesOptions {
  /** Objects, a line each, instead of words. */
  readonly json: boolean
  /** Whether it is a terminal that colours are good for. */
  readonly color: boolean
  readonly write: (text: string) => void
  /** Whether the reader has taken so little that more would pile up. Default: never. */
  readonly isFull?: (() => boolean) | undefined
}

/** Lines in one second: nobody reads more, and they hold up what they are about. */
const MOST = { people: 200, json: 5000 }
const SECOND = 1000
const PATH_LENGTH = 60
const STATUS_COLORS: ReadonlyMap<number, number> = new Map([
  [2, 32],
  [3, 36],
  [4, 33],
  [5, 31],
])

/** A line for each request. Those of one turn of the event loop are written together. */
export class RequestLines {
  readonly #options: RequestLinesOptions
  #text = ''
  #soon: NodeJS.Immediate | undefined
  #since = Number.NEGATIVE_INFINITY
  #count = 0
  #more = 0

  constructor(options: RequestLinesOptions) {
    this.#options = options
  }

  readonly add = (request: SeenRequest): void => {
    const { json, color } = this.#options
    if (!this.#admits()) {
      this.#more++
      return
    }
    this.#text += `${json ? jsonLine(request) : plainLine(request, color)}\n`
    this.#soon ??= setImmediate(() => this.#write())
  }

  /** Writes what is left, and how many lines were left out last: nothing comes any more that it would be told with. */
  flush(): void {
    this.#tellMore()
    this.#write()
  }

  #write(): void {
    clearImmediate(this.#soon)
    this.#soon = undefined
    const text = this.#text
    this.#text = ''
    if (text !== '') this.#options.write(text)
  }

  #admits(): boolean {
    const { json, isFull } = this.#options
    if (isFull?.()) return false
    const now = performance.now()
    if (now - this.#since > SECOND) {
      this.#tellMore()
      this.#since = now
      this.#count = 0
    }
    this.#count++
    return this.#count <= (json ? MOST.json : MOST.people)
  }

  #tellMore(): void {
    const more = this.#more
    if (more > 0) this.#text += this.#options.json ? `{"more":${more}}\n` : `... and ${more} more\n`
    this.#more = 0
  }
}

function jsonLine({ at, method, path, status, ms, problem }: SeenRequest): string {
  return JSON.stringify({ time: at.toISOString(), method, path, status, ms: Math.round(ms * 10) / 10, problem })
}

/** `12:03:04 GET     /cart                 200   12 ms` */
function plainLine({ at, method, path, status, ms, problem }: SeenRequest, color: boolean): string {
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, '0')).join(':')
  const shown = path.length > PATH_LENGTH ? `${path.slice(0, PATH_LENGTH - 1)}…` : path
  const took = ms < 9999.5 ? `${Math.round(ms)} ms` : `${Math.round(ms / 1000)} s`
  const code = STATUS_COLORS.get(Math.floor(status / 100))
  const told = color && code !== undefined ? `\x1b[${code}m${status}\x1b[0m` : String(status)
  const line = `${time} ${method.padEnd(7)} ${shown.padEnd(40)} ${told} ${took.padStart(8)}`
  return problem === undefined ? line : `${line}  ${problem}`
}
