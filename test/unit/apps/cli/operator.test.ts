import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { dispatch, withDefault } from '../../../../apps/common/operator.ts'

describe('a command made of others', () => {
  function made(): { run(argv: string[]): Promise<unknown> } {
    const called = (name: string) => async (argv: readonly string[]) => {
      got = [name, ...argv]
      return 0
    }
    let got: readonly string[] = []
    const flags = [
      { name: 'state', kind: 'string', help: '' },
      { name: 'token_file', kind: 'string', help: '' },
      { name: 'json', kind: 'boolean', help: '' },
    ] as const
    const run = dispatch(
      'things',
      { summary: 'Things.', examples: [] },
      {
        list: { usage: 'list', summary: '', flags, run: called('list') },
        add: { usage: 'add ID', summary: '', flags, run: called('add') },
      },
    )
    return {
      async run(argv) {
        assert.equal(await run(argv), 0)
        return got
      },
    }
  }

  test('passes on what stands around its word', async () => {
    const { run } = made()
    assert.deepEqual(await run(['add', 'x', '--json']), ['add', 'x', '--json'])
    assert.deepEqual(await run(['--state', 'list', 'add', 'x']), ['add', '--state', 'list', 'x'])
    assert.deepEqual(await run(['--state=list', '-token-file', 'f', '--json', 'add']), [
      'add',
      '--state=list',
      '-token-file',
      'f',
      '--json',
    ])
    assert.deepEqual(await run(['add', '--help']), ['add', '--help'])
  })

  test('is the first one without a word', async () => {
    const { run } = made()
    assert.deepEqual(await run([]), ['list'])
    assert.deepEqual(await run(['--json']), ['list', '--json'])
  })

  test('names the word that was meant', async () => {
    const { run } = made()
    const usage = (message: string) => ({ code: 'PROXY_ERR_USAGE', message })
    await assert.rejects(run(['lits']), usage('unknown command "things lits": did you mean "symport things list"?'))
    await assert.rejects(run(['xyz']), usage('unknown command "things xyz": known are list, add'))
    await assert.rejects(run(['__proto__']), { code: 'PROXY_ERR_USAGE' })
    await assert.rejects(run(['toString']), { code: 'PROXY_ERR_USAGE' })
  })
})

test('a flag that may stand alone has its default there', async () => {
  let got: readonly string[] = []
  const run = withDefault(
    async (argv) => {
      got = argv
      return 0
    },
    'watch',
    '2s',
  )
  for (const [argv, expected] of [
    [['--watch'], ['--watch=2s']],
    [
      ['-watch', '5s', 'x'],
      ['--watch=5s', 'x'],
    ],
    [
      ['--watch', '--json'],
      ['--watch=2s', '--json'],
    ],
    [
      ['--watch', 'office'],
      ['--watch=2s', 'office'],
    ],
    [['--watch=1s'], ['--watch=1s']],
    [
      ['--', '--watch'],
      ['--', '--watch'],
    ],
    [
      ['--watch', '5 minutes'],
      ['--watch=2s', '5 minutes'],
    ],
  ]) {
    await run(argv ?? [])
    assert.deepEqual(got, expected)
  }
})
