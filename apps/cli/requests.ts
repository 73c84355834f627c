import { randomBytes } from 'node:crypto'
import { realpath, rename, rm, stat, writeFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { ProxyError } from '../../lib/core/index.ts'
import { isoTime } from '../../lib/domains/iso-time.ts'
import type { Har, InspectedRequest, InspectQuery } from '../../lib/domains/web-inspection.ts'
import { command, noPositionals, type Runnable } from '../common/command.ts'
import { type StringFlag, toDuration } from '../common/flags.ts'
import {
  dispatch,
  OPERATOR_FLAGS,
  type OperatorValues,
  print,
  printTable,
  takeId,
  terminal,
  wantsJson,
} from '../common/operator.ts'
import { atOwner, openRequests, ownerOf } from '../common/requests-client.ts'
import { counted, printable } from '../common/table.ts'
import { exchangeLines, requestColumns, requestLine, safeJson } from './requests-lines.ts'

const WHICH: readonly [StringFlag<'mapping'>, StringFlag<'host'>] = [
  { name: 'mapping', kind: 'string', value: 'ID', help: 'Only those of this mapping of a server.' },
  { name: 'host', kind: 'string', value: 'HOST', help: 'Only those for this host, with or without its port.' },
]
const FILTER: readonly [
  ...typeof WHICH,
  StringFlag<'method'>,
  StringFlag<'status'>,
  StringFlag<'path'>,
  StringFlag<'since'>,
  StringFlag<'limit'>,
] = [
  ...WHICH,
  { name: 'method', kind: 'string', value: 'METHOD', help: 'Only these: GET, POST.' },
  { name: 'status', kind: 'string', value: 'STATUS', help: 'Only those with this answer: 404, 5xx.' },
  { name: 'path', kind: 'string', value: 'TEXT', help: 'Only those with this in their path or query.' },
  { name: 'since', kind: 'string', value: 'TIME', help: 'Only those of the last 5m, or since a time in ISO 8601.' },
  {
    name: 'limit',
    kind: 'string',
    value: 'COUNT',
    help: 'At most so many, up to 1000. Default: of a list 20 on a terminal, else 100.',
  },
]

const EMPTY = 'no requests: they are recorded for mappings with inspect, and by "symport http --inspect"'
/** How often new ones are asked for, in ms. */
const EVERY = 500
/** Of each process, in one go. */
const AT_ONCE = 1000
/** What came so long before the last one is looked at again, in ms: they are not told in the order in which they come. */
const OVERLAP = 2000

const list: Runnable = command({
  usage: 'symport requests list [flags]',
  summary: 'Shows the last requests of what is inspected, the newest first.',
  flags: [
    { name: 'follow', kind: 'boolean', help: 'Those that come from now on too, a line each, as they are answered.' },
    ...FILTER,
    ...OPERATOR_FLAGS,
  ],
  examples: [
    '# on the machine of "symport http 3000 --inspect", or of a server whose mappings have inspect',
    'symport requests',
    'symport requests --follow --status 5xx',
    'symport requests list --method POST --path /cart --json',
  ],
  async run(values, positionals) {
    noPositionals(positionals)
    const query = readFilter(values)
    if (values.follow) return await follow(values, query)
    const wanted = { ...query, limit: query.limit ?? (wantsJson(values) ? 100 : 20) }
    const newest = (await lists(values, wanted)).slice(0, wanted.limit)
    if (wantsJson(values)) printSafely(newest)
    else printTable(newest, requestColumns(), EMPTY)
    return 0
  },
})

/** A command that asks about one request, and shows it. */
function exchangeCommand(
  verb: 'show' | 'replay',
  about: { readonly summary: string; readonly examples: readonly string[] },
): Runnable {
  return command({
    usage: `symport requests ${verb} ID [flags]`,
    ...about,
    flags: OPERATOR_FLAGS,
    async run(values, positionals) {
      const id = takeId(positionals, 'request', `symport requests ${verb} ID`)
      const clients = await openRequests(values)
      const exchange = await (verb === 'show'
        ? atOwner(clients, (client) => client.show(id))
        : (await ownerOf(clients, id)).replay(id))
      if (wantsJson(values)) printSafely(exchange)
      else for (const line of exchangeLines(exchange)) print(line)
      return 0
    },
  })
}

const show = exchangeCommand('show', {
  summary: 'Shows one request and its answer: heads, and bodies up to a limit. Secrets are masked.',
  examples: ['symport requests show kxb12', 'symport requests show kxb12 --json'],
})

const replay = exchangeCommand('replay', {
  summary: 'Sends the same request to the target again, secrets included, and shows what it answers now.',
  examples: ['symport requests replay kxb12'],
})

const curl: Runnable = command({
  usage: 'symport requests curl ID [flags]',
  summary: 'Prints a curl command that sends the same request. Variables stand in the place of secrets.',
  flags: OPERATOR_FLAGS,
  examples: ['symport requests curl kxb12', 'MASKED_AUTHORIZATION=... sh -c "$(symport requests curl kxb12)"'],
  async run(values, positionals) {
    const id = takeId(positionals, 'request', 'symport requests curl ID')
    const made = await atOwner(await openRequests(values), (client) => client.curl(id))
    // What is printed is to be pasted or run, whoever reads it.
    if (values.json) printSafely(made)
    else process.stdout.write(`${made.command}\n`)
    const names = made.placeholders
    const secrets =
      names.length === 0 ? [] : [`set ${names.map((name) => `$${name}`).join(', ')}: secrets are not shown`]
    for (const line of [...secrets, ...made.notes]) process.stderr.write(`symport: ${printable(line)}\n`)
    return 0
  },
})

const har: Runnable = command({
  usage: 'symport requests har [ID] [flags]',
  summary: 'Writes requests and answers as an HTTP Archive (HAR 1.2), which browsers open. Secrets are masked.',
  flags: [
    { name: 'output', alias: 'o', kind: 'string', value: 'FILE', help: 'Where to. Default: standard output.' },
    ...FILTER,
    ...OPERATOR_FLAGS,
  ],
  examples: ['symport requests har --output requests.har', 'symport requests har kxb12 > one.har'],
  async run(values, positionals) {
    const query = readFilter(values)
    const id = positionals.length === 0 ? undefined : takeId(positionals, 'request', 'symport requests har [ID]')
    const clients = await openRequests(values)
    const archives =
      id === undefined
        ? await Promise.all(clients.map((client) => client.har({ ...query, limit: query.limit ?? AT_ONCE })))
        : [await atOwner(clients, (client) => client.har({ ...query, id }))]
    const [first] = archives
    if (!first) return 1
    const entries = archives.flatMap(({ log }) => log.entries)
    entries.sort((a, b) => a.startedDateTime.localeCompare(b.startedDateTime))
    const whole: Har = { log: { ...first.log, entries } }
    if (values.output === undefined) {
      printSafely(whole)
      return 0
    }
    try {
      await writePrivate(values.output, `${safeJson(whole)}\n`)
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      throw new ProxyError('PROXY_ERR_USAGE', `--output: ${why}`, { cause: error })
    }
    if (!wantsJson(values)) print(`${counted(entries.length, 'request')} written to ${printable(values.output)}`)
    return 0
  },
})

const clear: Runnable = command({
  usage: 'symport requests clear [flags]',
  summary: 'Forgets the requests that were recorded.',
  flags: [...WHICH, ...OPERATOR_FLAGS],
  examples: ['symport requests clear', 'symport requests clear --mapping 3'],
  async run(values, positionals) {
    noPositionals(positionals)
    const { mapping, host } = values
    const counts = await Promise.all((await openRequests(values)).map((client) => client.clear({ mapping, host })))
    const cleared = counts.reduce((sum, count) => sum + count, 0)
    if (wantsJson(values)) printSafely({ cleared })
    else print(`${counted(cleared, 'request')} forgotten`)
    return 0
  },
})

const requests: Runnable = dispatch(
  'requests',
  {
    summary: 'The last requests and answers of what is inspected, on a server or by "symport http --inspect".',
    examples: ['symport requests', 'symport requests --follow', 'symport requests show kxb12'],
  },
  {
    list: {
      usage: 'list',
      summary: 'show the last ones',
      flags: [{ name: 'follow', kind: 'boolean', help: '' }, ...FILTER, ...OPERATOR_FLAGS],
      run: list,
    },
    show: { usage: 'show ID', summary: 'show one of them, with heads and bodies', flags: OPERATOR_FLAGS, run: show },
    replay: { usage: 'replay ID', summary: 'send it to the target again', flags: OPERATOR_FLAGS, run: replay },
    curl: { usage: 'curl ID', summary: 'print a curl command that does the same', flags: OPERATOR_FLAGS, run: curl },
    har: {
      usage: 'har [ID]',
      summary: 'write them as an HTTP Archive',
      flags: [{ name: 'output', alias: 'o', kind: 'string', help: '' }, ...FILTER, ...OPERATOR_FLAGS],
      run: har,
    },
    clear: { usage: 'clear', summary: 'forget them', flags: [...WHICH, ...OPERATOR_FLAGS], run: clear },
  },
)

export default requests

function printSafely(value: unknown): void {
  print(safeJson(value, 2))
}

/**
 * A file for nobody else: what is not masked may still be private. It takes the place of one that is there, which others
 * may read, or have open. What is no file (a pipe, a terminal) is written to as it is.
 */
async function writePrivate(path: string, text: string): Promise<void> {
  // Where a link leads to.
  const place = await realpath(path).catch(() => path)
  const there = await stat(place).catch(() => undefined)
  if (there && !there.isFile()) {
    await writeFile(place, text)
    return
  }
  const temporary = `${place}.${randomBytes(6).toString('hex')}.tmp`
  try {
    await writeFile(temporary, text, { mode: 0o600, flag: 'wx' })
    await rename(temporary, place)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw error
  }
}

/** Until SIGINT or SIGTERM, or until nobody reads any more. A process that goes away is waited for, and new ones are found. */
async function follow(values: OperatorValues, query: InspectQuery): Promise<number> {
  const stop = new AbortController()
  const end = (): void => stop.abort()
  process.on('SIGINT', end)
  process.on('SIGTERM', end)
  process.stdout.on('error', end)
  const json = wantsJson(values)
  const { color } = terminal()
  const lines = new Lines((request) => print(json ? safeJson(request) : requestLine(request, color)))
  try {
    lines.add(await lists(values, { ...query, limit: query.limit ?? 10 }))
    while (!stop.signal.aborted) {
      await delay(EVERY, undefined, { signal: stop.signal }).catch(() => {})
      if (stop.signal.aborted) break
      const wanted = { ...query, limit: AT_ONCE, since: lines.since ?? query.since }
      lines.add(await lists(values, wanted).catch(ifAway))
    }
  } finally {
    process.off('SIGINT', end)
    process.off('SIGTERM', end)
    process.stdout.off('error', end)
  }
  return 0
}

/** Tells each request once, when it is answered. */
class Lines {
  readonly #tell: (request: InspectedRequest) => void
  /** By id, when those came that are told. */
  readonly #told = new Map<string, number>()
  #cursor: number | undefined

  constructor(tell: (request: InspectedRequest) => void) {
    this.#tell = tell
  }

  /** What came later has to be looked at. */
  get since(): string | undefined {
    return this.#cursor === undefined ? undefined : new Date(this.#cursor - OVERLAP).toISOString()
  }

  /** The newest first. */
  add(requests: readonly InspectedRequest[]): void {
    let open: number | undefined
    for (const request of [...requests].reverse()) {
      const at = Date.parse(request.time)
      // What has a status is answered, or is being.
      const isAnswered = request.state !== 'open' || request.status !== undefined
      if (isAnswered && !this.#told.has(request.id)) {
        this.#told.set(request.id, at)
        this.#tell(request)
      }
      if (!isAnswered) open ??= at
      this.#cursor = Math.max(this.#cursor ?? at, at)
    }
    if (this.#cursor !== undefined && open !== undefined) this.#cursor = Math.min(this.#cursor, open)
    for (const [id, at] of this.#told) if (at < (this.#cursor ?? 0) - OVERLAP) this.#told.delete(id)
  }
}

async function lists(values: OperatorValues, query: InspectQuery): Promise<InspectedRequest[]> {
  const found = await Promise.all((await openRequests(values)).map((client) => client.list(query)))
  return found.flat().sort((a, b) => b.time.localeCompare(a.time))
}

function ifAway(error: unknown): InspectedRequest[] {
  if (error instanceof ProxyError && /^PROXY_ERR_(?:NO_SERVER|ADMIN)$/.test(error.code)) return []
  throw error
}

function readFilter(values: { readonly [name in (typeof FILTER)[number]['name']]: string | undefined }): InspectQuery {
  const { mapping, host, method, status, path, since, limit } = values
  const count = limit === undefined ? undefined : Number(limit)
  if (count !== undefined && !(/^\d{1,4}$/.test(limit ?? '') && count >= 1 && count <= AT_ONCE)) {
    throw new ProxyError('PROXY_ERR_USAGE', `--limit: ${shown(limit ?? '')} is no number from 1 to ${AT_ONCE}`)
  }
  if (status !== undefined && !/^[1-5](?:[0-9]{2}|xx)$/i.test(status)) {
    throw new ProxyError('PROXY_ERR_USAGE', `--status: ${shown(status)} is no status: write 404 or 4xx`)
  }
  return { mapping, host, method, status, path, since: since === undefined ? undefined : toTime(since), limit: count }
}

/** `5m` ago, or a time. */
function toTime(since: string): string {
  const time = isoTime(since)
  if (time !== undefined) return new Date(time).toISOString()
  if (/^[0-9.]+(?:ms|s|m|h)$/.test(since)) return new Date(Date.now() - toDuration(since, 'since')).toISOString()
  const forms = 'write 5m or 2h, or a time like 2030-05-01T10:00:00Z'
  throw new ProxyError('PROXY_ERR_USAGE', `--since: ${shown(since)} is neither a duration nor a time: ${forms}`)
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 40))
}
