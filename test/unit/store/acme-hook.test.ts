import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { hookRecords } from '../../../lib/store/acme-dns.ts'
import { runHook } from '../../../lib/store/acme-hook.ts'

const { signal } = new AbortController()

/** A program of one's own; `$1`, `$2` and `$3` are what it is called with. */
function program(t: TestContext, lines: string, mode = 0o700): { path: string; file(name: string): string } {
  const folder = mkdtempSync(join(tmpdir(), 'symport-hook-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'hook')
  writeFileSync(path, `#!/bin/sh\ncd '${folder}'\n${lines}\n`)
  chmodSync(path, mode)
  return { path, file: (name) => join(folder, name) }
}

test('a hook is called as lego calls one, without a shell, and without our secret', async (t) => {
  const before = process.env.SYMPORT_UUID
  t.after(() => {
    if (before === undefined) delete process.env.SYMPORT_UUID
    else process.env.SYMPORT_UUID = before
  })
  process.env.SYMPORT_UUID = 'the secret'
  const { path, file } = program(t, 'printf "%s|" "$#" "$@" >> called; env >> env; cat > read; echo done')
  const records = hookRecords(path)
  await records.present('_acme-challenge.example.com', '$(id) -v;"\' *', signal)
  await records.cleanup('_acme-challenge.example.com', '-v', signal)
  assert.equal(
    readFileSync(file('called'), 'utf8'),
    '3|present|_acme-challenge.example.com.|$(id) -v;"\' *|3|cleanup|_acme-challenge.example.com.|-v|',
  )
  const env = readFileSync(file('env'), 'utf8')
  assert.match(env, /^PATH=/m)
  assert.doesNotMatch(env, /SYMPORT_UUID|the secret/)
  assert.equal(readFileSync(file('read'), 'utf8'), '', 'there is nothing to read')
})

test('emits PROXY_ERR_ACME with what the hook prints if it fails, on one line', async (t) => {
  const fails = program(t, 'echo "API: no\nsuch \\033[31mzone" >&2; exit 3')
  const dies = program(t, 'kill -9 $$')
  const notExecutable = program(t, 'exit 0', 0o600)
  const missing = program(t, 'exit 0').file('none')
  const strange = program(t, '')
  writeFileSync(strange.path, '#!/none/such/interpreter\n')
  const cases: [string, RegExp][] = [
    [fails.path, /^the hook \S+ present ended with 3 \(it says: API: no such \[31mzone\)$/],
    [dies.path, /^the hook \S+ present ended with SIGKILL$/],
    [notExecutable.path, /cannot be run: it is not executable \(chmod \+x\)$/],
    [missing, /cannot be run: there is no such file/],
    [strange.path, /cannot be run: there is no such file, or not what its first line says/],
  ]
  for (const [path, message] of cases) {
    await assert.rejects(runHook(path, ['present'], { deadline: 5000, signal }), { code: 'PROXY_ERR_ACME', message })
  }
})

test('a hook that hangs is ended, with what it has started and whatever it does about that', async (t) => {
  const { path, file } = program(t, 'trap "" TERM; sleep 60 & echo $! > child; echo waiting; wait; sleep 60')
  const started = performance.now()
  await assert.rejects(runHook(path, ['present'], { deadline: 300, signal, grace: 200 }), {
    message: /^the hook \S+ present has not ended within 0 s \(it says: waiting\)$/,
  })
  assert.ok(performance.now() - started < 4000)
  const child = Number(readFileSync(file('child'), 'utf8'))
  // Nobody may have taken its end from the system yet.
  const state = existsSync(`/proc/${child}/stat`) ? readFileSync(`/proc/${child}/stat`, 'utf8').split(' ')[2] : 'gone'
  assert.match(state ?? '', /Z|gone/)
})

test('a hook is ended when it is given up, and none is started after that', async (t) => {
  const { path, file } = program(t, 'echo x > "started-$1"; exec sleep 60')
  const giving = new AbortController()
  const running = runHook(path, ['present'], { deadline: 60_000, signal: giving.signal })
  const rejected = assert.rejects(running, { code: 'PROXY_ERR_ACME', message: /was given up$/ })
  while (!existsSync(file('started-present'))) await new Promise((resolve) => setTimeout(resolve, 5))
  giving.abort()
  await rejected
  await assert.rejects(runHook(path, ['late'], { deadline: 60_000, signal: giving.signal }), /is not run any more$/)
  assert.equal(existsSync(file('started-late')), false)
})

test('of what a hook prints the end is kept, and megabytes do not hold it up', async (t) => {
  const { path } = program(t, 'head -c 20000000 /dev/zero | tr "\\0" x; echo; echo the reason >&2; exit 1')
  const before = process.memoryUsage().rss
  await assert.rejects(runHook(path, ['present'], { deadline: 20_000, signal }), (error: Error) => {
    assert.ok(error.message.length < 1000)
    assert.match(error.message, /the reason|x{400}/)
    return true
  })
  assert.ok(process.memoryUsage().rss - before < 100_000_000)
})

test('a hook that leaves something running with its output is over when it is', async (t) => {
  const { path, file } = program(t, 'sleep 60 & echo $! > child; exit 0')
  const started = performance.now()
  await runHook(path, ['present'], { deadline: 60_000, signal })
  assert.ok(performance.now() - started < 5000)
  process.kill(Number(readFileSync(file('child'), 'utf8')))
})
