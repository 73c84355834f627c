import { readdirSync, readFileSync } from 'node:fs'
import { projectPath } from './project.ts'

/** The text of every source file below the given folders of the project, by its path from the root: `lib/core/link.ts`. */
export function readSources(...folders: readonly string[]): Map<string, string> {
  const sources = new Map<string, string>()
  for (const folder of folders) {
    for (const name of readdirSync(projectPath(folder), { recursive: true, encoding: 'utf8' })) {
      const path = `${folder}/${name.replaceAll('\\', '/')}`
      if (/\.(ts|mts|cts|js|mjs|cjs)$/.test(path)) sources.set(path, readFileSync(projectPath(path), 'utf8'))
    }
  }
  return sources
}

/** What a source file imports, types included, as it is written there. */
export function importsOf(source: string): string[] {
  const code = source.replaceAll(/\/\*.*?\*\//gs, '').replaceAll(/^\s*\/\/.*$/gm, '')
  const specifiers = [...code.matchAll(/\b(?:from\s+|import\s+|import\s*\(\s*|require\s*\(\s*)['"]([^'"\n]+)['"]/g)]
  return specifiers.flatMap(([, specifier]) => (specifier === undefined ? [] : [specifier]))
}
