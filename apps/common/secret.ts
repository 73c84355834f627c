import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline/promises'
import { PassThrough } from 'node:stream'
import { ProxyError, readToken } from '../../lib/core/index.ts'
import type { StringFlag } from './flags.ts'

export const SECRET_FLAGS: readonly [StringFlag<'uuid'>, StringFlag<'uuid-file'>] = [
  {
    name: 'uuid',
    kind: 'string',
    value: 'SECRET',
    help: 'The secret both sides know. Better: SYMPORT_UUID or --uuid-file.',
  },
  { name: 'uuid-file', kind: 'string', value: 'FILE', help: 'A file that holds the secret.' },
]

export interface SecretOptions {
  uuid: string | undefined
  'uuid-file': string | undefined
}

/** The secret that was given, in whichever way, or undefined. */
export async function givenSecret(options: SecretOptions): Promise<string | undefined> {
  const { uuid, 'uuid-file': file } = options
  if (uuid !== undefined && file !== undefined) {
    throw new ProxyError('PROXY_ERR_USAGE', '--uuid and --uuid-file are both given: keep one')
  }
  if (uuid !== undefined) return checkSecret(uuid, '--uuid')
  if (file !== undefined) return checkSecret(await readSecretFile(file), '--uuid-file')
  const { SYMPORT_UUID } = process.env
  return SYMPORT_UUID === undefined ? undefined : checkSecret(SYMPORT_UUID, 'SYMPORT_UUID')
}

/** A secret is any text that is not blank; what looks like a token must be a whole one. `source` is for the message. */
export function checkSecret(secret: string, source: string): string {
  if (secret.trim() === '') {
    throw new ProxyError('PROXY_ERR_SECRET', `${source}: the secret is empty: "symport uuid" shows the server's`)
  }
  if (secret.startsWith('symport_') && !readToken(secret)) {
    throw new ProxyError('PROXY_ERR_SECRET', `${source}: the token is damaged: copy the whole line of "symport uuid"`)
  }
  return secret
}

async function readSecretFile(path: string): Promise<string> {
  try {
    return (await readFile(path, 'utf8')).replace(/[\r\n]+$/, '')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const why = code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'permission denied' : code
    throw new ProxyError('PROXY_ERR_USAGE', `--uuid-file: cannot read ${path}: ${why}`, { cause: error })
  }
}

/** Asks on the terminal, without showing what is typed. Undefined where there is none. */
export async function askSecret(question: string): Promise<string | undefined> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return undefined
  const silent = new PassThrough()
  const reader = createInterface({ input: process.stdin, output: silent, terminal: true })
  process.stderr.write(question)
  try {
    return checkSecret((await reader.question('')).trim(), 'the secret')
  } finally {
    reader.close()
    process.stderr.write('\n')
  }
}
