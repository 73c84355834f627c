import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { describe, test } from 'node:test'
import { run } from '../helpers/e2e/cli.ts'
import { Stage } from '../helpers/system/stage.ts'
import { ROOT, symportEnvironment } from '../helpers/system/symport.ts'

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
      'dist/apps/cli/main.js',
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
    for (const name of commands) await stage.must(process.execPath, [bin, name, '--help'], { env })

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
      const help = await run(stage, [name, '--help'])
      assert.equal(help.status, 0)
      const flags = rest.filter((word) => word.startsWith('-'))
      assert.ok(flags.length > 0)
      for (const flag of flags) assert.match(help.stdout, new RegExp(`^ +(-\\w, )?${flag} `, 'm'), `${name} ${flag}`)
    }
  })

  for (const page of ['config', 'docker', 'systemd', 'supervisord', 'from-tiny-ws-tunnel']) {
    test(`doc/${page}.md has commands and flags that there are`, async (t) => {
      const stage = new Stage(t)
      const blocks = readFileSync(`${ROOT}doc/${page}.md`, 'utf8').matchAll(/```sh\n(.*?)```/gs)
      const lines = [...blocks].flatMap(
        ([, block = '']) => block.match(/^(?:docker exec symport )?symport .*$/gm) ?? [],
      )
      assert.ok(lines.length > 1, 'there are commands to look at')
      const helps = new Map<string, string>()
      for (const line of lines) {
        const words = line
          .replace(/^docker exec symport /, '')
          .replace(/ #.*$/, '')
          .split(' ')
          .slice(1)
        const [name = '', sub = ''] = words
        const command = ['nodes', 'mappings'].includes(name) ? [name, sub] : [name]
        const key = command.join(' ')
        const help = helps.get(key) ?? (await run(stage, [...command, '--help'])).stdout
        helps.set(key, help)
        for (const flag of words.filter((word) => /^--?[a-z]/.test(word))) {
          assert.match(help, new RegExp(`^ +(-\\w, )?${flag}[ ,]|^ +${flag}, `, 'm'), line)
        }
        assert.match(help, new RegExp(`^Usage: symport ${key}\\b`), line)
      }
    })
  }
})
