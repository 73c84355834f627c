import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { builtinModules, createRequire } from 'node:module'
import { describe, test } from 'node:test'
import { projectPath } from '../helpers/core/project.ts'
import { importsOf, readSources } from '../helpers/core/sources.ts'

const read = (name: string): string => readFileSync(projectPath(name), 'utf8')
const manifest: { dependencies: object; bin: Record<string, string>; files: string[]; exports: object } = JSON.parse(
  read('package.json'),
)

describe('package.json', () => {
  test('names as dependencies what the code that runs imports, and nothing else', () => {
    const imported = [...readSources('lib', 'apps').values()].flatMap(importsOf)
    const names = imported
      .filter((name) => !name.startsWith('.') && !name.startsWith('node:') && !builtinModules.includes(name))
      .map((name) => name.split('/', name.startsWith('@') ? 2 : 1).join('/'))
    assert.ok(names.includes('valibot'))
    assert.deepEqual([...new Set(names)].sort(), Object.keys(manifest.dependencies).sort())
  })

  test('names files that are there', () => {
    for (const path of [...Object.values(manifest.bin), 'config.schema.json', 'doc', 'supervisor']) {
      assert.ok(existsSync(projectPath(path)), path)
    }
    for (const path of ['dist/lib', 'dist/apps/bundle', 'apps/cli/bin', 'config.schema.json', 'doc', 'supervisor']) {
      assert.ok(manifest.files.includes(path), path)
    }
  })
})

/** The instructions of the Dockerfile, with their continued lines joined. */
const instructions = read('Dockerfile')
  .replace(/^#.*\n/gm, '')
  .replace(/\\\n/g, ' ')
  .split('\n')
  .filter((line) => line.trim() !== '')
  .map((line) => line.trim().split(/\s+/))

function arguments_(instruction: string): string[][] {
  return instructions.filter(([name]) => name === instruction).map(([, ...rest]) => rest)
}

describe('Dockerfile', () => {
  test('copies what is there, and what .dockerignore lets through', () => {
    const let_ = read('.dockerignore').match(/(?<=^!).+$/gm) ?? []
    const copied = arguments_('COPY')
      .filter(([first]) => !first?.startsWith('--from='))
      .flatMap((words) => words.slice(0, -1))
    assert.ok(copied.includes('lib') && copied.includes('package-lock.json'), copied.join())
    for (const path of copied) {
      assert.ok(existsSync(projectPath(path)), path)
      assert.ok(
        let_.some((name) => path === name || path.startsWith(`${name}/`)),
        `${path} is not in .dockerignore`,
      )
    }
  })

  test('has three stages, those that run without a compiler, the last one without root', () => {
    const stages = instructions.map((words, i) => ({ words, i })).filter(({ words: [name] }) => name === 'FROM')
    const [build, run, last, ...more] = stages
    assert.ok(build && run && last)
    assert.deepEqual(more, [])
    const lines = instructions.map((words) => words.join(' '))
    assert.doesNotMatch(lines.slice(run.i).join('\n'), /npm|tsc/)
    assert.deepEqual(lines.slice(last.i), [`FROM ${run.words.at(-1)}`, 'USER node'])
    assert.match(
      instructions.map((words) => words.join(' ')).join('\n'),
      /npm ci .*\n(?:.*\n)*.*npm prune --omit=dev --omit=optional/,
    )
  })

  test('listens, stops and is asked how it is as the server does', () => {
    const one = (name: string): string => {
      const [first, ...more] = arguments_(name)
      assert.deepEqual(more, [], name)
      return first?.join(' ') ?? ''
    }
    assert.equal(one('EXPOSE'), '925')
    assert.equal(one('STOPSIGNAL'), 'SIGTERM')
    assert.equal(one('VOLUME'), '/var/lib/symport')
    assert.deepEqual(JSON.parse(one('ENTRYPOINT')), ['symport'])
    assert.deepEqual(JSON.parse(one('CMD')), ['server'])
    assert.match(one('ENV'), /XDG_STATE_HOME=\/var\/lib\b/)
    assert.match(one('HEALTHCHECK'), /\/var\/lib\/symport\/admin\.sock.*\/healthz/)
  })
})

test('nothing that runs is made for one kind of processor', () => {
  // Packages say so with a script that compiles, or with the platforms for which they are.
  const lock: {
    packages: Record<
      string,
      {
        dev?: boolean
        optional?: boolean
        devOptional?: boolean
        hasInstallScript?: boolean
        os?: string[]
        cpu?: string[]
      }
    >
  } = JSON.parse(read('package-lock.json'))
  const running = Object.entries(lock.packages).filter(
    ([path, { dev, optional, devOptional }]) => path !== '' && !dev && !optional && !devOptional,
  )
  assert.ok(running.length > 10)
  assert.deepEqual(
    running.filter(([, { hasInstallScript, os, cpu }]) => hasInstallScript || os || cpu).map(([path]) => path),
    [],
  )
})

interface Compose {
  services: Record<string, { command?: string[]; volumes?: string[]; secrets?: string[]; profiles?: string[] }>
  volumes: Record<string, unknown>
  secrets: Record<string, unknown>
}

test('compose.yaml parses, and names only what it has', () => {
  // The YAML parser is a dependency of ours only through this one.
  const { parse }: { parse(text: string): Compose } = createRequire(import.meta.resolve('@fastify/swagger'))('yaml')
  const { services, volumes, secrets } = parse(read('compose.yaml'))
  assert.deepEqual(Object.keys(services), ['server', 'node', 'web'])
  assert.equal(services.server?.profiles, undefined)
  for (const [name, service] of Object.entries(services)) {
    for (const volume of service.volumes ?? []) assert.ok((volume.split(':')[0] ?? '') in volumes, `${name}: ${volume}`)
    for (const secret of service.secrets ?? []) assert.ok(secret in secrets, `${name}: ${secret}`)
  }
})
