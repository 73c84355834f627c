import * as v from 'valibot'

/** What changes in a T: what is left out stays as it is, `null` takes it away, and objects are merged. */
export type Patch<T> = T extends string | number | boolean | readonly unknown[]
  ? T
  : { readonly [K in keyof T]?: Patch<NonNullable<T[K]>> | null | undefined }

/** Deeper than anything that is patched. */
const DEPTH = 8

/** A JSON merge patch (RFC 7396), but that what a key of `whole` has takes the place of all that was there. */
export function mergePatch(
  target: unknown,
  patch: unknown,
  whole: ReadonlySet<string>,
  depth: number = DEPTH,
): unknown {
  if (!isObject(patch) || depth === 0) return patch
  const merged = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [key, value] of Object.entries(patch)) {
    if (value === undefined) continue
    if (value === null) merged.delete(key)
    else merged.set(key, whole.has(key) ? value : mergePatch(merged.get(key), value, whole, depth - 1))
  }
  return Object.fromEntries(merged)
}

/** Whether nothing is said in it. */
export function isEmpty(value: object | undefined): boolean {
  return value === undefined || Object.keys(value).length === 0
}

/** The shape of a patch, of the shape of what is patched: no key is unknown, and each may be null. */
export function patchSchema<T>(schema: v.GenericSchema<unknown, T>): v.GenericSchema<unknown, Patch<T>> {
  // Its type follows from what it is made of, which only runs.
  return nullable(schema) as v.GenericSchema<unknown, Patch<T>>
}

function nullable(schema: v.GenericSchema): v.GenericSchema {
  if ('wrapped' in schema && isSchema(schema.wrapped)) return nullable(schema.wrapped)
  if ('entries' in schema && isObject(schema.entries)) {
    const entries = Object.entries(schema.entries).flatMap(([key, value]) =>
      isSchema(value) ? [[key, v.nullish(nullable(value))] as const] : [],
    )
    return v.strictObject(Object.fromEntries(entries))
  }
  // The names of a record are keys of the object, too.
  if (schema.type === 'record' && 'key' in schema && 'value' in schema && isKey(schema.key) && isSchema(schema.value)) {
    return v.record(schema.key, v.nullable(schema.value))
  }
  return schema
}

function isSchema(value: unknown): value is v.GenericSchema {
  return isObject(value) && value.kind === 'schema'
}

function isKey(value: unknown): value is v.GenericSchema<string, string> {
  return isSchema(value) && value.type === 'string'
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
