import type { MappingRequest, ReloadReport } from '../../lib/index.ts'
import { configMappings, type FlagValue, loadConfig, mergeConfig, type ServerConfig } from '../common/config.ts'
import { diffConfig } from '../common/config-diff.ts'

export interface Reloadable<Values> {
  /** What the command line says, without the file. */
  readonly flags: Values
  readonly path: string
  readonly config: ServerConfig
  /** Checks what all that can change while it runs would become, and answers how to make it so. */
  prepare(values: Values, config: ServerConfig): () => void
  /** Makes the mappings of the file these, or throws and changes nothing. Answers what changed, a line each. */
  setMappings(requests: readonly MappingRequest[]): Promise<string[]>
}

/**
 * A function that reads the file again and applies what changed; what the change does not concern goes on. A bad file
 * changes nothing.
 */
export function reloader<
  Values extends { readonly [name in keyof Values]: FlagValue } & { readonly listener: readonly string[] },
>(options: Reloadable<Values>): () => Promise<ReloadReport> {
  const { flags, path } = options
  let config = options.config
  // What needs a restart needs it until there is one.
  const started = options.config
  let last: Promise<unknown> = Promise.resolve()
  const reload = async (): Promise<ReloadReport> => {
    const next = await loadConfig(path, 'server')
    const diff = diffConfig(config, next, flags)
    const apply = options.prepare(mergeConfig<Values>(flags, next), next)
    const lines = diff.mappings ? await options.setMappings(configMappings(flags, next)) : []
    apply()
    config = next
    return { changes: [...diff.changes, ...lines], restart: diffConfig(started, next, flags).restart }
  }
  // One after the other: a signal and a command may come together.
  return () => {
    const report = last.then(reload)
    last = report.catch(() => {})
    return report
  }
}
