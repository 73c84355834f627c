import type { KeyObject } from 'node:crypto'
import { ProxyError, readToken } from '../../lib/core/index.ts'
import { loadOrMakeSecret, loadServerIdentity } from '../../lib/store/secrets.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'

export interface ServerSecret {
  readonly secret: string
  readonly staticKey: KeyObject
  /** The half that stands in tokens. */
  readonly publicKey: Uint8Array
  /** Whether it was made at this start. */
  readonly made: boolean
  readonly exposed: boolean
}

/** The given secret, or the kept one, or a new one. The key is for tokens, also of nodes that are enrolled later. */
export async function serverSecret(state: StateFolder, given: string | undefined): Promise<ServerSecret> {
  const { privateKey: staticKey, publicKey, exposed } = await loadServerIdentity(state)
  if (given === undefined) {
    const kept = await loadOrMakeSecret(state)
    return { ...kept, staticKey, publicKey, exposed: kept.exposed || exposed }
  }
  const token = readToken(given)
  if (token && !token.publicKey.equals(publicKey)) {
    throw new ProxyError(
      'PROXY_ERR_SECRET',
      `--uuid: this token belongs to another server: its key is not the one in ${state.path}`,
    )
  }
  return { secret: given, staticKey, publicKey, made: false, exposed }
}
