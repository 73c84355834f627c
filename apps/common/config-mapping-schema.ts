import * as v from 'valibot'
import { parseListenerFlag } from '../../lib/domains/short-spec.ts'
import { httpSchema } from './config-http.ts'
import { limitsSchema } from './config-limits.ts'
import {
  checkHalves,
  contextOf,
  type FileContext,
  type FileHalf,
  type FileMapping,
  readHalf,
  type SpecTable,
} from './config-mapping.ts'
import {
  checked,
  duration,
  either,
  type FileTable,
  isTable,
  items,
  list,
  oneOf,
  type Role,
  table,
  text,
  unknownIn,
  yes,
} from './config-parts.ts'
import { checkId } from './config-tables.ts'

// The mappings of a configuration file.

const BALANCES = ['first', 'round-robin', 'least-connections'] as const
const NOTE_LENGTH = 1000

export const MAPPING_LISTS: Readonly<Record<Role, readonly string[]>> = {
  server: ['listener', 'peer-listener', 'mapping'],
  node: ['listener', 'peer-listener'],
}

export const MAPPING_ABOUT: Record<Role, Readonly<Record<string, string>>> = {
  server: {
    listener: 'The server listens, a node forwards.',
    'peer-listener': 'Each node listens, the server forwards.',
    mapping: 'The same as listener.',
  },
  node: {
    listener: 'This side listens, the server forwards (if it allows).',
    'peer-listener': 'The server listens (if it allows), this side forwards.',
  },
}

function checkNote(note: string): void {
  if (note.length > NOTE_LENGTH) throw new Error(`at most ${NOTE_LENGTH} characters`)
}

/** The keys of a mapping's table. What belongs to the sharing out among nodes is for listeners of the server only. */
function mappingKeys(context: FileContext) {
  const half = (about: string, side: 'listen' | 'forward'): v.GenericSchema<FileHalf> => {
    const endpoint = table(
      'An endpoint.',
      {
        Domain: text('tcp, udp, unix, and what else doc/config.md has.'),
        // Of a tunnel to the other side, it is empty.
        Addr: v.pipe(
          either(text(''), v.literal(''), (value) => value === ''),
          v.description('host:port, or what else the domain has.'),
        ),
        Password: v.optional(
          v.pipe(
            either(text(''), v.literal(''), (value) => value === ''),
            v.description("A channel's; empty: it has none."),
          ),
        ),
      },
      () => 'unknown key: an endpoint has Domain, Addr and perhaps a Password',
    )
    return v.pipe(
      either(text('host:port, :port, a URL or a path.'), endpoint, isTable),
      checked((value) => readHalf(value, side, context)),
      v.description(about),
    )
  }
  const plain = {
    listen: half('Where connections come in.', 'listen'),
    forward: half('Where the other side takes them.', 'forward'),
    note: v.optional(text('For people.', checkNote)),
    enabled: v.optional(yes('Default true.')),
  }
  const pinned = {
    ...plain,
    node: v.optional(text('The node that serves it. Default: any.', checkId)),
    nodes: v.optional(list('The nodes that serve it.', checkId)),
  }
  const health = table(
    'How the target is checked.',
    {
      interval: v.optional(duration('Time between two checks. Default 10s.', 100, 86_400_000)),
      timeout: v.optional(duration('How long the target may take to answer. Default 5s.', 10, 60_000)),
    },
    () => 'unknown key: known are interval and timeout',
  )
  const shared = {
    ...pinned,
    balance: v.optional(oneOf('How connections are shared out among its nodes. Default first.', BALANCES)),
    wait: v.optional(duration('How long a connection waits for a node that is away. Default 5s.', 0, 60_000)),
    health: v.optional(
      v.pipe(
        either(yes('Whether the target is checked.'), health, isTable),
        v.description('A node whose target does not answer is left out.'),
      ),
    ),
    limits: v.optional(limitsSchema('What may go through it.')),
    http: v.optional(httpSchema('What is done to its requests, if it listens at the web port.')),
  }
  return { plain, pinned, shared }
}

/** A SPEC in any of its forms, or a table with these keys. */
function mappingSchema<const E extends v.ObjectEntries>(
  entries: E,
  title: string,
  context: FileContext,
): v.GenericSchema<string | SpecTable | v.InferOutput<v.ObjectSchema<E, undefined>>> {
  const { plain } = mappingKeys(context)
  const named = table('A mapping.', entries, unknownIn(Object.keys(entries)))
  const halves = v.object({ listen: plain.listen, forward: plain.forward })
  const one = v.pipe(
    named,
    v.rawCheck(({ dataset: { value }, addIssue }) => {
      if (isTable(value) && 'node' in value && 'nodes' in value) {
        addIssue({ message: 'node and nodes are both there: keep one' })
      }
    }),
    checked((value) => {
      if (v.is(halves, value)) checkHalves(value.listen, value.forward, context)
    }),
  )
  const spec = text('A SPEC: [bind:]port:host:hostport, or two endpoint URLs with a comma.', (value) =>
    parseListenerFlag(value, context.use, context),
  )
  const json = v.pipe(
    table(
      'A SPEC as JSON has it.',
      { Listen: plain.listen, Forward: plain.forward, Node: v.optional(text('The node that serves it.')) },
      () => 'unknown key: a SPEC has Listen, Forward and Node',
    ),
    checked(({ Listen, Forward }) => checkHalves(Listen, Forward, context)),
  )
  const tabular = either(one, json, (value) => isTable(value) && 'Listen' in value)
  return v.pipe(
    either(spec, tabular, (value) => typeof value !== 'string'),
    v.title(title),
  )
}

/** The mappings of a list of the file (or of a client in it), whose shape has been checked. */
export function fileMappings(file: FileTable, name: string, role: Role): FileMapping[] {
  const value = file[name]
  if (value === undefined) return []
  const context = contextOf(role, useOf(name))
  const schema = mappingSchema(mappingKeys(context).shared, name, context)
  return v.parse(v.array(schema), Array.isArray(value) ? value : [value])
}

/** Who listens. */
function useOf(name: string): FileContext['use'] {
  return name === 'peer-listener' ? 'remote' : 'local'
}

/** One mapping, or a list of them. */
export function mappingsSchema(role: Role, name: string, about: string): v.GenericSchema {
  const context = contextOf(role, useOf(name))
  const { plain, pinned, shared } = mappingKeys(context)
  const [keys, title] =
    role === 'node'
      ? [plain, 'mapping-of-a-node']
      : name === 'peer-listener'
        ? [pinned, 'mapping-at-nodes']
        : [shared, 'mapping-of-a-server']
  const mapping = mappingSchema(keys, title, context)
  const many = either(mapping, items(mapping), (value) => Array.isArray(value))
  return v.pipe(many, v.description(about))
}
