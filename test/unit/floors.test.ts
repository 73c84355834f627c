import assert from 'node:assert/strict'
import { builtinModules } from 'node:module'
import { posix } from 'node:path'
import test from 'node:test'
import { importsOf, readSources } from '../helpers/core/sources.ts'

/**
 * Imports point down only:
 *
 *     apps → lib/*.ts → admin → hub → domains, transports, policy, store → sockets → core
 *
 * A folder may use itself and what stands on a lower floor; folders of one floor never use each other.
 */
const FLOORS: Record<string, number> = {
  apps: 6,
  lib: 5,
  'lib/admin': 4,
  'lib/hub': 3,
  'lib/domains': 2,
  'lib/transports': 2,
  'lib/policy': 2,
  'lib/store': 2,
  'lib/sockets': 1,
  'lib/core': 0,
}
/** Built-in modules that the core stays away from: it knows links, not what they are made of. */
const NOT_IN_CORE = ['net', 'tls', 'http', 'https', 'http2', 'dgram', 'dns', 'fs', 'child_process', 'cluster']

type Graph = ReadonlyMap<string, readonly string[]>

function graphOf(sources: ReadonlyMap<string, string>): Graph {
  return new Map(
    [...sources].map(([path, source]) => [
      path,
      importsOf(source).map((specifier) =>
        specifier.startsWith('.') ? posix.join(posix.dirname(path), specifier) : specifier,
      ),
    ]),
  )
}

/** `lib/core` of `lib/core/link.ts`, `lib` of `lib/index.ts`, `apps` of everything in there. */
function folderOf(path: string): string {
  if (path.startsWith('apps/')) return 'apps'
  return posix.dirname(path).split('/').slice(0, 2).join('/')
}

function floorFaults(graph: Graph): string[] {
  const faults: string[] = []
  for (const [path, imports] of graph) {
    const floor = FLOORS[folderOf(path)]
    if (floor === undefined) faults.push(`${path} stands on no floor`)
    for (const imported of imports) {
      if (!/^(lib|apps)\//.test(imported)) continue
      if (!graph.has(imported)) faults.push(`${path} imports ${imported}, which does not exist`)
      const below = FLOORS[folderOf(imported)]
      if (floor === undefined || below === undefined || folderOf(imported) === folderOf(path)) continue
      if (below >= floor) faults.push(`${path} imports ${imported}`)
    }
  }
  return faults
}

function coreFaults(graph: Graph): string[] {
  const allowed = new Set(builtinModules.filter((name) => !NOT_IN_CORE.includes(name.split('/')[0] ?? '')))
  const faults: string[] = []
  for (const [path, imports] of graph) {
    if (folderOf(path) !== 'lib/core') continue
    for (const imported of imports) {
      const builtin = imported.startsWith('node:') && allowed.has(imported.slice(5))
      if (!builtin && folderOf(imported) !== 'lib/core') faults.push(`${path} imports ${imported}`)
    }
  }
  return faults
}

/** The first way in a circle, if there is one. */
function cycleOf(graph: Graph): string[] | undefined {
  const done = new Set<string>()
  const visit = (path: string, way: readonly string[]): string[] | undefined => {
    if (way.includes(path)) return [...way.slice(way.indexOf(path)), path]
    if (done.has(path)) return undefined
    for (const imported of graph.get(path) ?? []) {
      const cycle = visit(imported, [...way, path])
      if (cycle) return cycle
    }
    done.add(path)
    return undefined
  }
  for (const path of graph.keys()) {
    const cycle = visit(path, [])
    if (cycle) return cycle
  }
  return undefined
}

const graph = graphOf(readSources('lib', 'apps'))

test('there are sources to look at, and their imports are found', () => {
  assert.ok(graph.size > 40)
  assert.ok(graph.get('lib/core/proxy.ts')?.includes('lib/core/multiplexer.ts'))
  assert.ok(graph.get('lib/core/proxy.ts')?.includes('node:events'))
})

test('imports point down only', () => {
  assert.deepEqual(floorFaults(graph), [])
})

test('the core imports nothing but itself and built-in modules that know no network and no files', () => {
  assert.deepEqual(coreFaults(graph), [])
})

test('there are no cycles, not even of types', () => {
  assert.equal(cycleOf(graph), undefined)
})

test('this test would notice', () => {
  const faulty = graphOf(
    new Map([
      ['lib/core/a.ts', "import { b } from '../sockets/b.ts'\nimport 'node:net'\nimport pino from 'pino'"],
      ['lib/sockets/b.ts', "import type {\n  C,\n} from '../domains/c.ts'\n// import x from '../hub/d.ts'"],
      ['lib/domains/c.ts', "export * from '../policy/e.ts'\nawait import('../index.ts')"],
      ['lib/policy/e.ts', "import { a } from '../core/a.ts'"],
      ['lib/index.ts', "import { gone } from './core/gone.ts'"],
      ['lib/new/f.ts', ''],
    ]),
  )
  assert.deepEqual(floorFaults(faulty), [
    'lib/core/a.ts imports lib/sockets/b.ts',
    'lib/sockets/b.ts imports lib/domains/c.ts',
    'lib/domains/c.ts imports lib/policy/e.ts',
    'lib/domains/c.ts imports lib/index.ts',
    'lib/index.ts imports lib/core/gone.ts, which does not exist',
    'lib/new/f.ts stands on no floor',
  ])
  assert.deepEqual(coreFaults(faulty), [
    'lib/core/a.ts imports lib/sockets/b.ts',
    'lib/core/a.ts imports node:net',
    'lib/core/a.ts imports pino',
  ])
  assert.deepEqual(cycleOf(faulty), [
    'lib/core/a.ts',
    'lib/sockets/b.ts',
    'lib/domains/c.ts',
    'lib/policy/e.ts',
    'lib/core/a.ts',
  ])
})
