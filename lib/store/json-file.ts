import * as v from 'valibot'
import { ProxyError } from '../core/errors.ts'
import type { StateFolder } from './state-folder.ts'

const VERSION = 1
const NEWER = v.object({ version: v.pipe(v.number(), v.minValue(VERSION + 1)) })
/** Entries that are put into JSON in one turn of the event loop. */
const IN_ONE_TURN = 1000
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
    const json = parseJson(found.text)
    if (v.is(NEWER, json)) {
      const message = `${folder.file(name)} is of a newer version of symport: run that one, or use another state folder`
      throw new ProxyError('PROXY_ERR_STATE', message)
    }
    const result = v.safeParse(v.object({ version: v.literal(VERSION), value: schema }), json)
    if (result.success) return new JsonFile(folder, name, result.output.value)
    // Where, and not what stands there: it may be a key.
    const why = json === undefined ? 'it is no JSON' : `at ${v.getDotPath(result.issues[0]) ?? 'its beginning'}`
    throw new ProxyError('PROXY_ERR_STATE', `${folder.file(name)} is damaged (${why}): put it back, or delete it`)
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
    this.#writing = toText({ version: VERSION, value })
      .then((text) => {
        // It could not be read again.
        if (Buffer.byteLength(text) > LARGEST) {
          const message = `${this.#folder.file(this.#name)} would be larger than ${LARGEST / 2 ** 20} MiB: remove what is not needed`
          throw new ProxyError('PROXY_ERR_STATE', message)
        }
        return this.#folder.write(this.#name, text)
      })
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

/** JSON, indented by 1. Long lists take several turns of the event loop: other work goes on meanwhile. */
async function toText(value: unknown): Promise<string> {
  let text = ''
  let entries = 0
  const add = async (one: unknown, indent: string): Promise<void> => {
    if (Array.isArray(one)) {
      const inner = `${indent} `
      for (const [index, entry] of one.entries()) {
        text += `${index === 0 ? '[' : ','}\n${inner}${JSON.stringify(entry, undefined, 1).replaceAll('\n', `\n${inner}`)}`
        if (++entries % IN_ONE_TURN === 0) await new Promise((resolve) => setImmediate(resolve))
      }
      text += one.length === 0 ? '[]' : `\n${indent}]`
    } else if (typeof one === 'object' && one !== null) {
      const inner = `${indent} `
      let before = '{'
      for (const [key, field] of Object.entries(one)) {
        if (field === undefined) continue
        text += `${before}\n${inner}${JSON.stringify(key)}: `
        before = ','
        await add(field, inner)
      }
      text += before === '{' ? '{}' : `\n${indent}}`
    } else {
      text += JSON.stringify(one)
    }
  }
  await add(value, '')
  return `${text}\n`
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
