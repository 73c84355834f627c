import { open } from 'node:fs/promises'
import { ProxyError } from '../../lib/core/index.ts'

const LARGEST = 16 * 1024 * 1024

/**
 * The text of a file that a flag names; `-` is standard input.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export async function readInput(path: string, flag: string): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  const take = (chunk: Buffer): void => {
    size += chunk.length
    if (size > LARGEST) throw new ProxyError('PROXY_ERR_USAGE', `${flag}: more than ${LARGEST} bytes`)
    chunks.push(chunk)
  }
  try {
    if (path === '-') {
      for await (const chunk of process.stdin) take(Buffer.from(chunk))
    } else {
      const handle = await open(path, 'r')
      for await (const chunk of handle.createReadStream()) take(Buffer.from(chunk))
    }
  } catch (error) {
    if (error instanceof ProxyError) throw error
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const reasons: Record<string, string> = {
      ENOENT: 'there is no such file',
      EACCES: 'permission denied',
      EISDIR: 'it is a folder',
    }
    throw new ProxyError('PROXY_ERR_USAGE', `${flag}: cannot read ${path}: ${reasons[code] ?? code}`, { cause: error })
  }
  return Buffer.concat(chunks)
    .toString()
    .replace(/^\ufeff/, '')
}
