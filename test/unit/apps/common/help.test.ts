import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatHelp } from '../../../../apps/common/help.ts'

test('prints usage, summary, flags and examples', () => {
  const text = formatHelp({
    usage: 'symport x [flags]',
    summary: 'Does x.',
    flags: [
      { name: 'host', kind: 'string', value: 'HOST', help: 'where to listen' },
      { name: 'listener', alias: 'L', kind: 'list', value: 'SPEC', help: 'I listen' },
      { name: 'balance', kind: 'boolean', help: `share ${'new connections '.repeat(6)}out` },
      { name: 'a-very-long-flag-name-indeed', kind: 'string', help: 'its help is below' },
    ],
    examples: ['# the usual one', 'symport x --host 127.0.0.1'],
  })
  assert.equal(
    text,
    `Usage: symport x [flags]

Does x.

Flags:
      --host HOST             where to listen
  -L, --listener SPEC...      I listen
      --balance               share new connections new connections new
                              connections new connections new connections new
                              connections out
      --a-very-long-flag-name-indeed VALUE
                              its help is below

Examples:
  # the usual one
  symport x --host 127.0.0.1
`,
  )
})

test('leaves out what there is none of', () => {
  assert.equal(
    formatHelp({ usage: 'symport', summary: 'A tunnel.', flags: [], examples: [] }),
    'Usage: symport\n\nA tunnel.\n',
  )
})

test('wraps the summary, and no word', () => {
  const text = formatHelp({
    usage: 'x',
    summary: `${'word '.repeat(40)}${'y'.repeat(90)} end`,
    flags: [],
    examples: [],
  })
  const lines = text.split('\n').filter((line) => line.length > 80)
  assert.deepEqual(lines, ['y'.repeat(90)])
})
