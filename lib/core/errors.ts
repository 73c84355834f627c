export type ErrorCode = `PROXY_ERR_${string}`

export interface ProxyErrorOptions {
  /** What caused it, kept as `error.cause`. */
  cause?: unknown
  /** Whether the same thing, tried again later with nothing changed, may succeed. Default `false`. */
  retryable?: boolean
}

/**
 * The one error class of symport. Branch on `code`, never on the text: every code has a heading in doc/errors.md,
 * and `message` is one plain line for people.
 */
export class ProxyError extends Error {
  override readonly name = 'ProxyError'
  readonly code: ErrorCode
  readonly retryable: boolean

  constructor(code: ErrorCode, message: string, options: ProxyErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.retryable = options.retryable ?? false
  }

  /** `error` itself if it is a ProxyError, otherwise a new one around it. */
  static from(error: unknown, code: ErrorCode, message?: string): ProxyError {
    if (error instanceof ProxyError) return error
    const text = message ?? (error instanceof Error ? error.message : String(error))
    return new ProxyError(code, text, { cause: error })
  }
}

/** The error of a caller who gave up. */
export function aborted(signal: AbortSignal): ProxyError {
  return new ProxyError('PROXY_ERR_ABORTED', 'given up by the caller', { cause: signal.reason })
}

export function assertNotAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted(signal)
}
