import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import { parse } from 'smol-toml'
import { makeToken } from '../../lib/core/index.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { Stage } from '../helpers/system/stage.ts'
import { symportEnvironment } from '../helpers/system/symport.ts'

const ROOT = new URL('../../../', import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8')
const PAGES = ['README.md', 'supervisor/README.md', ...readdirSync(new URL('doc/', ROOT)).map((name) => `doc/${name}`)]
/** In the place of the secrets that pages do not show. */
const TOKEN = makeToken(new Uint8Array(16), new Uint8Array(32).fill(9))
/** They read all of their command line before they say that this is no level, and do nothing before that. */
const STARTS = ['server', 'node', 'http', 'tcp', 'udp']
const NO_LEVEL = ['--log-level', 'none-such']
/** A server answers these; without one they say so, when the command line is good. */
const ASKS = ['nodes', 'mappings', 'status', 'reload', 'requests']

/** A line of a shell in words, as far as pages go: quotes, comments, no expansions. */
function words(line: string): string[] {
  const found: string[] = []
  let word: string | undefined
  for (const [piece] of line.matchAll(/'[^']*'|"[^"]*"|\s+#.*$|\s+|[^\s'"]+/g)) {
    if (/^\s/.test(piece)) {
      if (word !== undefined) found.push(word)
      word = undefined
      if (piece.includes('#')) return found
    } else {
      word = (word ?? '') + (/^['"]/.test(piece) ? piece.slice(1, -1) : piece)
    }
  }
  return word === undefined ? found : [...found, word]
}

function commandLines(page: string): string[] {
  const blocks = [...read(page).matchAll(/^```sh\n(.*?)^```/gms)].flatMap(([, block = '']) => block.split('\n'))
  const direct = blocks.filter((line) => line.startsWith('symport '))
  const within = blocks.flatMap((line) => line.match(/(?<=--command ')symport [^']+|(?<=exec \w+ )symport .+/g) ?? [])
  return [...direct, ...within]
}

async function good(t: TestContext, argvs: readonly (readonly string[])[], page: string): Promise<void> {
  const stage = new Stage(t)
  writeFileSync(stage.path('secret'), TOKEN, { mode: 0o600 })
  for (const argv of argvs) {
    const where = `${page}: symport ${argv.join(' ')}`
    // Wherever the reader has their state, it is not this test's.
    const own = argv.filter((word, i) => word !== '--state' && argv[i - 1] !== '--state')
    const state = ['--state', stage.path('state')]
    const [command = '', ...rest] = own.map((word) =>
      word
        .replace('symport_...', TOKEN)
        .replace('sha256:...', `sha256:${'00'.repeat(32)}`)
        .replace(/^\/run\/uuid\.txt$|^\/run\/secrets\/symport-uuid$/, stage.path('secret')),
    )
    const secret = { SYMPORT_UUID: STARTS.includes(command) ? TOKEN : undefined }
    const env = symportEnvironment(stage, secret)
    if (STARTS.includes(command)) {
      const { status, stderr } = await runHere(stage, [command, ...rest, ...state, ...NO_LEVEL], { env })
      assert.match(stderr, /^symport: --log-level.*none-such/, where)
      assert.equal(status, 2, where)
    } else if (ASKS.includes(command)) {
      const { status, stderr } = await runHere(stage, [command, ...rest, ...state], { env })
      assert.notEqual(status, 2, `${where}: ${stderr}`)
    } else if (command === 'uuid') {
      await runHere(stage, ['keygen', ...state], { env })
      const { status, stderr } = await runHere(stage, [command, ...rest, ...state], { env })
      assert.equal(status, 0, `${where}: ${stderr}`)
    } else {
      // What it would do is none of this test's business.
      const { status } = await runHere(stage, [command, '--help'], { env })
      assert.equal(status, 0, where)
    }
  }
}

let count = 0
for (const page of PAGES.filter((name) => name.endsWith('.md'))) {
  const lines = commandLines(page)
  if (lines.length === 0) continue
  test(`every command line of ${page} is a good one`, async (t) => {
    // What stands in files of the reader is not there.
    const argvs = lines
      .map((line) => words(line).slice(1))
      .filter(
        (argv) =>
          !argv.some((word) =>
            /^(?:-c|--config|--from|--cert|--output|--acme-dns-hook|--acme-eab-hmac-file|--basic-auth-file)$/.test(
              word,
            ),
          ),
      )
    await good(t, argvs, page)
    count += argvs.length
  })
}

test('fly.toml starts a server whose ports, state and patience fit the rest of the file', async (t) => {
  const file = parse(read('fly.toml'))
  const { app } = Object(file.processes)
  const argv = words(String(app))
  await good(t, [argv], 'fly.toml')
  const after = (flag: string): string => argv[argv.indexOf(flag) + 1] ?? ''
  const services: { internal_port: number; ports: { port: number; handlers?: string[] }[] }[] = Object(file.services)
  const [one, ...others] = services
  assert.equal(String(one?.internal_port), after('--port'))
  assert.deepEqual(one?.ports.map(({ port }) => port).sort(), [443, 80, 925].sort())
  // A handler that ends TLS or reads HTTP would leave nothing for the one port to tell apart.
  for (const { handlers } of one?.ports ?? []) assert.deepEqual(handlers, ['proxy_proto'])
  assert.equal(others.map(({ internal_port }) => internal_port).join(), after('--allow-ports'))
  for (const { internal_port, ports } of others) {
    assert.deepEqual(
      ports.map(({ port, handlers }) => ({ port, handlers })),
      [{ port: internal_port, handlers: undefined }],
    )
  }
  const dockerfile = read('Dockerfile')
  assert.match(dockerfile, new RegExp(`^VOLUME ${Object(file.mounts).destination}$`, 'm'))
  assert.match(dockerfile, new RegExp(`^FROM .* AS ${Object(file.build)['build-target']}$`, 'm'))
  assert.ok(Number.parseInt(String(file.kill_timeout), 10) > 30)
})

test('there are command lines', () => {
  assert.ok(count > 60, `${count}`)
})
