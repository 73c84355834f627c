import { parseListenerFlag } from '../../lib/domains/short-spec.ts'
import type { DomainPlugin, Endpoint } from '../../lib/index.ts'
import { contextOf, readMapping, textsOf } from './config-mapping.ts'
import { fileMappings } from './config-mapping-schema.ts'
import type { FileTable } from './config-schema.ts'
import type { ClientEntry } from './config-types.ts'

/** What a file has for -D, -L and -R, as these take it. Passwords stand in it. */
export type ShortLists = Pick<ClientEntry, 'dynamic' | 'local' | 'remote'>

/** The lists at the top of a file. The mappings are apart. */
export function topLists(file: FileTable): ShortLists {
  return { dynamic: texts(file.dynamic), local: texts(file.local), remote: texts(file.remote) }
}

/** A `[[client]]` of a file whose shape has been checked. */
export function clientEntry(client: FileTable, key: string, absolute: (path: string) => string): ClientEntry {
  const lists = topLists(client)
  const file = client['uuid-file']
  return {
    key,
    server: text(client.server),
    secret: text(client.uuid ?? client.auth),
    uuidFile: typeof file === 'string' ? absolute(file) : undefined,
    secretAdvice: `add uuid-file or uuid to ${key}: "symport uuid" on the server shows the secret`,
    id: text(client.id),
    ca: typeof client.ca === 'string' ? absolute(client.ca) : undefined,
    pin: text(client.pin),
    proxy: text(client.proxy),
    allow: texts(client.allow),
    dynamic: lists.dynamic,
    // In this order, so that `remote[0]` is what the file has there.
    local: [...lists.local, ...specTexts(client, 'listener')],
    remote: [...lists.remote, ...specTexts(client, 'peer-listener')],
  }
}

function specTexts(client: FileTable, name: 'listener' | 'peer-listener'): string[] {
  const context = contextOf('node', name === 'listener' ? 'local' : 'remote')
  return fileMappings(client, name, 'node').flatMap((one) => textsOf(readMapping(one, context)))
}

/** Whether there is anything in it that others are not to know. */
export function hasSecrets({ dynamic, local, remote, secret, proxy }: ShortLists & Partial<ClientEntry>): boolean {
  const texts = [...dynamic, ...local, ...remote, proxy ?? '']
  return secret !== undefined || texts.some((one) => /@|"Password"/.test(one))
}

export function exposedWarnings(path: string, holdsSecret: boolean): string[] {
  return holdsSecret ? [`${path} holds a secret, and every user of this machine can read it: chmod 600`] : []
}

/** Whoever has more of them in a file means something else. */
const WARNINGS = 100

export interface Unique<Entry> {
  readonly entries: readonly Entry[]
  readonly warnings: readonly string[]
}

/** Without the names that one server would be asked for a second time: the first one wins. */
export function withoutTwins<Entry extends ShortLists & Pick<ClientEntry, 'key' | 'server'>>(
  entries: readonly Entry[],
  domains: readonly DomainPlugin[],
): Unique<Entry> {
  const warnings: string[] = []
  const first = new Map<string, string>()
  const unique = entries.map((entry) => {
    const remote = entry.remote.filter((spec, i) => {
      const name = registeredName(parseListenerFlag(spec, 'remote', { domains }).Listen)
      if (name === undefined) return true
      const key = `${entry.key === '' ? '' : `${entry.key}.`}remote[${i}]`
      const place = `${entry.server?.toLowerCase().replace(/\/+$/, '') ?? ''} ${name}`
      const other = first.get(place)
      if (other !== undefined && warnings.length < WARNINGS)
        warnings.push(`${key}: ${name} is registered by ${other} already: left out`)
      first.set(place, other ?? key)
      return other === undefined
    })
    return { ...entry, remote }
  })
  return { entries: unique, warnings }
}

/** What there can be only one of at a server. */
function registeredName({ Domain, Addr }: Endpoint): string | undefined {
  if (Domain === 'channel') return `channel ${Addr}`
  return Domain === 'web' || Domain === 'ws' ? Addr.replace(/\?.*$/s, '') : undefined
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function texts(value: unknown): string[] {
  return value === undefined ? [] : [value].flat().map(String)
}
