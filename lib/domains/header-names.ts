/** What is for one connection only (RFC 9110 section 7.6.1), and what only the next one was meant to see. */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authentication-info',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
])
/** All that each hop says for itself: besides these, where a message ends and whom it is for. */
export const BY_EACH_HOP: ReadonlySet<string> = new Set([...HOP_BY_HOP, 'content-length', 'expect', 'host', 'trailer'])
/** What is said anew to the target, whatever the visitor has said; and all that begins with `x-forwarded-`. */
export const SAID_ANEW: ReadonlySet<string> = new Set([...BY_EACH_HOP, 'forwarded', 'x-real-ip'])

/** One spelling: to programs behind CGI and its heirs, `X_User` is the same as `X-User`. */
export function plainHeader(name: string): string {
  return name.toLowerCase().replaceAll('_', '-')
}
