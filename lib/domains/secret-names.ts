/** Words of a name that say that what it names is nobody else's business. */
const SECRET_WORDS: ReadonlySet<string> = new Set([
  ...['password', 'passwd', 'passphrase', 'passcode', 'pass', 'pwd', 'pin', 'otp', 'totp'],
  ...['secret', 'secrets', 'token', 'tokens', 'jwt', 'key', 'keys', 'apikey', 'credential', 'credentials'],
  ...[
    'auth',
    'authorization',
    'assertion',
    'cookie',
    'cookies',
    'cookie2',
    'csrf',
    'xsrf',
    'session',
    'sessionid',
    'sid',
  ],
])
/** In what is written as one word. */
const SECRET_PARTS =
  /passw|passphrase|secret|token|apikey|accesskey|privatekey|credential|sessionid|authorization|codeverifier|devicecode|samlresponse|samlart/
/** Headers whose names sound like secrets. */
const OPEN_HEADERS: ReadonlySet<string> = new Set(['idempotency-key', 'sec-websocket-key', 'surrogate-key'])
const LONGEST_NAME = 200
const HIDDEN = '(hidden)'

/** Whether a field with this name holds a secret: `access_token`, `apiKey`, `user[password]`. */
export function isSecretName(name: string): boolean {
  if (name.length > LONGEST_NAME) return true
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^a-z0-9]+/)
  return words.some((word) => SECRET_WORDS.has(word)) || SECRET_PARTS.test(words.join(''))
}

/** The same of a header. */
export function isSecretHeader(name: string): boolean {
  return !OPEN_HEADERS.has(name.toLowerCase()) && isSecretName(name)
}

/** The value of a header, or what is shown in its place. */
export function shownHeader(name: string, value: string): string {
  return isSecretHeader(name) ? HIDDEN : value
}

/** Whether that is what is shown of a header, and not its value. */
export function isHiddenHeader(name: string, value: string | null): boolean {
  return value === HIDDEN && isSecretHeader(name)
}
