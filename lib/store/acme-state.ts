import type { X509Certificate } from 'node:crypto'
import { readdir, rm } from 'node:fs/promises'
import * as v from 'valibot'
import { CHALLENGE_TYPES, type ChallengeType } from './acme-challenges.ts'
import { namesOf } from './acme-names.ts'
import { JsonFile } from './json-file.ts'
import { type Identity, identityOf } from './pem.ts'
import { StateFolder } from './state-folder.ts'

const STATE_FILE = 'state.json'
const HOUR = 3_600_000
const WEEK = 7 * 24 * HOUR

export interface Trouble {
  /** Orders that came to nothing, one after the other. */
  readonly tries: number
  /** There is no other before that, in ms since 1970, as all times here. */
  readonly again: number
  /** Why the last one did, for people. */
  readonly reason?: string | undefined
}

export interface AcmeName {
  readonly name: string
  /** The kept certificate. */
  readonly certificate?: { readonly from: number; readonly to: number } | undefined
  readonly trouble?: Trouble | undefined
  /** When the CA has looked and not found, within the last hour. */
  readonly missed?: readonly number[] | undefined
}

export interface AcmeState {
  readonly account?: { readonly url: string; readonly email: string } | undefined
  readonly names: readonly AcmeName[]
  /** Orders of the last hour; of the last week, those that gave a name its first certificate. */
  readonly orders: readonly number[]
  readonly first: readonly number[]
  /** What concerns all names. */
  readonly trouble?: Trouble | undefined
  /** How the CA looked when it last found what it wanted. */
  readonly way?: ChallengeType | undefined
}

const TIMES = v.pipe(v.array(v.number()), v.maxLength(10_000))
const TROUBLE = v.object({ tries: v.number(), again: v.number(), reason: v.optional(v.string()) })
const STATE: v.GenericSchema<unknown, AcmeState> = v.object({
  account: v.optional(v.object({ url: v.string(), email: v.string() })),
  names: v.array(
    v.object({
      name: v.pipe(v.string(), v.maxLength(253)),
      certificate: v.optional(v.object({ from: v.number(), to: v.number() })),
      trouble: v.optional(TROUBLE),
      missed: v.optional(TIMES),
    }),
  ),
  orders: TIMES,
  first: TIMES,
  trouble: v.optional(TROUBLE),
  way: v.optional(v.picklist(CHALLENGE_TYPES)),
})

/** What is kept of one CA: who we are there, certificates with their keys, and what was tried when. */
export class AcmeStore {
  readonly folder: StateFolder
  readonly #file: JsonFile<AcmeState>
  #index: { readonly of: readonly AcmeName[]; readonly names: ReadonlyMap<string, AcmeName> } = {
    of: [],
    names: new Map(),
  }

  /** @throws ProxyError PROXY_ERR_STATE */
  static async open(folder: StateFolder, directory: string): Promise<AcmeStore> {
    const own = new StateFolder(folder.file(folderOf(directory)))
    return new AcmeStore(own, await JsonFile.open(own, STATE_FILE, STATE, { names: [], orders: [], first: [] }))
  }

  private constructor(folder: StateFolder, file: JsonFile<AcmeState>) {
    this.folder = folder
    this.#file = file
  }

  get state(): AcmeState {
    return this.#file.value
  }

  get names(): Iterable<AcmeName> {
    return this.state.names
  }

  /** Made again whenever the state is another one, also if that is the one from before what could not be written. */
  get #names(): ReadonlyMap<string, AcmeName> {
    const { names } = this.state
    if (this.#index.of !== names) this.#index = { of: names, names: new Map(names.map((entry) => [entry.name, entry])) }
    return this.#index.names
  }

  nameOf(name: string): AcmeName {
    return this.#names.get(name) ?? { name }
  }

  /**
   * Keeps what is said about a name, and what else changes with it. If it cannot be written, all is as before.
   *
   * @throws ProxyError PROXY_ERR_STATE
   */
  async change(now: number, name: AcmeName | undefined, rest: Partial<AcmeState> = {}): Promise<void> {
    const names = new Map(this.#names)
    if (name) {
      const isEmpty = name.certificate === undefined && name.trouble === undefined && name.missed === undefined
      if (isEmpty) names.delete(name.name)
      else names.set(name.name, name)
    }
    const next = { ...this.state, names: [...names.values()], ...rest }
    await this.#file.change({
      ...next,
      orders: next.orders.filter((at) => at > now - HOUR && at <= now),
      first: next.first.filter((at) => at > now - WEEK && at <= now),
    })
  }

  /** What has failed may be tried at once; that it has failed before is not forgotten. */
  async forgive(now: number): Promise<void> {
    const names = this.state.names.map((entry) =>
      entry.trouble ? { ...entry, trouble: { ...entry.trouble, again: 0 } } : entry,
    )
    await this.change(now, undefined, { names, trouble: undefined })
  }

  /**
   * The kept certificate of a name; undefined if it is lost, or no good.
   *
   * @throws ProxyError PROXY_ERR_STATE if it cannot be read now, which says nothing about it
   */
  async read(name: string): Promise<Identity | undefined> {
    const file = await this.folder.read(fileOf(name))
    return file && (await this.check(name, file.text).catch(() => undefined))
  }

  /** What TLS makes of a key and a chain. Throws if they are not what they should be. */
  async check(name: string, text: string): Promise<Identity & { readonly leaf: X509Certificate }> {
    const identity = await identityOf(text, text, (message) => {
      throw new Error(message)
    })
    const [leaf] = identity.chain
    // Of a wildcard any name below will do.
    for (const host of namesOf(name).map((one) => one.replace(/^\*/, 'any'))) {
      if (leaf?.checkHost(host, { subject: 'never' }) === undefined) throw new Error(`it is not for ${name}`)
    }
    if (!leaf) throw new Error('it is empty')
    return { ...identity, leaf }
  }

  async write(name: string, text: string): Promise<void> {
    await this.folder.write(fileOf(name), text)
  }

  async remove(name: string): Promise<void> {
    await rm(this.folder.file(fileOf(name)), { force: true })
  }

  /** Takes up certificates that nothing is known of any more, as after a crash; what is no good is deleted. */
  async adopt(now: number): Promise<void> {
    for (const file of await readdir(this.folder.path).catch(() => [])) {
      const name = /^cert-(.*)\.pem$/.exec(file)?.[1]?.replace(/^_\./, '*.')
      if (name === undefined || this.#names.get(name)?.certificate) continue
      try {
        const [leaf] = (await this.read(name))?.chain ?? []
        if (leaf) await this.change(now, { ...this.nameOf(name), certificate: lifeOf(leaf) })
        else await this.remove(name)
      } catch {
        // Another start may be able to read it; it is not deleted unseen.
      }
    }
  }
}

/** From when to when it is good, in ms since 1970. */
export function lifeOf(leaf: X509Certificate): { from: number; to: number } {
  return { from: Date.parse(leaf.validFrom), to: Date.parse(leaf.validTo) }
}

/** The folder of one CA: what one has signed is not shown where another was asked for. */
function folderOf(directory: string): string {
  const { host, pathname } = new URL(directory)
  return `acme-${`${host}${pathname}`
    .toLowerCase()
    .replace(/[^a-z0-9.]+/g, '-')
    .replace(/-$/, '')
    .slice(0, 100)}`
}

/** File systems take 255 bytes; a longer name is one that nobody has. Not all of them take a `*`. */
function fileOf(name: string): string {
  return `cert-${name.replace(/^\*/, '_')}.pem`
}
