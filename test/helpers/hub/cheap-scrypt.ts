import crypto, { createHash } from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'

export interface CheapScrypt extends Disposable {
  /** How often it was called, and how many of these were under way at once at most. */
  readonly calls: number
  readonly most: number
}

/** Puts a scrypt that costs nothing in place of the real one, for tests about many secrets. */
export function cheapScrypt(): CheapScrypt {
  const real = crypto.scrypt
  let [calls, running, most] = [0, 0, 0]
  type Done = (error: null, derived: Buffer) => void
  const cheap = (secret: string, salt: string, length: number, _options: object, done: Done): void => {
    calls++
    most = Math.max(most, ++running)
    setImmediate(() => {
      running--
      done(null, createHash('sha256').update(`${secret}\0${salt}`).digest().subarray(0, length))
    })
  }
  const put = (scrypt: unknown): void => {
    Object.assign(crypto, { scrypt })
    // Whoever imported it by its name sees the change too.
    syncBuiltinESMExports()
  }
  put(cheap)
  return {
    get calls() {
      return calls
    },
    get most() {
      return most
    },
    [Symbol.dispose]: () => put(real),
  }
}
