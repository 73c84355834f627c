import crypto, { createHash } from 'node:crypto'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'

/** The folder in which the processes of one run keep what scrypt has made (tools/test.mjs); without it they keep nothing. */
export const KEYS = 'TEST_KEYS'

type Done = (error: Error | null, derived: Buffer) => void

/**
 * Lets the real scrypt make each key once, for all processes of a run that call this: it costs 0.1 s by design, and the
 * tests start some hundred programs with the same few secrets.
 */
export function keepScrypt(folder: string): void {
  const real = crypto.scrypt
  const scrypt = (
    secret: crypto.BinaryLike,
    salt: crypto.BinaryLike,
    length: number,
    cost: crypto.ScryptOptions,
    done: Done,
  ): void => {
    const hash = createHash('sha256').update(JSON.stringify([length, cost]))
    for (const part of [secret, salt]) hash.update(createHash('sha256').update(bytesOf(part)).digest())
    const path = join(folder, hash.digest('hex'))
    const kept = keptAt(path)
    if (kept) {
      setImmediate(done, null, kept)
      return
    }
    real(secret, salt, length, cost, (error, derived) => {
      if (!error) keepAt(path, derived)
      done(error, derived)
    })
  }
  Object.assign(crypto, { scrypt })
  // Whoever imported it by its name sees the change too.
  syncBuiltinESMExports()
}

/** For the environment of a program that is to take part. */
export function keptScrypt(): NodeJS.ProcessEnv {
  const folder = process.env[KEYS]
  if (folder === undefined) return {}
  return { NODE_OPTIONS: `--import ${new URL('kept-scrypt-main.js', import.meta.url).href}`, [KEYS]: folder }
}

function bytesOf(value: crypto.BinaryLike): Buffer {
  if (typeof value === 'string') return Buffer.from(value)
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
}

function keptAt(path: string): Buffer | undefined {
  try {
    return readFileSync(path)
  } catch {
    return undefined
  }
}

function keepAt(path: string, derived: Buffer): void {
  try {
    const made = `${path}.${process.pid}`
    writeFileSync(made, derived)
    renameSync(made, path)
  } catch {
    // The folder has gone with the run.
  }
}
