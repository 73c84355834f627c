import type { ConfigMapping, FlagValue, MergeOptions, NodeConfig, Role, ServerConfig } from './config.ts'
import { notEmpty, type StringFlag } from './flags.ts'

export const CONFIG_FLAG: StringFlag<'config'> = {
  name: 'config',
  alias: 'c',
  kind: 'string',
  value: 'FILE',
  help: 'A TOML or JSON file that says what flags say, and more (doc/config.md). Flags go first.',
}

export interface Completed<Values> {
  readonly values: Values
  readonly config: ServerConfig | NodeConfig | undefined
  /** The mappings of a server's file, unless its command line has listeners. */
  readonly mappings: readonly ConfigMapping[]
}

/** The values of a command line, completed by the file that it names with `--config`, if it does. */
export async function applyConfig<
  Values extends { readonly [name in keyof Values]: FlagValue } & { readonly listener: readonly string[] },
>(
  role: Role,
  flags: Values & { readonly config: string | undefined },
  options: MergeOptions = {},
): Promise<Completed<Values>> {
  const path = notEmpty(flags.config, 'config')
  if (path === undefined) return { values: flags, config: undefined, mappings: [] }
  const { configMappings, loadConfig, mergeConfig } = await import('./config.ts')
  const config = await loadConfig(path, role)
  return { values: mergeConfig<Values>(flags, config, options), config, mappings: configMappings(flags, config) }
}
