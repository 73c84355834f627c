const ISO = /^(\d{4}-\d\d-\d\d)(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)?)?$/

/**
 * A time in ISO 8601, in ms: a day alone begins at midnight UTC, a time without a zone is one of here. Undefined for what
 * `Date` would only guess at, also 30 February.
 */
export function isoTime(text: string): number | undefined {
  const [, day] = ISO.exec(text) ?? []
  const at = Date.parse(text)
  if (day === undefined || Number.isNaN(at)) return undefined
  return new Date(`${day}T00:00Z`).toISOString().startsWith(day) ? at : undefined
}
