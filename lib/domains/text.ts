const SHOWN_LENGTH = 80

/**
 * Text from outside, in quotes, as an error message shows it: on one line, at most 80 characters, and without what
 * stands before an `@`, which may be a password.
 */
export function shown(text: string): string {
  // Word by word: one pattern up to the @ would take quadratic time for a long text without any.
  const masked = text.includes('@') ? text.replace(/[^\s"]+/g, mask) : text
  const safe = masked.replace(/\p{C}|\p{Zl}|\p{Zp}/gu, ' ')
  return `"${safe.length > SHOWN_LENGTH ? `${safe.slice(0, SHOWN_LENGTH - 1)}…` : safe}"`
}

function mask(word: string): string {
  const at = word.lastIndexOf('@')
  return at < 0 ? word : `…${word.slice(at)}`
}
