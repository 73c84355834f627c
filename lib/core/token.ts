/** A generated secret: 128 random bits and the server's X25519 public key, in one word. */
export interface Token {
  readonly random: Buffer
  readonly publicKey: Buffer
}

const PREFIX = 'symport_'
const RANDOM = 16
const KEY = 32

export function makeToken(random: Uint8Array, publicKey: Uint8Array): string {
  return PREFIX + Buffer.concat([random, publicKey]).toString('base64url')
}

/** Undefined for everything that is not a token as `makeToken` writes it: then it is a secret that a person chose. */
export function readToken(text: string): Token | undefined {
  if (!text.startsWith(PREFIX)) return undefined
  const bytes = Buffer.from(text.slice(PREFIX.length), 'base64url')
  if (bytes.length !== RANDOM + KEY || PREFIX + bytes.toString('base64url') !== text) return undefined
  return { random: bytes.subarray(0, RANDOM), publicKey: bytes.subarray(RANDOM) }
}
