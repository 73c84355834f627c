/** Upper bounds in seconds; what takes longer is counted beyond them. */
const BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
/** Names with figures of their own; those of all others are one. Who runs a server decides how many names it has. */
const MOST_HOSTS = 2000
const OTHER = 'other'

/** What has become of a request: the first digit of its answer, as `2xx`, or `none` where there was no answer. */
export type AnswerClass = '1xx' | '2xx' | '3xx' | '4xx' | '5xx' | 'none'

export interface WebRequestCount {
  /** As it is listened on; empty for paths on all hosts. */
  readonly host: string
  readonly code: AnswerClass
  readonly count: number
}

/** Requests to the names of the web port since the start. */
export interface WebFigures {
  readonly requests: readonly WebRequestCount[]
  /** From the head of the request to that of the answer, in seconds; of those that were answered. */
  readonly durations: {
    /** How many took so long or less, each without those of the bound before. The last one has no bound. */
    readonly counts: readonly number[]
    readonly bounds: readonly number[]
    readonly sum: number
  }
}

/** One request under way. */
export interface Timing {
  /** The head of the answer is there, with this status. */
  answered(status: number): void
  /** It is over. `status`: of an answer that nobody has told of, if there was one. */
  over(status?: number): void
}

/** Counts requests, by the name that is listened on. */
export class WebCounter {
  readonly #byHost = new Map<string, Map<AnswerClass, number>>()
  readonly #counts: number[] = new Array<number>(BOUNDS.length + 1).fill(0)
  #sum = 0

  begin(host: string): Timing {
    const since = performance.now()
    let answer: { readonly status: number; readonly took: number } | undefined
    const answered = (status: number): void => {
      answer ??= { status, took: performance.now() - since }
    }
    return {
      answered,
      over: (status) => {
        if (status !== undefined) answered(status)
        if (answer) this.#took(answer.took / 1000)
        this.#count(host, classOf(answer?.status))
      },
    }
  }

  read(): WebFigures {
    const requests = [...this.#byHost].flatMap(([host, counts]) =>
      [...counts].map(([code, count]) => ({ host, code, count })),
    )
    return { requests, durations: { counts: [...this.#counts], bounds: BOUNDS, sum: this.#sum } }
  }

  #took(seconds: number): void {
    this.#sum += seconds
    const place = BOUNDS.findIndex((bound) => seconds <= bound)
    const index = place < 0 ? BOUNDS.length : place
    this.#counts[index] = (this.#counts[index] ?? 0) + 1
  }

  #count(host: string, code: AnswerClass): void {
    const name = this.#byHost.has(host) || this.#byHost.size < MOST_HOSTS ? host : OTHER
    const counts = this.#byHost.get(name) ?? new Map<AnswerClass, number>()
    this.#byHost.set(name, counts)
    counts.set(code, (counts.get(code) ?? 0) + 1)
  }
}

function classOf(status: number | undefined): AnswerClass {
  if (status === undefined) return 'none'
  if (status < 200) return '1xx'
  if (status < 300) return '2xx'
  if (status < 400) return '3xx'
  return status < 500 ? '4xx' : '5xx'
}
