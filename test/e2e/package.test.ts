import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { describe, test } from 'node:test'
import { runHere } from '../helpers/e2e/here.ts'
import { Stage } from '../helpers/system/stage.ts'
import { ROOT, symportEnvironment } from '../helpers/system/symport.ts'

const PAGES = [
  'README.md',
  'supervisor/README.md',
  ...readdirSync(`${ROOT}doc`)
    .filter((file) => file.endsWith('.md'))
    .map((file) => `doc/${file}`),
]
/** Those that would show nothing without. */
const WITH_COMMANDS = new Set([
  'README.md',
  ...['config', 'docker', 'systemd', 'supervisord', 'windows-service', 'from-tiny-ws-tunnel', 'udp', 'security'].map(
    (name) => `doc/${name}.md`,
  ),
])

const COMMAND =
  /^(?:docker .* )?symport ([a-z].*)$|^command = \/usr\/lib\/symport\/(.*)$|[/\\]symport\.(?:cmd|cjs) ([a-z].*)$/gm

/** The command lines of a page, in blocks and in sentences, each without what stands before its command. */
function commandsOf(text: string): string[] {
  const blocks = [...text.matchAll(/^```(\w*)\n(.*?)^```/gms)].flatMap(([, kind = '', block = '']) => {
    if (['json', 'ts', 'toml'].includes(kind)) return []
    return [...block.matchAll(COMMAND)].flatMap(([, line, launched, installed]) => line ?? launched ?? installed ?? [])
  })
  const sentences = [...text.replace(/^```.*?^```/gms, '').matchAll(/`symport ([a-z][^`]*)`/g)].flatMap(
    ([, line]) => line ?? [],
  )
  return [...blocks, ...sentences].map((line) =>
    line.replace(/\s+#.*$/s, '').replace(/\$\(.*?\)|'[^']*'|"[^"]*"/g, 'X'),
  )
}

describe('the package', () => {
  test('holds just what runs, and runs where it is installed', { timeout: 60_000 }, async (t) => {
    const stage = new Stage(t)
    mkdirSync(stage.path('packed'))
    const env = symportEnvironment(stage, {
      npm_config_cache: stage.path('cache'),
      npm_config_update_notifier: 'false',
    })
    const pack = ['pack', '--json', '--ignore-scripts', '--offline', '--pack-destination', stage.path('packed')]
    const json = stage.path('pack.json')
    const npm = await stage.run('npm', pack, { cwd: ROOT, env, to: json })
    assert.equal(npm.status, 0, npm.output)
    const [packed]: { filename: string; files: { path: string; mode: number }[] }[] = Object.values(
      JSON.parse(readFileSync(json, 'utf8')),
    )
    assert.ok(packed)

    const paths = packed.files.map(({ path }) => path)
    for (const path of [
      'package.json',
      'README.md',
      'LICENSE',
      'config.schema.json',
      'apps/cli/bin/symport.cjs',
      'apps/cli/bin/symport-server.cjs',
      'apps/cli/bin/symport-node.cjs',
      'dist/apps/bundle/main.js',
      'dist/lib/index.js',
      'dist/lib/index.d.ts',
      'dist/lib/testing.js',
      'doc/config.md',
      'supervisor/symport-server.service',
    ]) {
      assert.ok(paths.includes(path), `${path} is missing`)
    }
    const allowed =
      /^(package\.json|README\.md|LICENSE|config\.schema\.json|apps\/cli\/bin\/[a-z-]+\.cjs|doc\/.+|supervisor\/.+|dist\/(lib|apps)\/.+\.(js|d\.ts))$/
    assert.deepEqual(
      paths.filter((path) => !allowed.test(path)),
      [],
    )

    // Installed by hand: npm needs a registry to do it. Only what package.json names is beside it.
    await stage.must('tar', ['-xzf', stage.path('packed', packed.filename), '-C', stage.path('packed')])
    const modules = stage.path('packed', 'node_modules')
    const { dependencies }: { dependencies: Record<string, string> } = JSON.parse(
      readFileSync(stage.path('packed', 'package', 'package.json'), 'utf8'),
    )
    for (const name of Object.keys(dependencies)) {
      mkdirSync(dirname(`${modules}/${name}`), { recursive: true })
      symlinkSync(`${ROOT}node_modules/${name}`, `${modules}/${name}`)
    }
    symlinkSync(stage.path('packed', 'package'), `${modules}/symport`)

    const bin = stage.path('packed', 'package', 'apps', 'cli', 'bin', 'symport.cjs')
    const version = await stage.must(process.execPath, [bin, '--version'], { env })
    assert.match(version, /^\d+\.\d+\.\d+$/)
    const overview = await stage.must(process.execPath, [bin], { env })
    const commands = [...(overview.split('Commands')[1] ?? '').matchAll(/^ {2}(\w+) /gm)].map(([, name]) => name ?? '')
    assert.ok(commands.includes('server'))
    // In one process: it is about what they load.
    writeFileSync(
      stage.path('packed', 'helps.mjs'),
      `import { main } from './package/dist/apps/bundle/main.js'
      for (const name of ${JSON.stringify(commands)}) process.exitCode ||= await main([name, '--help'])`,
    )
    const helps = await stage.must(process.execPath, [stage.path('packed', 'helps.mjs')], { env })
    assert.equal(helps.match(/^Usage: symport /gm)?.length, commands.length)

    writeFileSync(
      stage.path('packed', 'user.mjs'),
      `import { Proxy } from 'symport'
      import { createProxyPair } from 'symport/testing'
      import schema from 'symport/config.schema.json' with { type: 'json' }
      const { a, b } = await createProxyPair()
      console.log(a instanceof Proxy, typeof schema.anyOf)
      a.close()
      b.close()`,
    )
    const said = await stage.must(process.execPath, ['--no-warnings', stage.path('packed', 'user.mjs')], { env })
    assert.equal(said, 'true object')
  })

  test('starts containers with commands and flags that there are', async (t) => {
    const stage = new Stage(t)
    const { parse }: { parse(text: string): { services: Record<string, { command?: string[] }> } } = createRequire(
      import.meta.resolve('@fastify/swagger'),
    )('yaml')
    const { services } = parse(readFileSync(`${ROOT}compose.yaml`, 'utf8'))
    const commands = Object.values(services).flatMap(({ command }) => (command === undefined ? [] : [command]))
    assert.equal(commands.length, 2)
    for (const [name = '', ...rest] of commands) {
      const help = await runHere(stage, [name, '--help'])
      assert.equal(help.status, 0)
      const flags = rest.filter((word) => word.startsWith('-'))
      assert.ok(flags.length > 0)
      for (const flag of flags) assert.match(help.stdout, new RegExp(`^ +(-\\w, )?${flag} `, 'm'), `${name} ${flag}`)
    }
  })

  const helps = new Map<string, Promise<string>>()
  for (const page of PAGES) {
    test(`${page} has commands and flags that there are`, { timeout: 60_000 }, async (t) => {
      const stage = new Stage(t)
      const lines = commandsOf(readFileSync(`${ROOT}${page}`, 'utf8'))
      if (WITH_COMMANDS.has(page)) assert.ok(lines.length > 1, 'there are commands to look at')
      for (const line of lines) {
        const [name = '', sub = '', ...rest] = line.split(/\s+/)
        const command = ['nodes', 'mappings'].includes(name) && /^[a-z]+$/.test(sub) ? [name, sub] : [name]
        const key = command.join(' ')
        if (!helps.has(key))
          helps.set(
            key,
            runHere(stage, [...command, '--help']).then(({ stdout }) => stdout),
          )
        const help = (await helps.get(key)) ?? ''
        assert.match(help, new RegExp(`^Usage: symport ${key}\\b`), line)
        for (const word of [sub, ...rest]) {
          const [, dashes, flag = ''] = /^(--?)([a-zA-Z][\w-]*)/.exec(word) ?? []
          if (dashes === undefined || flag === 'help') continue
          const shown = flag.length === 1 ? `-${flag}, ` : `(-\\w, )?--${flag}\\b(?!-)`
          assert.match(help, new RegExp(`^ +${shown}`, 'm'), `${line}: ${word}`)
        }
      }
    })
  }
})
