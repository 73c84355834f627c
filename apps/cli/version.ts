import { readFile } from 'node:fs/promises'

/** The version in package.json. */
export async function version(): Promise<string> {
  const file = new URL('../../../package.json', import.meta.url)
  const { version } = JSON.parse(await readFile(file, 'utf8')) as { version: string }
  return version
}
