import { closeSync, openSync, writeSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline/promises'
import { PassThrough } from 'node:stream'
import { isatty, ReadStream } from 'node:tty'
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
  return await ask(question, { input: process.stdin, show: (text) => process.stderr.write(text) })
}

/**
 * The same for a command whose standard input and output are for something else: asks on the terminal that the process
 * belongs to, wherever its output goes.
 */
export async function askOnTerminal(question: string): Promise<string | undefined> {
  const terminal = openTerminal()
  if (terminal === undefined) return undefined
  const input = new ReadStream(terminal)
  try {
    return await ask(question, { input, show: (text) => writeSync(terminal, text) })
  } finally {
    input.destroy()
  }
}

function openTerminal(): number | undefined {
  try {
    const fd = openSync('/dev/tty', 'r+')
    if (isatty(fd)) return fd
    closeSync(fd)
  } catch {
    // The process belongs to none, or the system has no such name.
  }
  return undefined
}

interface Terminal {
  readonly input: NodeJS.ReadableStream
  show(text: string): void
}

/** Undefined if the answer is Ctrl-C or Ctrl-D. */
async function ask(question: string, { input, show }: Terminal): Promise<string | undefined> {
  const reader = createInterface({ input, output: new PassThrough(), terminal: true })
  show(question)
  try {
    const closed = new Promise<undefined>((resolve) => reader.once('close', () => resolve(undefined)))
    const typed = await Promise.race([reader.question('').catch(() => undefined), closed])
    return typed === undefined ? undefined : checkSecret(typed.trim(), 'the secret')
  } finally {
    reader.close()
    show('\n')
  }
}
