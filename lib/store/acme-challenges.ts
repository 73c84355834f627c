import type { SecureContext } from 'node:tls'

/** How a CA looks whether a name is ours (RFC 8737, RFC 8555 section 8.3). */
export type ChallengeType = 'tls-alpn-01' | 'http-01'

/** How it has looked: the two above, or at records of the DNS that somebody else writes for us (RFC 8555 section 8.4). */
export type Way = ChallengeType | 'dns-01'

export const CHALLENGE_TYPES: readonly ChallengeType[] = ['tls-alpn-01', 'http-01']

const PATH = /^\/\.well-known\/acme-challenge\/([A-Za-z0-9_-]{1,512})$/

/** What CAs are told that look at this server just now, and nobody at any other time. */
export class Challenges {
  readonly #tokens = new Map<string, string>()
  readonly #contexts = new Map<string, SecureContext>()

  /** What is answered over plain HTTP at a path, if a CA is to find something there. */
  forPath(path: string): string | undefined {
    if (this.#tokens.size === 0) return undefined
    const token = PATH.exec(path)?.[1]
    return token === undefined ? undefined : this.#tokens.get(token)
  }

  /** What TLS is accepted with from somebody who offers `acme-tls/1` and nothing else. */
  forName(name: string): SecureContext | undefined {
    return this.#contexts.get(name)
  }

  /** Until the returned function is called. */
  offerToken(token: string, answer: string): () => void {
    this.#tokens.set(token, answer)
    return () => void this.#tokens.delete(token)
  }

  /** Until the returned function is called. */
  offerContext(name: string, context: SecureContext): () => void {
    this.#contexts.set(name, context)
    return () => void this.#contexts.delete(name)
  }
}
