import type { GenericSchema } from 'valibot'
import { ProxyError } from '../../lib/core/errors.ts'

// What flags have in common that say how something is to be, or to become.

/** What takes something away, in `set`. */
export const NONE = 'none'
/** What a flag has that may stand alone. */
export const ALONE = 'yes'

/** What a table of such flags reads as. */
export type ChangeValues<Table extends readonly { readonly name: string; readonly kind: string }[]> = {
  readonly [F in Table[number] as F['name']]: F['kind'] extends 'list' ? readonly string[] : string | undefined
}

export function orNone<T>(text: string | undefined, read: (text: string) => T): T | null | undefined {
  return text === undefined ? undefined : text === NONE ? null : read(text)
}

/** @throws ProxyError PROXY_ERR_USAGE if `none` is not alone */
export function listOrNone<T>(
  list: readonly string[],
  name: string,
  read: (list: readonly string[]) => T,
): T | null | undefined {
  if (list.length === 0) return undefined
  if (!list.includes(NONE)) return read(list)
  if (list.length > 1) throw usage(`--${name}: none stands alone`)
  return null
}

/**
 * For a new thing, of which there is nothing to take away.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function assertNoNone<Name extends string>(
  values: { readonly [name in Name]: string | readonly string[] | undefined },
  flags: readonly { readonly name: Name }[],
): void {
  const names = flags.map(({ name }) => name)
  const isNone = (value: string | readonly string[] | undefined): boolean =>
    typeof value === 'string' ? value === NONE : (value ?? []).includes(NONE)
  const none = names.find((name) => isNone(values[name]))
  if (none !== undefined) throw usage(`--${none}: there is nothing to take away yet: leave the flag out`)
}

/** @throws ProxyError PROXY_ERR_USAGE */
export async function settled<T>(schema: GenericSchema<unknown, T>, value: unknown): Promise<T> {
  const { check } = await import('../../lib/admin/check.ts')
  try {
    return check(schema, value)
  } catch (error) {
    throw usage(error instanceof Error ? error.message : String(error), error)
  }
}

/** Without what nobody said. */
export function given<T extends object>(values: T): T {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T
}

export function usage(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message, cause === undefined ? {} : { cause })
}
