import { nearest } from '../../lib/domains/nearest.ts'
import type { Balance, MappingChange, MappingRequest, MappingStatus } from '../../lib/hub/operations.ts'
import { ProxyError, parseSpec } from '../../lib/index.ts'
import { listOrNone, orNone } from '../common/change-flags.ts'
import { command, noPositionals, type Runnable } from '../common/command.ts'
import { toDuration } from '../common/flags.ts'
import { HTTP_FLAGS, newHttp, readHttpFlags, withHttpFlags } from '../common/http-flags.ts'
import { LIMIT_FLAGS, newLimits, readLimitFlags } from '../common/limit-flags.ts'
import {
  atServerOrFiles,
  dispatch,
  OPERATOR_FLAGS,
  print,
  printJson,
  printTable,
  takeId,
  wantsJson,
  warn,
  withDefault,
} from '../common/operator.ts'
import { httpText, limitsText, mappingColumns, problemLines, short } from '../common/operator-tables.ts'

const BALANCES: readonly Balance[] = ['first', 'round-robin', 'least-connections']
const DEFAULT_HEALTH = '10s'
const ADD_USAGE = 'symport mappings add LISTEN TARGET'
const SET_USAGE = 'symport mappings set ID --FLAG VALUE'

const ADD_FLAGS = [
  {
    name: 'node',
    kind: 'list',
    value: 'ID',
    help: 'The node that serves it; several share it. Default: any.',
  },
  { name: 'note', kind: 'string', value: 'TEXT', help: 'What it is for.' },
  {
    name: 'balance',
    kind: 'string',
    value: 'HOW',
    help: 'How several nodes share it: first, round-robin or least-connections.',
  },
  {
    name: 'wait',
    kind: 'string',
    value: 'TIME',
    help: 'How long a connection waits for a node that is away. Default: 5s.',
  },
  {
    name: 'health',
    kind: 'string',
    value: '[TIME]',
    help: `Look whether the target answers, this often. Alone: ${DEFAULT_HEALTH}.`,
  },
  ...LIMIT_FLAGS,
  ...HTTP_FLAGS,
  ...OPERATOR_FLAGS,
] as const

const list: Runnable = command({
  usage: 'symport mappings list [flags]',
  summary: 'Shows all mappings, those of the command line and the configuration too.',
  flags: OPERATOR_FLAGS,
  examples: ['symport mappings list', 'symport mappings list --json'],
  async run(values, positionals) {
    noPositionals(positionals)
    const mappings = await atServerOrFiles(values, (client) => client.mappings())
    if (wantsJson(values)) {
      printJson(mappings)
      return 0
    }
    printTable(mappings, mappingColumns({ now: Date.now() }), 'no mappings: "symport mappings add" adds one')
    for (const line of problemLines(mappings)) print(line)
    return 0
  },
})

const add: Runnable = command({
  usage: `${ADD_USAGE} [flags], or SPEC for both`,
  summary: 'Adds a mapping: the server listens, a node forwards. It is there again after a restart.',
  flags: ADD_FLAGS,
  examples: [
    'symport mappings add :8078 127.0.0.1:8077 --node office --note "a web page"',
    'symport mappings add 8078:127.0.0.1:8077 --node office',
    'symport mappings add :53/udp 127.0.0.1:53/udp --node one --node two --balance round-robin --health',
    'symport mappings add web://shop.example.com 127.0.0.1:3000 --limit-out 1MB/s --basic-auth-file users.txt',
  ],
  async run(values, positionals) {
    const limits = await newLimits(values)
    const http = await newHttp(values)
    const balance = toBalance(values.balance)
    const wait = values.wait === undefined ? undefined : toDuration(values.wait, 'wait')
    const interval = values.health === undefined ? undefined : toDuration(values.health, 'health')
    const { nodes, ...halves } = await readHalves(positionals, values.node)
    const request: MappingRequest = {
      ...halves,
      ...(nodes.length === 0 ? {} : { nodes }),
      ...(balance === undefined ? {} : { balance }),
      ...(values.note === undefined ? {} : { note: values.note }),
      ...(wait === undefined ? {} : { wait }),
      ...(interval === undefined ? {} : { health: { interval } }),
      ...(limits && { limits }),
      ...(http && { http }),
    }
    const { mapping, known } = await atServerOrFiles(values, async (client) => {
      const mapping = await client.addMapping(request)
      // It is there, whatever comes of the advice.
      const known = mapping.nodes.length === 0 ? undefined : await client.nodes().catch(() => undefined)
      return { mapping, known: known?.map(({ id }) => id) }
    })
    if (wantsJson(values)) printJson(mapping)
    else print(describe(mapping))
    if (known) for (const id of mapping.nodes) if (!known.includes(id)) warn(unknownNode(id, known))
    return 0
  },
})

const set: Runnable = command({
  usage: `${SET_USAGE} ...`,
  summary: 'Changes a mapping: what is open goes on. A flag replaces what was there, and none takes it away.',
  flags: ADD_FLAGS,
  examples: [
    'symport mappings set 3 --limit-out 1MB/s --visitor-connections 10',
    'symport mappings set 3 --maintenance',
    'symport mappings set 3 --maintenance none --deny-from 203.0.113.0/24',
    '# adds somebody, or changes the password; --basic-auth none lets all in',
    'symport mappings set 3 --basic-auth carol:SECRET',
  ],
  async run(values, positionals) {
    const id = takeId(positionals, 'mapping', SET_USAGE)
    const limits = readLimitFlags(values)
    const http = await readHttpFlags(values)
    const asked = {
      nodes: listOrNone(values.node, 'node', (list) => list),
      balance: orNone(values.balance, toBalance),
      note: orNone(values.note, (text) => text),
      wait: orNone(values.wait, (text) => toDuration(text, 'wait')),
      health: orNone(values.health, (text) => ({ interval: toDuration(text, 'health') })),
      ...{ limits, http },
    }
    const change: MappingChange = Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined))
    if (Object.keys(change).length === 0) {
      throw new ProxyError('PROXY_ERR_USAGE', `what is to change? write: ${SET_USAGE}`)
    }
    const mapping = await atServerOrFiles(values, (client) => client.changeMapping(id, change))
    if (wantsJson(values)) printJson(mapping)
    else print(describe(mapping))
    return 0
  },
})

const remove: Runnable = command({
  usage: 'symport mappings remove ID [flags]',
  summary: 'Removes a mapping, and ends its connections.',
  flags: OPERATOR_FLAGS,
  examples: ['symport mappings remove 3'],
  async run(values, positionals) {
    const id = takeId(positionals, 'mapping', 'symport mappings remove ID')
    await atServerOrFiles(values, (client) => client.removeMapping(id))
    if (!wantsJson(values)) print(`mapping ${id} is removed`)
    return 0
  },
})

function setEnabled(enabled: boolean): Runnable {
  const verb = enabled ? 'enable' : 'disable'
  return command({
    usage: `symport mappings ${verb} ID [flags]`,
    summary: enabled ? 'Listens again for a mapping.' : 'Stops listening for a mapping, and keeps it.',
    flags: OPERATOR_FLAGS,
    examples: [`symport mappings ${verb} 3`],
    async run(values, positionals) {
      const id = takeId(positionals, 'mapping', `symport mappings ${verb} ID`)
      const mapping = await atServerOrFiles(values, (client) => client.setMappingEnabled(id, enabled))
      if (wantsJson(values)) printJson(mapping)
      else print(enabled ? describe(mapping) : `mapping ${id} is disabled`)
      return 0
    },
  })
}

const mappings: Runnable = dispatch(
  'mappings',
  {
    summary: 'What a server listens on, and which node forwards it where.',
    examples: ['symport mappings add :8078 127.0.0.1:8077 --node office', 'symport mappings list'],
  },
  {
    list: { usage: 'list', summary: 'show all mappings', flags: OPERATOR_FLAGS, run: list },
    add: {
      usage: 'add LISTEN TARGET',
      summary: 'add one, also as a SPEC',
      flags: ADD_FLAGS,
      run: withDefaults(add),
    },
    set: {
      usage: 'set ID',
      summary: 'change its limits, and what else can be',
      flags: ADD_FLAGS,
      run: withDefaults(set),
    },
    remove: { usage: 'remove ID', summary: 'remove one', flags: OPERATOR_FLAGS, run: remove },
    enable: { usage: 'enable ID', summary: 'listen again', flags: OPERATOR_FLAGS, run: setEnabled(true) },
    disable: {
      usage: 'disable ID',
      summary: 'stop listening, and keep it',
      flags: OPERATOR_FLAGS,
      run: setEnabled(false),
    },
  },
)

export default mappings

/** Flags that may stand alone. */
function withDefaults(run: Runnable): Runnable {
  return withHttpFlags(withDefault(run, 'health', DEFAULT_HEALTH, /^(?:none|[0-9]+(?:\.[0-9]+)?[a-z]*)$/))
}

/** Two words, each read by the server, or one SPEC. */
async function readHalves(
  positionals: readonly string[],
  ids: readonly string[],
): Promise<Pick<MappingRequest, 'listen' | 'forward'> & { nodes: readonly string[] }> {
  const [listen, forward, more] = positionals
  if (listen === undefined) throw new ProxyError('PROXY_ERR_USAGE', `what maps to what? write: ${ADD_USAGE} --node ID`)
  if (more !== undefined) {
    throw new ProxyError(
      'PROXY_ERR_USAGE',
      `a mapping is LISTEN and TARGET: there is nothing to do with "${more.slice(0, 40)}"`,
    )
  }
  if (forward !== undefined) return { listen, forward, nodes: ids }
  if (isHalf(listen)) throw new ProxyError('PROXY_ERR_USAGE', `${listen} maps to what? write: ${ADD_USAGE} --node ID`)
  // It comes with all that a file may say.
  const { contextOf } = await import('../common/config-mapping.ts')
  const { Listen, Forward, Node } = parseSpec(listen, contextOf('server', 'local'))
  if (Node !== undefined && ids.length > 0) {
    throw new ProxyError('PROXY_ERR_USAGE', 'the SPEC names a Node, and --node is given: keep one')
  }
  return { listen: Listen, forward: Forward, nodes: Node === undefined ? ids : [Node] }
}

/** `:8078`, `127.0.0.1:53/udp`, `[::1]:80`, `tcp://:80`: no SPEC, which has another half. */
function isHalf(text: string): boolean {
  return /^(?:[a-z][a-z0-9+.-]*:\/\/)?(?:\[[^\]]*\]|[^:,{}[\]]*):[0-9]+(?:\/(?:tcp|udp))?$/i.test(text)
}

function unknownNode(id: string, known: readonly string[]): string {
  const close = nearest(id, known)
  const advice = close === undefined ? `"symport nodes add" adds one` : `did you mean ${close}?`
  return `node ${id} is neither enrolled nor connected: ${advice}`
}

function toBalance(text: string | undefined): Balance | undefined {
  const known = BALANCES.find((name) => name === text)
  if (text === undefined || known !== undefined) return known
  throw new ProxyError('PROXY_ERR_USAGE', `--balance: write ${BALANCES.join(', ')}`)
}

function describe({ id, listen, bound, forward, state, problem, limits, http }: MappingStatus): string {
  const about =
    problem ?? (state === 'ready' ? 'ready' : state === 'no node' ? 'no node that serves it is connected' : state)
  const more = [limitsText(limits), httpText(http)].filter((text) => text !== '').join('; ')
  return `mapping ${id}: ${short(bound ?? listen)} to ${short(forward)}: ${about}${more === '' ? '' : ` (${more})`}`
}
