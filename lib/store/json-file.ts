import * as v from 'valibot'
import { ProxyError } from '../core/errors.ts'
import type { StateFolder } from './state-folder.ts'

const VERSION = 1
/** Some thousands of entries. */
const LARGEST = 64 * 1024 * 1024

/**
 * One shape that is kept as a JSON file in the state folder, and held in memory: a change is in memory at once, and its
 * promise resolves when it is on disk. Changes that come while one is being written are written together.
 */
export class JsonFile<T> {
  readonly #folder: StateFolder
  readonly #name: string
  #value: T
  /** What is on disk. */
  #kept: T
  /** Changes made, and those that are on disk. */
  #made = 0
  #done = 0
  #writing: Promise<void> | undefined

  /**
   * Reads the file; `empty` where there is none. Nothing is made before the first change.
   *
   * @throws ProxyError PROXY_ERR_STATE if it is damaged: it is not overwritten
   */
  static async open<T>(
    folder: StateFolder,
    name: string,
    schema: v.GenericSchema<unknown, T>,
    empty: T,
  ): Promise<JsonFile<T>> {
    const found = await folder.read(name, LARGEST)
    if (!found) return new JsonFile(folder, name, empty)
    try {
      const { value } = v.parse(v.object({ version: v.literal(VERSION), value: schema }), JSON.parse(found.text))
      return new JsonFile(folder, name, value)
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new ProxyError('PROXY_ERR_STATE', `${folder.file(name)} is damaged (${why}): put it back, or delete it`, {
        cause,
      })
    }
  }

  private constructor(folder: StateFolder, name: string, value: T) {
    this.#folder = folder
    this.#name = name
    this.#value = value
    this.#kept = value
  }

  get value(): T {
    return this.#value
  }

  /**
   * Replaces the value. If it cannot be written, memory goes back to what is on disk, and all changes that wait fail.
   *
   * @throws ProxyError PROXY_ERR_STATE
   */
  async change(next: T): Promise<void> {
    this.#value = next
    const mine = ++this.#made
    // What is being written now may lack this change.
    while (this.#done < mine) await (this.#writing ?? this.#write())
  }

  #write(): Promise<void> {
    const [count, value] = [this.#made, this.#value]
    const text = `${JSON.stringify({ version: VERSION, value }, undefined, 1)}\n`
    this.#writing = this.#folder
      .write(this.#name, text)
      .then(
        () => {
          this.#kept = value
          this.#done = count
        },
        (error) => {
          this.#value = this.#kept
          this.#done = this.#made
          throw error
        },
      )
      .finally(() => {
        this.#writing = undefined
      })
    return this.#writing
  }
}
