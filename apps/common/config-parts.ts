import * as v from 'valibot'
import { nearest } from '../../lib/domains/nearest.ts'
import { shown } from '../../lib/domains/text.ts'
import { toDuration } from './flags.ts'
import { SIZE_PATTERN, toSize } from './sizes.ts'

// What the schema of a configuration file is made of: each part says what is wrong in words for people, and describes
// itself for the published JSON Schema.

/** Which command a file is for. */
export type Role = 'server' | 'node'

/** A file whose shape has been checked, by the names of its keys. */
export type FileTable = Readonly<Record<string, unknown>>

const TEXT_LENGTH = 4096
const LIST_LENGTH = 10_000
// Finding out what was meant takes its time; whoever has this many unknown keys in a table means something else.
const ADVICE = 20

/** A check that throws, as one of valibot's. */
export function checked<T>(check: (value: T) => unknown): v.RawCheckAction<T> {
  return v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed || dataset.issues) return
    try {
      check(dataset.value)
    } catch (error) {
      // Parsers of flags begin with the name of the flag.
      addIssue({ message: error instanceof Error ? error.message.replace(/^--[a-z-]*: /, '') : String(error) })
    }
  })
}

export function text(about: string, check: (text: string) => unknown = () => undefined): v.GenericSchema<string> {
  return v.pipe(
    v.string('write text, in quotes'),
    v.minLength(1, 'it is empty: give a value, or leave the key out'),
    v.maxLength(TEXT_LENGTH, `it is longer than ${TEXT_LENGTH} characters`),
    v.check((value) => !/[\p{Cc}\p{Zl}\p{Zp}]/u.test(value), 'it has a control character, or a line break'),
    checked(check),
    v.description(about),
  )
}

export function oneOf<const T extends readonly string[]>(about: string, words: T): v.GenericSchema<T[number]> {
  const advice = (input: unknown): string => {
    if (typeof input !== 'string') return `write one of ${words.join(', ')}, in quotes`
    const close = nearest(input, words)
    return `${shown(input)} is not known: ${close === undefined ? `one of ${words.join(', ')}` : `did you mean ${close}?`}`
  }
  return v.pipe(
    v.picklist(words, ({ input }) => advice(input)),
    v.description(about),
  )
}

export function yes(about: string): v.GenericSchema<boolean> {
  return v.pipe(v.boolean('write true or false, without quotes'), v.description(about))
}

const DURATION = /^[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h)$/

/** `30s`, as flags have it. `least` and `most` in ms; timers wait no longer than 24 days. */
export function duration(about: string, least = 0, most: number = 2 ** 31 - 1): v.GenericSchema<string> {
  const advice = 'write a time with its unit, in quotes: "30s", "2m" or "500ms"'
  return v.pipe(
    v.string(advice),
    v.regex(DURATION, ({ input }) => `${shown(input)} is not a duration: write 30s, 2m or 500ms`),
    checked((value) => {
      const ms = toDuration(value, '')
      if (ms < least) throw new Error(`at least ${least % 1000 === 0 ? `${least / 1000}s` : `${least}ms`}`)
      if (ms > most) throw new Error(`at most ${most / 1000}s`)
    }),
    v.description(about),
    v.examples(['30s', '2m', '500ms']),
  )
}

export function count(about: string, most: number, least = 1): v.GenericSchema<number> {
  return v.pipe(
    v.number(`write a number from ${least} to ${most}, without quotes`),
    v.integer('write a whole number'),
    v.minValue(least, `at least ${least}`),
    v.maxValue(most, `at most ${most}`),
    v.description(about),
  )
}

/** `64MiB`, `1.5 GiB`, `500kB` or a number of bytes, in bytes. */
export function sizeOf(value: string | number): number {
  return typeof value === 'number' ? value : toSize(value, '')
}

/** Bytes; `least` of them at least. */
export function size(about: string, least: number): v.GenericSchema<string | number> {
  const advice = 'write a size: "64MiB", "512KiB" or a number of bytes'
  return v.pipe(
    either(
      // The pattern is for editors: what is wrong is said by whoever reads it.
      v.pipe(
        v.string(advice),
        checked((value: string) => toSize(value, '')),
        v.regex(SIZE_PATTERN, advice),
      ),
      v.pipe(v.number(advice), v.integer(advice)),
      (value) => typeof value === 'number',
    ),
    checked((value) => {
      if (sizeOf(value) < least) throw new Error(`at least ${least / 1024}KiB`)
      if (sizeOf(value) > Number.MAX_SAFE_INTEGER) throw new Error('it is too large')
    }),
    v.description(about),
    v.examples(['64MiB']),
  )
}

export function port(about: string, least: number): v.GenericSchema<string | number> {
  const range = `a port is a number from ${least} to 65535`
  return v.pipe(
    either(
      v.pipe(v.string(range), v.regex(/^(?:0|[1-9][0-9]{0,4})$/, range)),
      v.pipe(v.number(range), v.integer(range)),
      (value) => typeof value === 'number',
    ),
    v.check((value) => Number(value) >= least && Number(value) <= 65535, range),
    v.description(about),
  )
}

/** One text, or a list of them. */
export function list(about: string, check?: (text: string) => unknown): v.GenericSchema<string | string[]> {
  return v.pipe(
    either(text('', check), items(text('', check)), (value) => Array.isArray(value)),
    v.description(about),
  )
}

export function items<T>(item: v.GenericSchema<T>): v.GenericSchema<T[]> {
  const some = v.pipe(v.array(item, 'write a list, in [brackets]'), v.maxLength(LIST_LENGTH))
  const tooMany = v.never(`at most ${LIST_LENGTH} entries`)
  // Before they are looked at one by one.
  const pick = (value: unknown): typeof some | typeof tooMany =>
    Array.isArray(value) && value.length > LIST_LENGTH ? tooMany : some
  return v.lazy(Object.assign(pick, { options: [some] }))
}

/**
 * One of two schemas. Unlike a union it knows which one is meant, and so what is wrong is told about that one. The
 * published schema finds both in `options`.
 */
export function either<A, B>(
  first: v.GenericSchema<A>,
  second: v.GenericSchema<B>,
  isSecond: (value: unknown) => boolean,
): v.GenericSchema<A | B> {
  const pick = (value: unknown): v.GenericSchema<A | B> => (isSecond(value) ? second : first)
  return v.lazy(Object.assign(pick, { options: [first, second] }))
}

/** A table, all of whose keys are known. `unknown` says what to do about another one. */
export function table<const E extends v.ObjectEntries>(
  about: string,
  entries: E,
  unknown: (key: string) => string,
): v.GenericSchema<v.InferOutput<v.ObjectSchema<E, undefined>>> {
  const open = v.pipe(
    v.looseObject(entries, 'it is missing'),
    v.rawCheck(({ dataset, addIssue }) => {
      const { value } = dataset
      if (typeof value !== 'object' || value === null) return
      const strange = Object.keys(value).filter((key) => !Object.hasOwn(entries, key))
      for (const [i, key] of strange.entries()) {
        const path: v.ObjectPathItem = { type: 'object', origin: 'key', input: {}, key, value: undefined }
        addIssue({ message: i < ADVICE ? unknown(key) : 'unknown key', path: [path] })
      }
    }),
    v.description(about),
  )
  const other = v.never('write a table')
  // Lists and dates are objects, too.
  const pick = (value: unknown): typeof open | typeof other => (isTable(value) ? open : other)
  return v.lazy(Object.assign(pick, { options: [open] }))
}

export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

/** What is said of a key that no table here has. */
export function unknownIn(known: readonly string[]): (key: string) => string {
  return (key) => {
    const close = nearest(key, known)
    return close === undefined ? `unknown key: known are ${known.join(', ')}` : `unknown key: did you mean ${close}?`
  }
}
