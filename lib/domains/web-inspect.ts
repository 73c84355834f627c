import { randomInt } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Origin } from '../sockets/requests.ts'
import { type Inspected, Recording, type Shelf } from './web-recording.ts'

export interface RecorderOptions {
  /** Requests of one listener that are kept. Default 500. */
  readonly mostOfOne?: number | undefined
  /** Of those, requests that were refused here: anybody can send them. Default 50. */
  readonly mostRefused?: number | undefined
  /** Bytes of a body that are kept. Default 65,536. */
  readonly bodyBytes?: number | undefined
  /** Bytes of all that is kept, heads included. Default 32 MiB. */
  readonly mostBytes?: number | undefined
  /** How long anything is kept, in ms. Default an hour. */
  readonly lifetime?: number | undefined
}

/** No vowels: no words. */
const LETTERS = 'bcdfghjkmnpqrstvwxz'

/** The last requests of listeners that ask for it, and their answers: bounded in number, in bytes and in time. */
export class Recorder {
  readonly #options: { readonly [name in keyof RecorderOptions]-?: number }
  /** In the order in which they came. */
  readonly #all = new Map<string, Recording>()
  readonly #shelves = new Map<string, Shelf>()
  readonly #begun = new WeakMap<IncomingMessage, Recording>()
  readonly #replays = new Map<Origin, Replay>()
  /** So that an id of another process, or of one before, is none of this one. */
  readonly #prefix = Array.from({ length: 3 }, () => LETTERS[randomInt(LETTERS.length)]).join('')
  #next = 1
  #bytes = 0
  #timer: NodeJS.Timeout | undefined

  constructor({ mostOfOne, mostRefused, bodyBytes, mostBytes, lifetime }: RecorderOptions = {}) {
    this.#options = {
      mostOfOne: mostOfOne ?? 500,
      mostRefused: mostRefused ?? 50,
      bodyBytes: bodyBytes ?? 65_536,
      mostBytes: mostBytes ?? 33_554_432,
      lifetime: lifetime ?? 3_600_000,
    }
  }

  /** Bytes that are held, more or less. */
  get bytes(): number {
    return this.#bytes
  }

  get size(): number {
    return this.#all.size
  }

  /** If the listener asks for it: it is kept when it is let in, or refused. */
  begin(inspected: Inspected, isAsked: boolean | undefined): Recording | undefined {
    if (isAsked !== true && this.#replays.size === 0) return undefined
    const { site, request, response, origin } = inspected
    const replay = this.#replays.get(origin)
    if (site.domain !== 'web' || (!replay && isAsked !== true)) return undefined
    const known = this.#begun.get(request)
    if (known) return known
    const key = site.context.name ?? `${site.address.host}${site.address.path}`
    const recording = new Recording(`${this.#prefix}${this.#next++}`, inspected, {
      bodyBytes: this.#options.bodyBytes,
      replayOf: replay?.of,
      onGrown: (bytes) => this.#grow(recording, bytes),
      onLetIn: () => this.#keep(recording, key, false),
      onEnded: () => {
        if (!recording.isLetIn) this.#keep(recording, key, true)
        replay?.ended(recording)
      },
    })
    this.#begun.set(request, recording)
    response.once('finish', () => recording.ended())
    response.once('close', () => recording.ended())
    replay?.begun(recording)
    return recording
  }

  /** What comes with this origin is recorded, whatever the listener says, until the function is called. */
  expect(origin: Origin, replay: Replay): () => void {
    this.#replays.set(origin, replay)
    return () => this.#replays.delete(origin)
  }

  /** The newest first. */
  list(): Recording[] {
    return [...this.#all.values()].reverse()
  }

  get(id: string): Recording | undefined {
    return this.#all.get(id)
  }

  /** Forgets all of them, or those of one listener. */
  clear(wanted: (recording: Recording) => boolean = () => true): number {
    const gone = [...this.#all.values()].filter(wanted)
    for (const recording of gone) this.#drop(recording)
    return gone.length
  }

  #keep(recording: Recording, key: string, isRefused: boolean): void {
    const { mostOfOne, mostRefused, lifetime } = this.#options
    const shelf = this.#shelves.get(key) ?? { key, bytes: 0, recordings: new Set(), refused: new Set() }
    this.#shelves.set(key, shelf)
    shelf.recordings.add(recording)
    if (isRefused) shelf.refused.add(recording)
    recording.shelf = shelf
    this.#all.set(recording.id, recording)
    if (shelf.refused.size > mostRefused) this.#drop(oldestOf(shelf.refused))
    if (shelf.recordings.size > mostOfOne) this.#drop(oldestOf(shelf.recordings))
    this.#grow(recording, recording.bytes)
    this.#timer ??= setTimeout(() => this.#expire(), lifetime).unref()
  }

  /** Whoever has the most has to give: a busy listener does not cost the others their last requests. */
  #grow({ shelf }: Recording, bytes: number): void {
    if (!shelf) return
    shelf.bytes += bytes
    this.#bytes += bytes
    while (this.#bytes > this.#options.mostBytes) {
      let largest = shelf
      for (const other of this.#shelves.values()) if (other.bytes > largest.bytes) largest = other
      this.#drop(oldestOf(largest.recordings))
    }
  }

  #drop(recording: Recording | undefined): void {
    const shelf = recording?.shelf
    if (!recording || !shelf) return
    this.#all.delete(recording.id)
    shelf.recordings.delete(recording)
    shelf.refused.delete(recording)
    shelf.bytes -= recording.bytes
    this.#bytes -= recording.bytes
    if (shelf.recordings.size === 0) this.#shelves.delete(shelf.key)
    recording.forget()
  }

  #expire(): void {
    this.#timer = undefined
    const now = performance.now()
    for (const recording of this.#all.values()) {
      const left = recording.since + this.#options.lifetime - now
      if (left > 0) {
        this.#timer = setTimeout(() => this.#expire(), left + 1).unref()
        return
      }
      this.#drop(recording)
    }
  }
}

/** A request that is asked again, on its way to becoming an entry of its own. */
export interface Replay {
  /** The id of the first one. */
  readonly of: string
  begun(recording: Recording): void
  ended(recording: Recording): void
}

function oldestOf(recordings: ReadonlySet<Recording>): Recording | undefined {
  for (const recording of recordings) return recording
  return undefined
}
