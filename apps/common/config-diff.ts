import { Hidden } from '../../lib/domains/hidden.ts'
import type { FlagValue, NodeConfig, ServerConfig } from './config-types.ts'

/** What a changed file changes. Lines are for people, and show no secret. */
export interface ConfigDiff {
  /** Whether the mappings of this side changed. Which ones, and how, the hub finds out. */
  readonly mappings: boolean
  /** Values that are to be applied now, by the names of their flags. */
  readonly live: readonly string[]
  /** The same for people, a line each. */
  readonly changes: readonly string[]
  /** What a restart is needed for, a line each. */
  readonly restart: readonly string[]
}

const LIVE: ReadonlySet<string> = new Set([
  ...['allow', 'allow-names', 'allow-ports', 'log-level', 'drain-timeout', 'node-limits'],
])
const SECRETS: ReadonlySet<string> = new Set([
  ...['uuid', 'proxy', 'webhook'],
  // These may hold passwords of channels.
  ...['client', 'dynamic', 'local', 'remote'],
])

/** Two words for one thing. */
const TWINS: readonly (readonly string[])[] = [
  ['uuid', 'uuid-file'],
  ['host', 'server'],
]

/** Compares two files. What the command line says itself (`flags`) does not change with them. */
export function diffConfig(
  before: ServerConfig | NodeConfig,
  after: ServerConfig | NodeConfig,
  flags: Readonly<Record<string, FlagValue>> = {},
): ConfigDiff {
  const given = (name: string): boolean =>
    (TWINS.find((names) => names.includes(name)) ?? [name]).some((one) => {
      const value = flags[one]
      return Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false
    })
  const live: string[] = []
  const changes: string[] = []
  const restart: string[] = []
  const compare = (name: string, old: unknown, now: unknown): void => {
    if (given(name) || same(old, now)) return
    if (LIVE.has(name)) live.push(name)
    const list = LIVE.has(name) ? changes : restart
    const [one, other] = [shown(old), shown(now)]
    // Two that look the same differ in what is not shown, as the password of a channel.
    list.push(SECRETS.has(name) || one === other ? `${name} changed` : `${name}: ${one} -> ${other}`)
  }

  const names = [...new Set([...Object.keys(before.values), ...Object.keys(after.values)])].sort()
  for (const name of names) compare(name, before.values[name], after.values[name])
  const { limits: oldLimits, ...oldOptions } = before.options
  const { limits: newLimits, ...newOptions } = after.options
  compare('limits', oldLimits, newLimits)
  compare('limits of all main connections together', oldOptions, newOptions)
  // Nodes are asked to listen when they connect.
  compare('peer_listener', before.peerListeners, after.peerListeners)
  if (before.role === 'server' && after.role === 'server') {
    compare('host', before.wsp?.ownName, after.wsp?.ownName)
    compare('node-limits', before.nodeLimits ?? {}, after.nodeLimits ?? {})
  }
  if (before.role === 'node' && after.role === 'node') {
    for (const name of ['client', 'dynamic', 'local', 'remote'] as const) {
      compare(name, name === 'client' ? before.clients : before[name], name === 'client' ? after.clients : after[name])
    }
  }
  // There may be thousands, whose keys have one order by now.
  const mappings = !given('listener') && JSON.stringify(before.listeners) !== JSON.stringify(after.listeners)
  return { mappings, live, changes, restart }
}

/** By value; in which order the keys of a table stand does not matter. */
function same(a: unknown, b: unknown): boolean {
  return canonical(a) === canonical(b)
}

function canonical(value: unknown): string {
  return (
    JSON.stringify(value, (_key, inner: unknown) =>
      typeof inner === 'object' && inner !== null && !Array.isArray(inner)
        ? Object.fromEntries(
            Object.entries(inner)
              .map(([key, one]) => [key, one instanceof Hidden ? one.reveal() : one] as const)
              .sort(([a], [b]) => (a < b ? -1 : 1)),
          )
        : inner,
    ) ?? ''
  )
}

function shown(value: unknown): string {
  if (value === undefined) return 'not set'
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
  return text.length > 120 ? `${text.slice(0, 119)}…` : text
}
