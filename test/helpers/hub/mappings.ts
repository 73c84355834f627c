import { mkdtemp, rm } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { DomainPlugin } from '../../../lib/core/index.ts'
import { tcp } from '../../../lib/domains/tcp.ts'
import { unix } from '../../../lib/domains/unix.ts'
import type { Connected, HubEvent } from '../../../lib/hub/events.ts'
import { MappingTable, type MappingTableOptions } from '../../../lib/hub/mapping-table.ts'
import type { MappingStatus } from '../../../lib/hub/operations.ts'
import { Pool } from '../../../lib/hub/pool.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { dialProgram, type Program, program } from '../contract/programs.ts'
import { connectPair, MEMORY } from '../contract/proxies.ts'

export const ANYWHERE = '127.0.0.1:0'

export type EventOf<T extends HubEvent['type']> = Extract<HubEvent, { type: T }>

export interface Hub extends AsyncDisposable {
  readonly table: MappingTable
  readonly pool: Pool
  readonly events: readonly HubEvent[]
  told<T extends HubEvent['type']>(type: T): EventOf<T>[]
  /** The first event of this kind, from now on, that `accept` takes. */
  next<T extends HubEvent['type']>(type: T, accept?: (event: EventOf<T>) => boolean): Promise<EventOf<T>>
  /** Connects another instance of a node; it dials what it is asked to with `domains`. */
  join(id: string, domains?: readonly DomainPlugin[]): Promise<Instance>
}

export interface Instance extends AsyncDisposable {
  readonly peer: Connected
}

/** A table that listens, with nodes over memory links. */
export async function hub(options: Partial<MappingTableOptions> & { unstarted?: boolean } = {}): Promise<Hub> {
  const pool = new Pool()
  const events: HubEvent[] = []
  const takers = new Set<(event: HubEvent) => void>()
  const stop = new AbortController()
  const onEvent = (event: HubEvent): void => {
    events.push(event)
    for (const take of [...takers]) take(event)
  }
  const given = { domains: [tcp(), unix()], pool, onEvent, signal: stop.signal, ...options }
  const table = await MappingTable.open(given)
  if (!options.unstarted) await table.start()
  const instances: Instance[] = []

  const join = async (id: string, domains: readonly DomainPlugin[] = [tcp(), unix()]): Promise<Instance> => {
    const pair = await connectPair(MEMORY, { dialling: { domains } })
    const peer: Connected = {
      ...{ proxy: pair.accepting, id, instance: `${id} ${instances.length}`, connectedAt: new Date() },
      ...{ remote: undefined, transport: undefined, enrolled: false },
    }
    pool.add(peer)
    void peer.proxy.closed.then(() => pool.remove(peer))
    const instance = { peer, [Symbol.asyncDispose]: () => pair[Symbol.asyncDispose]() }
    instances.push(instance)
    return instance
  }
  return {
    ...{ table, pool, events, join },
    told: <T extends HubEvent['type']>(type: T) => events.filter((event): event is EventOf<T> => event.type === type),
    next: (type, accept = () => true) =>
      new Promise((resolve) => {
        const take = (event: HubEvent): void => {
          if (!isOf(event, type) || !accept(event)) return
          takers.delete(take)
          resolve(event)
        }
        takers.add(take)
      }),
    async [Symbol.asyncDispose]() {
      stop.abort()
      await table.close()
      await Promise.all(instances.map((instance) => instance[Symbol.asyncDispose]()))
    },
  }
}

function isOf<T extends HubEvent['type']>(event: HubEvent, type: T): event is EventOf<T> {
  return event.type === type
}

/** A program that says its name to whoever connects, and keeps the connection until that side ends. */
export function named(name: string): Promise<Program> {
  return program((socket) => {
    socket.write(name)
    socket.on('end', () => socket.end())
    socket.resume()
  })
}

/** A `tcp` that takes every dial to the program of this one node, so that several can share one mapping. */
export function leadsTo(target: Program): DomainPlugin {
  const real = tcp()
  return { ...real, resolve: async () => ['127.0.0.1'], dial: (_to, context) => dialTo(real, target, context) }
}

async function dialTo(
  { dial }: DomainPlugin,
  { endpoint }: Program,
  context: Parameters<NonNullable<DomainPlugin['dial']>>[1],
): ReturnType<NonNullable<DomainPlugin['dial']>> {
  if (!dial) throw new TypeError('it cannot dial')
  return await dial(endpoint, context)
}

/** Connects to where a mapping listens, and answers with the first words that come; they are empty at a mere end. */
export async function visit(mapping: MappingStatus): Promise<{ socket: Socket; words: string }> {
  const { bound } = mapping
  if (!bound) throw new Error(`mapping ${mapping.id} does not listen: ${mapping.problem}`)
  const socket = await dialProgram(bound)
  const words = await new Promise<string>((resolve) => {
    socket.once('data', (chunk) => resolve(String(chunk)))
    socket.once('end', () => resolve(''))
    socket.once('close', () => resolve(''))
  })
  return { socket, words }
}

/** As `visit`, and gone again. */
export async function ask(mapping: MappingStatus): Promise<string> {
  const { socket, words } = await visit(mapping)
  socket.destroy()
  return words
}

export async function stateFolder(t: TestContext): Promise<StateFolder> {
  const path = await mkdtemp(join(tmpdir(), 'symport-mappings-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  return new StateFolder(join(path, 'state'))
}

/** Sees to it that nothing can be written any more, until the returned function is called. */
export function fill(folder: StateFolder): () => void {
  const { write } = folder
  folder.write = () => Promise.reject(new Error('no space left'))
  return () => {
    folder.write = write
  }
}
