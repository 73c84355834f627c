import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { ProxyError } from '../core/errors.ts'
import type { StateFolder } from '../store/state-folder.ts'
import { TOKEN_FILE } from './socket-path.ts'

/** Of random bytes in base64url, 32 of them have 43. */
const SHORTEST = 32

/**
 * The token for the API over TCP, made at the first start. `exposed`: others could read it until now.
 *
 * @throws ProxyError PROXY_ERR_STATE
 */
export async function loadToken(folder: StateFolder): Promise<{ token: string; exposed: boolean }> {
  let file = await folder.read(TOKEN_FILE)
  if (!file) {
    await folder.create(TOKEN_FILE, `${randomBytes(32).toString('base64url')}\n`)
    file = await folder.read(TOKEN_FILE)
  }
  const token = file?.text.trim() ?? ''
  if (token.length >= SHORTEST && /^[\x21-\x7e]+$/.test(token)) return { token, exposed: file?.exposed ?? false }
  throw new ProxyError(
    'PROXY_ERR_STATE',
    `${folder.file(TOKEN_FILE)} holds no token of at least ${SHORTEST} characters: put it back, or delete it`,
  )
}

/** Compares tokens in a time that depends on neither. */
export function tokenCheck(token: string): (tried: string) => boolean {
  const expected = digest(token)
  return (tried) => timingSafeEqual(digest(tried), expected)
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
