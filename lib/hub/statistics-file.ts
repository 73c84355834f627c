import { rename } from 'node:fs/promises'
import * as v from 'valibot'
import { ProxyError } from '../core/index.ts'
import { JsonFile } from '../store/json-file.ts'
import type { StateFolder } from '../store/state-folder.ts'
import type { Live, Sums } from './figures.ts'

const FILE = 'statistics.json'
/** The last moment that a Date can be. */
const LATEST = 8_640_000_000_000_000

const COUNT = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const TIME = v.pipe(COUNT, v.maxValue(LATEST))
const SUMS = { bytesIn: COUNT, bytesOut: COUNT, connections: COUNT }
/** The month in which bytes are counted, as `2026-11`, and how many they are. */
const MONTH = v.object({ of: v.pipe(v.string(), v.regex(/^\d{4,6}-\d{2}$/)), bytes: COUNT })
/** Times in ms since 1970. Ids are values and never keys: strangers choose some of them. */
const ENTRY = { id: v.string(), first: TIME, last: TIME, ...SUMS, month: v.optional(MONTH) }
const NODE = v.object({ ...ENTRY, mains: COUNT, resumes: COUNT })
const MAPPING = v.object(ENTRY)

export interface SavedSums {
  bytesIn: number
  bytesOut: number
  connections: number
}

export interface SavedMapping extends SavedSums {
  id: string
  first: number
  last: number
  /** Files of older versions have none. */
  month?: SavedMonth | undefined
}

export interface SavedMonth {
  of: string
  bytes: number
}

export interface SavedNode extends SavedMapping {
  mains: number
  resumes: number
}

export interface SavedStatistics {
  total: SavedSums
  /** Nodes with a credential of their own, and those that only say what they are called. */
  enrolled: SavedNode[]
  others: SavedNode[]
  mappings: SavedMapping[]
}

const STATISTICS: v.GenericSchema<unknown, SavedStatistics> = v.object({
  total: v.object(SUMS),
  enrolled: v.array(NODE),
  others: v.array(NODE),
  mappings: v.array(MAPPING),
})
const EMPTY: SavedStatistics = {
  total: { bytesIn: 0, bytesOut: 0, connections: 0 },
  enrolled: [],
  others: [],
  mappings: [],
}

/** What live ones have carried so far is kept too: they may not outlive this process. */
export function savedSums(sums: Sums, lives: Iterable<Live>): SavedSums {
  const { bytesIn, bytesOut, connections } = sums.with(lives)
  const count = (value: number): number => Math.min(value, Number.MAX_SAFE_INTEGER)
  return { bytesIn: count(bytesIn), bytesOut: count(bytesOut), connections: count(connections) }
}

/**
 * Figures must not keep a server from starting: a file that cannot be used is put aside, and that is told. Undefined if
 * not even that is possible; nothing is written then.
 */
export async function openStatistics(
  folder: StateFolder,
  onProblem: (error: ProxyError) => void,
): Promise<JsonFile<SavedStatistics> | undefined> {
  const open = (): Promise<JsonFile<SavedStatistics>> => JsonFile.open(folder, FILE, STATISTICS, EMPTY)
  const path = folder.file(FILE)
  try {
    return await open()
  } catch (cause) {
    try {
      await rename(path, `${path}.damaged`)
      const file = await open()
      const text = `${path} is damaged: figures begin anew, and it is now called ${FILE}.damaged`
      onProblem(new ProxyError('PROXY_ERR_STATE', text, { cause }))
      return file
    } catch {
      const text = `${path} is damaged and cannot be put aside: figures begin anew, and are not kept`
      onProblem(new ProxyError('PROXY_ERR_STATE', text, { cause }))
      return undefined
    }
  }
}
