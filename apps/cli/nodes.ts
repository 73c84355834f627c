import { parseWeb } from '../../lib/domains/web-address.ts'
import type { AddedNode, Grants, NodeChange, NodeRequest } from '../../lib/hub/operations.ts'
import { ProxyError, parsePattern, parsePortRanges } from '../../lib/index.ts'
import { parseNamePattern } from '../../lib/policy/names.ts'
import type { AdminClient, BatchResult } from '../common/admin-client.ts'
import { listOrNone, NONE, orNone } from '../common/change-flags.ts'
import { command, noPositionals, type Runnable } from '../common/command.ts'
import { notEmpty } from '../common/flags.ts'
import { nodeCommand } from '../common/identity.ts'
import { LIMIT_FLAGS, newLimits, readLimitFlags } from '../common/limit-flags.ts'
import { parseExpiry, readNodeList } from '../common/node-list.ts'
import {
  atServerOrFiles,
  dispatch,
  OPERATOR_FLAGS,
  type OperatorValues,
  openServer,
  print,
  printJson,
  printTable,
  takeId,
  wantsJson,
  warn,
} from '../common/operator.ts'
import { limitsText, nodeColumns } from '../common/operator-tables.ts'
import { readInput } from '../common/read-input.ts'
import { checkSecret } from '../common/secret.ts'
import { counted } from '../common/table.ts'

const SECRET_FILE = {
  name: 'secret-file',
  kind: 'string',
  value: 'FILE',
  help: 'The secret is in this file; - is standard input.',
} as const

/** What can be changed later. */
const SET_FLAGS = [
  {
    name: 'expires',
    kind: 'string',
    value: 'WHEN',
    help: 'When it can no longer connect: 30d, 12h, 2026-12-31 (the end of that day in UTC).',
  },
  { name: 'listen', kind: 'string', value: 'RANGE', help: 'Ports it may have listened on here: 9000-9999,22.' },
  { name: 'dial', kind: 'list', value: 'PATTERN', help: 'What it may have dialled from here, as in --allow.' },
  { name: 'channel', kind: 'list', value: 'NAME', help: 'A channel that only it may register: ssh, or office-*.' },
  {
    name: 'name',
    kind: 'list',
    value: 'PATTERN',
    help: 'Names of the web port that it may have, as in --allow-names: app.example.com, *.example.com, /path.',
  },
  ...LIMIT_FLAGS,
] as const

const ADD_FLAGS = [
  ...SET_FLAGS,
  {
    name: 'from',
    kind: 'string',
    value: 'FILE',
    help: 'Add many: lines with ID or ID,SECRET, or a JSON array; - is standard input.',
  },
  SECRET_FILE,
  ...OPERATOR_FLAGS,
] as const

/** Nodes of a list that are added before one is told how far it is. */
const AT_ONCE = 20
const GUESSABLE = 'this secret can be guessed by whoever watches a connection: leave it out to get a strong one'
const LIST_USAGE = 'symport nodes list'
const ADD_USAGE = 'symport nodes add ID [SECRET]'
const SET_USAGE = 'symport nodes set ID --FLAG VALUE'
const ROTATE_USAGE = 'symport nodes rotate ID [SECRET]'

const list: Runnable = command({
  usage: `${LIST_USAGE} [flags]`,
  summary: 'Shows the nodes, connected or not.',
  flags: OPERATOR_FLAGS,
  examples: ['symport nodes list', 'symport nodes list --json'],
  async run(values, positionals) {
    noPositionals(positionals)
    const nodes = await atServerOrFiles(values, (client) => client.nodes())
    if (wantsJson(values)) printJson(nodes)
    else printTable(nodes, nodeColumns({ now: Date.now() }), 'no nodes: "symport nodes add ID" adds one')
    return 0
  },
})

const add: Runnable = command({
  usage: `${ADD_USAGE} [flags]`,
  summary: 'Adds a node with a secret of its own. Without SECRET a strong one is made, and shown this once.',
  flags: ADD_FLAGS,
  examples: [
    'symport nodes add office',
    'symport nodes add office --expires 30d --listen 9000-9999 --dial 127.0.0.1:5432',
    'symport nodes add office --limit-out 10Mbit/s --quota 50GB --visitor-connections 20',
    '# many at once; their secrets are printed as JSON',
    'symport nodes add --from ids.txt --json > secrets.json',
  ],
  async run(values, positionals) {
    const grants = readGrants(values)
    const limits = await newLimits(values)
    const expires = values.expires === undefined ? undefined : parseExpiry(values.expires, Date.now())
    const common = {
      ...(expires === undefined ? {} : { expires }),
      ...(grants && { grants }),
      ...(limits && { limits }),
    }
    if (values.from === undefined) {
      const id = nodeId(positionals[0], ADD_USAGE)
      const secret = await readSecret(values['secret-file'], positionals)
      await atServerOrFiles(values, async (client) => {
        const added = await client.addNode({ id, ...(secret === undefined ? {} : { secret }), ...common })
        await tellSecret(client, values, added, `node ${id} is added`)
      })
      return 0
    }
    noPositionals(positionals)
    if (values['secret-file'] !== undefined) {
      throw new ProxyError('PROXY_ERR_USAGE', '--secret-file is for one node: with --from write ID,SECRET')
    }
    const from = values.from
    const requests = readNodeList(await readInput(from, '--from')).map(
      (request): NodeRequest => ({ ...common, ...request }),
    )
    const results = await atServerOrFiles(values, (client) => addMany(client, requests))
    return reportMany(results, wantsJson(values))
  },
})

const set: Runnable = command({
  usage: `${SET_USAGE} ...`,
  summary:
    'Changes a node: its main connections stay. A flag replaces what was there, and none takes it away. Limits hold at once; what it may do when it connects the next time (see kick).',
  flags: [...SET_FLAGS, ...OPERATOR_FLAGS],
  examples: ['symport nodes set office --limit-out 1MB/s', 'symport nodes set office --quota none --expires 90d'],
  async run(values, positionals) {
    const id = takeId(positionals, 'node', SET_USAGE)
    const grants = grantsChange(values)
    const limits = readLimitFlags(values)
    const expires = orNone(values.expires, (text) => parseExpiry(text, Date.now()))
    const change: NodeChange = {
      ...(expires === undefined ? {} : { expires }),
      ...(grants && { grants }),
      ...(limits && { limits }),
    }
    if (Object.keys(change).length === 0) {
      throw new ProxyError('PROXY_ERR_USAGE', `what is to change? write: ${SET_USAGE}`)
    }
    const node = await atServerOrFiles(values, (client) => client.changeNode(id, change))
    if (wantsJson(values)) printJson(node)
    else print(`node ${id} is changed${node.limits === undefined ? '' : ` (${limitsText(node.limits)})`}`)
    return 0
  },
})

const remove: Runnable = command({
  usage: 'symport nodes remove ID [flags]',
  summary: 'Removes a node, and ends its main connections at once.',
  flags: OPERATOR_FLAGS,
  examples: ['symport nodes remove office'],
  async run(values, positionals) {
    const id = takeId(positionals, 'node', 'symport nodes remove ID')
    const left = await atServerOrFiles(values, async (client) => {
      await client.removeNode(id)
      // It is removed, whatever comes of the advice.
      return await client.mappings().catch(() => [])
    })
    if (!wantsJson(values)) print(`node ${id} is removed`)
    const orphans = left.filter(({ nodes }) => nodes.includes(id)).map((mapping) => mapping.id)
    if (orphans.length > 0)
      warn(`${orphans.length === 1 ? 'this mapping names' : 'these mappings name'} it still: ${named(orphans)}`)
    return 0
  },
})

const kick: Runnable = command({
  usage: 'symport nodes kick ID [flags]',
  summary: 'Ends the main connections of a node, which may connect again.',
  flags: OPERATOR_FLAGS,
  examples: ['symport nodes kick office'],
  async run(values, positionals) {
    const id = takeId(positionals, 'node', 'symport nodes kick ID')
    const kicked = await (await openServer(values)).kickNode(id)
    if (wantsJson(values)) printJson({ kicked })
    else print(`node ${id}: ${counted(kicked, 'main connection')} ended`)
    return 0
  },
})

const rotate: Runnable = command({
  usage: `${ROTATE_USAGE} [flags]`,
  summary: 'Gives a node a new secret, and ends its main connections at once.',
  flags: [SECRET_FILE, ...OPERATOR_FLAGS],
  examples: ['symport nodes rotate office', 'symport nodes rotate office --secret-file -'],
  async run(values, positionals) {
    const id = nodeId(positionals[0], ROTATE_USAGE)
    const secret = await readSecret(values['secret-file'], positionals)
    await atServerOrFiles(values, async (client) => {
      await tellSecret(client, values, await client.rotateNode(id, secret), `node ${id} has a new secret`)
    })
    return 0
  },
})

function setEnabled(enabled: boolean): Runnable {
  const verb = enabled ? 'enable' : 'disable'
  return command({
    usage: `symport nodes ${verb} ID [flags]`,
    summary: enabled ? 'Lets a node connect again.' : 'Ends the main connections of a node, and lets it not connect.',
    flags: OPERATOR_FLAGS,
    examples: [`symport nodes ${verb} office`],
    async run(values, positionals) {
      const id = takeId(positionals, 'node', `symport nodes ${verb} ID`)
      const node = await atServerOrFiles(values, (client) => client.setNodeEnabled(id, enabled))
      if (wantsJson(values)) printJson(node)
      else print(`node ${id} is ${verb}d`)
      return 0
    },
  })
}

const nodes: Runnable = dispatch(
  'nodes',
  {
    summary: 'The nodes of a server: who may connect, and who does.',
    examples: ['symport nodes add office', 'symport nodes list'],
  },
  {
    list: { usage: 'list', summary: 'show the nodes, connected or not', flags: OPERATOR_FLAGS, run: list },
    add: { usage: 'add ID [SECRET]', summary: 'add a node, or many with --from', flags: ADD_FLAGS, run: add },
    set: {
      usage: 'set ID',
      summary: 'change its limits, grants or expiry',
      flags: [...SET_FLAGS, ...OPERATOR_FLAGS],
      run: set,
    },
    remove: { usage: 'remove ID', summary: 'remove a node', flags: OPERATOR_FLAGS, run: remove },
    enable: { usage: 'enable ID', summary: 'let it connect again', flags: OPERATOR_FLAGS, run: setEnabled(true) },
    disable: { usage: 'disable ID', summary: 'let it not connect', flags: OPERATOR_FLAGS, run: setEnabled(false) },
    rotate: {
      usage: 'rotate ID [SECRET]',
      summary: 'give it a new secret',
      flags: [SECRET_FILE, ...OPERATOR_FLAGS],
      run: rotate,
    },
    kick: { usage: 'kick ID', summary: 'end its main connections', flags: OPERATOR_FLAGS, run: kick },
  },
)

export default nodes

function nodeId(id: string | undefined, usage: string): string {
  return takeId(id === undefined ? [] : [id], 'node', usage)
}

/** The second word, or what the file holds. */
async function readSecret(file: string | undefined, positionals: readonly string[]): Promise<string | undefined> {
  const [, secret, more] = positionals
  if (more !== undefined) {
    throw new ProxyError('PROXY_ERR_USAGE', 'there are words behind the secret: quote it, or leave them out')
  }
  if (file === undefined) return secret === undefined ? undefined : checkSecret(secret, 'SECRET')
  if (secret !== undefined) throw new ProxyError('PROXY_ERR_USAGE', 'SECRET and --secret-file are both given: keep one')
  const path = notEmpty(file, 'secret-file') ?? ''
  return checkSecret((await readInput(path, '--secret-file')).replace(/[\r\n]+$/, ''), '--secret-file')
}

interface GrantValues {
  readonly listen: string | undefined
  readonly dial: readonly string[]
  readonly channel: readonly string[]
  readonly name: readonly string[]
}

/** Undefined where no flag says anything. */
function grantsChange({ listen, ...lists }: GrantValues): NodeChange['grants'] | undefined {
  const some = (list: readonly string[]): string[] => list.filter((one) => one !== NONE)
  readGrants({
    listen: listen === NONE ? undefined : listen,
    ...{ dial: some(lists.dial), channel: some(lists.channel), name: some(lists.name) },
  })
  const asked = {
    listen: orNone(listen, (text) => text),
    dial: listOrNone(lists.dial, 'dial', (list) => list),
    channels: listOrNone(lists.channel, 'channel', (list) => list),
    names: listOrNone(lists.name, 'name', (list) => list),
  }
  const given = Object.entries(asked).filter(([, value]) => value !== undefined)
  return given.length === 0 ? undefined : Object.fromEntries(given)
}

function readGrants(values: GrantValues): Grants | undefined {
  const { listen, dial, channel, name } = values
  if (listen !== undefined) parsePortRanges(listen)
  for (const pattern of dial) parsePattern(pattern)
  for (const pattern of name) parseNamePattern(pattern, parseWeb)
  if (listen === undefined && dial.length === 0 && channel.length === 0 && name.length === 0) return undefined
  return {
    ...(listen === undefined ? {} : { listen }),
    ...(dial.length === 0 ? {} : { dial }),
    ...(channel.length === 0 ? {} : { channels: channel }),
    ...(name.length === 0 ? {} : { names: name }),
  }
}

/** A secret that was made is shown this once, in a line for the other machine. */
async function tellSecret(client: AdminClient, values: OperatorValues, added: AddedNode, done: string): Promise<void> {
  if (added.guessable) warn(GUESSABLE)
  if (wantsJson(values)) return printJson(added)
  if (added.secret === undefined) return print(done)
  const line = `${await commandFor(client, values, added.secret)} --id ${quoted(added.id)}`
  print(`${done}. Its secret is shown only here:\n\n    ${added.secret}\n\n  On the other machine:\n\n    ${line}\n`)
}

async function commandFor(client: AdminClient, values: OperatorValues, secret: string): Promise<string> {
  const { address = '', pin } = (await client.status().catch(() => undefined)) ?? {}
  const [, bracketed, plain, port] = /^(?:[a-z]+:\/\/)?(?:\[(.*)\]|([^:/]*)):(\d+)$/.exec(address) ?? []
  if (port === undefined) return `symport node --host SERVER --uuid ${secret}`
  const bound = bracketed ?? plain ?? ''
  const isAnywhere = ['', '0.0.0.0', '::'].includes(bound)
  // All addresses of another machine: the one that it is asked at will do.
  const host =
    values.admin === undefined || !isAnywhere ? bound : /^(?:[a-z]+:\/\/)?(\[[^\]]+\]|[^:/]+)/i.exec(values.admin)?.[1]
  return nodeCommand(host ?? 'SERVER', Number(port), secret, pin)
}

function quoted(id: string): string {
  return /^[\w.@:+-]+$/.test(id) ? id : `'${id.replaceAll("'", `'\\''`)}'`
}

/** Some of them; there may be thousands. */
function named(ids: readonly string[]): string {
  const more = ids.length > 10 ? ` and ${ids.length - 10} more` : ''
  return `${ids.slice(0, 10).join(', ')}${more}`
}

/** Deriving a key takes a moment, and hundreds of them a minute: on a terminal one sees how far it is. */
async function addMany(client: AdminClient, requests: readonly NodeRequest[]): Promise<BatchResult[]> {
  const results: BatchResult[] = []
  const tells = process.stderr.isTTY && requests.length > AT_ONCE
  for (let from = 0; from < requests.length; from += AT_ONCE) {
    if (tells) process.stderr.write(`\r\x1b[K${from} of ${requests.length} nodes are added`)
    results.push(...(await client.addNodes(requests.slice(from, from + AT_ONCE))))
  }
  if (tells) process.stderr.write('\r\x1b[K')
  return results
}

function reportMany(results: readonly BatchResult[], json: boolean): number {
  const failed = results.filter(({ error }) => error !== undefined)
  if (json) printJson(results)
  else {
    const columns = [
      { title: 'NODE', value: ({ id }: BatchResult) => id },
      { title: 'SECRET', value: ({ secret, error }: BatchResult) => secret ?? (error ? '' : '(as given)') },
      { title: 'PROBLEM', value: ({ error }: BatchResult) => error?.message ?? '', shrinkTo: 20 },
    ]
    printTable(results, columns, 'no nodes were given')
  }
  const [first] = failed
  if (!first) return 0
  const why = `${failed.length} of ${results.length} nodes were not added; the first is ${first.id}: ${first.error?.message}`
  throw new ProxyError('PROXY_ERR_ADMIN', why)
}
