import type { FlagValue, NodeConfig, ServerConfig } from './config.ts'

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

const LIVE: ReadonlySet<string> = new Set(['allow', 'allow-ports', 'log-level', 'drain-timeout'])
const SECRETS: ReadonlySet<string> = new Set(['uuid', 'proxy', 'webhook'])

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
    list.push(SECRETS.has(name) ? `${name} changed` : `${name}: ${shown(old)} -> ${shown(now)}`)
  }

  const names = [...new Set([...Object.keys(before.values), ...Object.keys(after.values)])].sort()
  for (const name of names) compare(name, before.values[name], after.values[name])
  const { limits: oldLimits, ...oldOptions } = before.options
  const { limits: newLimits, ...newOptions } = after.options
  compare('limits', oldLimits, newLimits)
  compare('limits of all main connections together', oldOptions, newOptions)
  // Nodes are asked to listen when they connect.
  compare('peer_listener', before.peerListeners, after.peerListeners)
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
        ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
        : inner,
    ) ?? ''
  )
}

function shown(value: unknown): string {
  if (value === undefined) return 'not set'
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
  return text.length > 120 ? `${text.slice(0, 119)}…` : text
}
