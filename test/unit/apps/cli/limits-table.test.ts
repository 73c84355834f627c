import assert from 'node:assert/strict'
import { test } from 'node:test'
import { limitsText, mappingColumns, nodeColumns } from '../../../../apps/common/operator-tables.ts'
import { formatTable } from '../../../../apps/common/table.ts'
import { someMapping, someNode } from '../../../helpers/admin/fake-operations.ts'

const CONTEXT = { now: 0 }

test('limits are said in a few words', () => {
  const limits = {
    ...{ in: 1_000_000, out: 500_000, connections: 100, rate: 10, quota: 50_000_000_000 },
    visitor: { in: 1024, connections: 5 },
    ...{ allow: ['10.0.0.0/8', '::1'], deny: ['10.6.6.6'] },
  }
  assert.equal(
    limitsText(limits),
    'in 1MB/s, out 500kB/s, 100 open, 10 new/s, 50GB a month, a visitor in 1KiB/s and 5 open, from 10.0.0.0/8 +1, not from 10.6.6.6',
  )
  assert.equal(limitsText({ allow: [] }), 'from nowhere')
  assert.deepEqual([limitsText({}), limitsText(undefined)], ['', ''])
})

test('there are columns for limits and for what is done to requests, where there are any', () => {
  const head = (rows: Parameters<typeof someMapping>[1][], width = 200): string =>
    formatTable(
      rows.map((more, i) => someMapping(String(i), more)),
      mappingColumns(CONTEXT),
      { width, color: false },
    ).join('\n')
  assert.doesNotMatch(head([{}]), /LIMITS|HTTP/)
  const http = {
    basicAuth: ['ann', 'joe'],
    hostHeader: 'rewrite',
    maintenance: true,
    requestHeaders: {},
    inspect: true,
  }
  const both = head([{ limits: { rate: 3 } }, { http }])
  assert.match(both, /LIMITS +HTTP/)
  assert.match(both, /3 new\/s/)
  assert.match(both, /maintenance, 2 users, host rewrite, headers, inspected/)
  assert.doesNotMatch(head([{ limits: { rate: 3 } }], 60), /LIMITS/, 'they go first where there is no room')
  const many = { in: 1_000_000, out: 1_250_000, quota: 50_000_000_000, deny: ['203.0.113.0/24'] }
  const narrow = head([{ limits: many, http }], 90)
  assert.match(narrow, /LIMITS/, 'but after how many there were in all')
  assert.doesNotMatch(narrow, /TOTAL/)
  const nodes = formatTable([someNode('a', { limits: { out: 5 } })], nodeColumns(CONTEXT), { width: 200, color: false })
  assert.match(nodes.join('\n'), /LIMITS.*out 5B\/s/s)
})
