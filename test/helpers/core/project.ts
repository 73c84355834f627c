import { fileURLToPath } from 'node:url'

/** A path inside the project, wherever the tests were started: this file is compiled to dist/test/helpers/core. */
export function projectPath(path: string): string {
  return fileURLToPath(new URL(`../../../../${path}`, import.meta.url))
}
