import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { ProxyError } from '../core/errors.ts'
import { makeToken as encodeToken, readToken } from '../core/token.ts'
import type { StateFolder } from './state-folder.ts'

export { readToken, type Token } from '../core/token.ts'

const SECRET_FILE = 'secret'
const SERVER_KEY_FILE = 'server-key.pem'
const NODE_KEY_FILE = 'node-key.pem'

const RANDOM_BYTES = 16

/** A key pair; `publicKey` is the 32 bytes that go over the wire (RFC 7748, RFC 8032). */
export interface KeyPair {
  readonly privateKey: KeyObject
  readonly publicKey: Uint8Array
  /** Whether other users could read its file until now. */
  readonly exposed: boolean
}

export interface KeptSecret {
  readonly secret: string
  /** Whether it was made just now. */
  readonly made: boolean
  /** Whether other users could read its file until now. */
  readonly exposed: boolean
}

/** A new secret for a server with this X25519 public key (32 bytes): a token of 72 characters. */
export function makeToken(publicKey: Uint8Array): string {
  return encodeToken(randomBytes(RANDOM_BYTES), publicKey)
}

// Below these a machine finds a secret by trying, even at scrypt's price.
const SHORTEST = 16
const LEAST_BITS = 42

/**
 * Whether a chosen secret should earn a warning: it is short, or of little variety (repetitions, runs like `1234`).
 * It is an estimate: a long sentence from a book passes, and is no good secret either.
 */
export function isGuessable(secret: string): boolean {
  if (secret.length < SHORTEST) return true
  // A text that repeats itself is found at another place than its start and end in its double.
  const period = `${secret}${secret}`.indexOf(secret, 1)
  const counts = new Map<string, number>()
  let total = 0
  let before = Number.NaN
  for (const char of secret.slice(0, period)) {
    const code = char.codePointAt(0) ?? 0
    const run = Math.abs(code - before) <= 1
    before = code
    if (run) continue
    counts.set(char, (counts.get(char) ?? 0) + 1)
    total++
  }
  let bits = 0
  for (const count of counts.values()) bits += count * Math.log2(total / count)
  return bits < LEAST_BITS
}

/**
 * The server's X25519 key pair, made at the first start.
 *
 * @throws ProxyError PROXY_ERR_STATE
 */
export function loadServerIdentity(folder: StateFolder): Promise<KeyPair> {
  return loadKey(folder, SERVER_KEY_FILE, 'x25519', () => generateKeyPairSync('x25519').privateKey)
}

/**
 * The node's Ed25519 key pair, made at the first start.
 *
 * @throws ProxyError PROXY_ERR_STATE
 */
export function loadNodeKey(folder: StateFolder): Promise<KeyPair> {
  return loadKey(folder, NODE_KEY_FILE, 'ed25519', () => generateKeyPairSync('ed25519').privateKey)
}

/**
 * The secret that is kept in the folder, or undefined. Nothing is made, not even the folder.
 *
 * @throws ProxyError PROXY_ERR_STATE
 */
export async function readSecret(folder: StateFolder, name: string = SECRET_FILE): Promise<KeptSecret | undefined> {
  const file = await folder.read(name)
  const older = HASHED.exec(name)?.[1]
  if (file === undefined) return older === undefined ? undefined : await readSecret(folder, older)
  const secret = file.text.replace(/[\r\n]+$/, '')
  if (secret.startsWith('symport_') && readToken(secret) === undefined) {
    throw stateError(`the token in ${folder.file(name)} is damaged: put it back, or delete it`)
  }
  if (secret.trim() !== '') return { secret, made: false, exposed: file.exposed }
  throw stateError(`${folder.file(name)} is empty: put the secret in it, or delete it`)
}

/**
 * Keeps a secret for the next start.
 *
 * @throws ProxyError PROXY_ERR_STATE
 */
export function keepSecret(folder: StateFolder, secret: string, name: string = SECRET_FILE): Promise<void> {
  return folder.write(name, `${secret}\n`)
}

/** Made where `secretFileFor` has to leave out what tells servers apart. Older versions had the name before the hash. */
const HASHED = /^(secret-for-.*_.*)-[0-9a-f]{16}$/

/**
 * The file in which a node keeps the secret of a server elsewhere: never the one of a server on this machine, and
 * another one for each.
 */
export function secretFileFor(server: string): string {
  const name = `secret-for-${server.replace(/[^A-Za-z0-9.-]+/g, '_')}`
  if (/^[A-Za-z0-9.-]+(?::[0-9]+)?$/.test(server)) return name
  return `${name}-${createHash('sha256').update(server).digest('hex').slice(0, 16)}`
}

/**
 * The server's secret: what the folder holds, or a new token for the server's key.
 *
 * @throws ProxyError PROXY_ERR_STATE, also if the token that is there was made for another key: no node could connect
 */
export async function loadOrMakeSecret(folder: StateFolder): Promise<KeptSecret> {
  const { publicKey } = await loadServerIdentity(folder)
  const token = makeToken(publicKey)
  const before = await readSecret(folder)
  const made = before === undefined && (await folder.create(SECRET_FILE, `${token}\n`))
  // Read in any case: another process may have been first.
  const kept = await readSecret(folder)
  if (kept === undefined) throw stateError(`${folder.file(SECRET_FILE)} has been deleted while it was made: try again`)
  const key = readToken(kept.secret)?.publicKey
  if (key !== undefined && !Buffer.from(key).equals(publicKey)) {
    const [secret, pem] = [folder.file(SECRET_FILE), folder.file(SERVER_KEY_FILE)]
    throw stateError(`${secret} was not made for the key in ${pem}: delete ${secret} to make a new one`)
  }
  return { ...kept, made, exposed: before?.exposed ?? kept.exposed }
}

async function loadKey(
  folder: StateFolder,
  name: string,
  type: 'x25519' | 'ed25519',
  generate: () => KeyObject,
): Promise<KeyPair> {
  let file = await folder.read(name)
  if (file === undefined) {
    await folder.create(name, String(generate().export({ type: 'pkcs8', format: 'pem' })))
    file = await folder.read(name)
  }
  try {
    const privateKey = createPrivateKey(file?.text ?? '')
    const { x } = createPublicKey(privateKey).export({ format: 'jwk' })
    if (privateKey.asymmetricKeyType === type && x !== undefined) {
      const publicKey = Uint8Array.from(Buffer.from(x, 'base64url'))
      return { privateKey, publicKey, exposed: file?.exposed ?? false }
    }
  } catch (cause) {
    throw stateError(
      `${folder.file(name)} is not a private key in PEM: put it back, or delete it to make a new one`,
      cause,
    )
  }
  throw stateError(`${folder.file(name)} is not an ${type} key: put it back, or delete it to make a new one`)
}

function stateError(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_STATE', message, cause === undefined ? {} : { cause })
}
