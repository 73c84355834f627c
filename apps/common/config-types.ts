import type { Limits, ServerOptions } from '../../lib/index.ts'
import type { TrafficLimits } from '../../lib/policy/traffic-limits.ts'
import type { ConfigMapping } from './config-mapping.ts'
import type { Problem, Role } from './config-schema.ts'

/** What a flag has: text, a list, or yes and no. */
export type FlagValue = string | readonly string[] | boolean | undefined

/** What files of servers and nodes have in common. */
export interface CommonConfig {
  /** The file, as it was named. */
  readonly path: string
  /** What flags say, by their names, paths made absolute. Mappings are apart. */
  readonly values: Readonly<Record<string, string | readonly string[] | boolean>>
  /** Where connections come in on this side. */
  readonly listeners: readonly ConfigMapping[]
  readonly peerListeners: readonly ConfigMapping[]
  /** Where each of the listeners stands in the file: `mapping[0]`. */
  readonly listenerKeys: readonly string[]
  /** What flags do not say. */
  readonly options: ConfigOptions
  /** What is not wrong, and should be known. */
  readonly warnings: readonly string[]
}

export type ConfigOptions = Pick<
  ServerOptions,
  'heldBytes' | 'maxHandshakes' | 'handshakesPerAddress' | 'maxSessions'
> & {
  readonly limits?: Partial<Limits> | undefined
}

export interface ServerConfig extends CommonConfig {
  readonly role: 'server'
  /** What each node may have that has no limits of its own. */
  readonly nodeLimits?: TrafficLimits | undefined
  /** There if the file is one of wsp's: what it says that no flag does. */
  readonly wsp?: WspServer | undefined
}

/** What a server's file of wsp says beyond flags. */
export interface WspServer {
  /** The server's own name (`host`): a request for another one is for a node that registered it. */
  readonly ownName?: string | undefined
  /** What nodes may dial through it (`allow`), as in `values`; without it, what wsp lets them. */
  readonly allow?: readonly string[] | undefined
}

export interface NodeConfig extends CommonConfig {
  readonly role: 'node'
  /** One for each server, if the file names several (`[[client]]`), each a main connection of its own; else empty. */
  readonly clients: readonly ClientEntry[]
  /** As -D, -L and -R have them, besides the listeners. They may hold passwords of channels. */
  readonly dynamic: readonly string[]
  readonly local: readonly string[]
  readonly remote: readonly string[]
  /** Whether the file is one of wsp's. */
  readonly wsp: boolean
}

/** One server of a node, as its file has it. What it leaves out stands in `values`, for all of them. */
export interface ClientEntry {
  /** Where it stands in the file, for messages: `client[0]`. */
  readonly key: string
  /** As `--server` has it. */
  readonly server?: string | undefined
  readonly secret?: string | undefined
  /** A file that holds it; the path is absolute. */
  readonly uuidFile?: string | undefined
  /** What to say if there is no secret, here or in the state folder: which key to add. */
  readonly secretAdvice: string
  readonly id?: string | undefined
  readonly ca?: string | undefined
  readonly pin?: string | undefined
  readonly proxy?: string | undefined
  /** As `--allow` has it. */
  readonly allow: readonly string[]
  /** As -D, -L and -R have them: SPECs and wsp's short forms, which may hold passwords of channels. */
  readonly dynamic: readonly string[]
  readonly local: readonly string[]
  readonly remote: readonly string[]
}

/** A file, as far as it can be made sense of: `config` is there if nothing is wrong. */
export interface ReadConfig {
  readonly role: Role
  readonly problems: readonly Problem[]
  readonly config?: ServerConfig | NodeConfig | undefined
}
