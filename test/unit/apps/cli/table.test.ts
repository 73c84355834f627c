import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  connectionColumns,
  mappingColumns,
  nodeColumns,
  problemLines,
} from '../../../../apps/common/operator-tables.ts'
import {
  type Column,
  cutTo,
  formatAge,
  formatBytes,
  formatSince,
  formatTable,
  printable,
  textWidth,
} from '../../../../apps/common/table.ts'
import { connectedNode, START, someMapping, someNode } from '../../../helpers/admin/fake-operations.ts'

const NOW = Date.parse(START) + 3 * 60_000
const LONG_ID = 'a-node-with-an-id-of-as-many-bytes-as-there-may-be-in-one-64-ok'

interface Row {
  readonly id: string
  readonly size: number
  readonly note: string
}

const COLUMNS: readonly Column<Row>[] = [
  { title: 'ID', value: ({ id }) => id, color: () => 'green' },
  { title: 'SIZE', value: ({ size }) => formatBytes(size), align: 'right', rank: 1 },
  { title: 'NOTE', value: ({ note }) => note, shrinkTo: 6, rank: 2 },
]
const ROWS: readonly Row[] = [
  { id: 'one', size: 5, note: 'a note that is long' },
  { id: 'three', size: 123_456, note: '' },
]

function plain(width: number): string[] {
  return formatTable(ROWS, COLUMNS, { width, color: false })
}

describe('a table', () => {
  test('aligns its columns, and has no blanks at the end of lines', () => {
    assert.deepEqual(plain(80), [
      'ID        SIZE  NOTE', //
      'one        5 B  a note that is long',
      'three  121 KiB',
    ])
  })

  test('cuts notes first, then leaves out columns, and never cuts an id', () => {
    assert.deepEqual(plain(24), ['ID        SIZE  NOTE', 'one        5 B  a note…', 'three  121 KiB'])
    assert.deepEqual(plain(20), ['ID        SIZE', 'one        5 B', 'three  121 KiB'])
    for (const width of [8, 1]) assert.deepEqual(plain(width), ['ID', 'one', 'three'])
  })

  test('gives the room of a column that is left out to those that were cut', () => {
    const columns = COLUMNS.map((column) => ({ ...column, rank: column.title === 'SIZE' ? 3 : column.rank }))
    assert.deepEqual(formatTable(ROWS, columns, { width: 20, color: false }), [
      'ID     NOTE',
      'one    a note that…',
      'three',
    ])
  })

  test('leaves out a column in which nothing stands', () => {
    const rows = ROWS.map((row) => ({ ...row, note: '' }))
    assert.equal(formatTable(rows, COLUMNS, { width: 80, color: false })[0], 'ID        SIZE')
  })

  test('colours cells without moving the others', () => {
    const lines = formatTable(ROWS, COLUMNS, { width: 80, color: true })
    assert.equal(lines[1], '\x1b[32mone\x1b[0m        5 B  a note that is long')
  })

  test('counts two columns for wide characters, none for marks, and shows nothing that steers a terminal', () => {
    assert.equal(textWidth('树莓派'), 6)
    assert.equal(textWidth('e\u0301'), 1)
    assert.equal(textWidth('🚀'), 2)
    assert.equal(cutTo('家里的树莓派', 7), '家里的…')
    assert.equal(cutTo('家里的树莓派', 12), '家里的树莓派')
    assert.equal(printable('a\x1b[31mb\nc\u202ed\0'), 'a[31mb cd')
    const rows = [{ id: '树莓派', size: 1, note: '\x1b]0;title\x07\x9b31m' }]
    assert.deepEqual(formatTable(rows, COLUMNS, { width: 80, color: false }), [
      'ID      SIZE  NOTE',
      '树莓派   1 B  ]0;title31m',
    ])
  })
})

describe('the tables of nodes, mappings and connections', () => {
  const totals = { bytesIn: 1_234_567, bytesOut: 9_876_543_210, connections: 1234, live: 56 }
  const nodes = [connectedNode('office', totals), someNode(LONG_ID, { enabled: false }), someNode('树莓派')]
  const mappings = [
    someMapping('1', { nodes: ['office', 'other'], note: 'the page of the office, as everybody sees it', totals }),
    someMapping('12', {
      listen: { Domain: 'udp', Addr: ':53' },
      state: 'failed',
      problem: 'cannot listen on :53: ports below 1024 need root',
      source: 'config',
    }),
  ]
  const connections = [
    { instance: 'i', id: 1, node: 'office', from: '192.0.2.1:5', created: START, bytesIn: 1, bytesOut: 2 },
  ]
  const at = (width: number): string[][] => [
    formatTable(nodes, nodeColumns({ now: NOW }), { width, color: false }),
    formatTable(mappings, mappingColumns({ now: NOW }), { width, color: false }),
    formatTable(connections, connectionColumns({ now: NOW }), { width, color: false }),
  ]

  for (const width of [80, 200]) {
    test(`fit ${width} columns, ids whole`, () => {
      const lines = at(width).flat()
      for (const line of lines) assert.ok(textWidth(line) <= Math.max(width, 77), line)
      for (const name of [LONG_ID, '树莓派', 'office', '12']) {
        assert.ok(lines.some((line) => line.startsWith(name)))
      }
    })
  }

  test('at 200 columns show all there is', () => {
    const [nodeLines, mappingLines, connectionLines] = at(200)
    assert.deepEqual(
      nodeLines?.map((line) => line.replace(/ {2,}/g, '|')),
      [
        'NODE|STATE|FROM|VIA|RTT|IN|OUT|OPEN|TOTAL|SINCE',
        'office|connected|192.0.2.7:41234|tcp|12 ms|1.2 MiB|9.2 GiB|56|1234|3m',
        `${LONG_ID}|disabled|0 B|0 B|0|0`,
        '树莓派|away|0 B|0 B|0|0',
      ],
    )
    assert.deepEqual(
      mappingLines?.map((line) => line.replace(/ {2,}/g, '|')),
      [
        'MAPPING|STATE|LISTEN|TARGET|NODES|IN|OUT|OPEN|TOTAL|FROM|NOTE',
        '1|ready|:8078|127.0.0.1:8077|office +1|1.2 MiB|9.2 GiB|56|1234|the page of the office, as everybody sees it',
        '12|failed|udp://:53|127.0.0.1:8077|any|0 B|0 B|0|0|config',
      ],
    )
    assert.deepEqual(
      connectionLines?.map((line) => line.replace(/ {2,}/g, '|')),
      ['FROM|NODE|IN|OUT|AGE', '192.0.2.1:5|office|1 B|2 B|3m'],
    )
    assert.deepEqual(problemLines(mappings), ['mapping 12: cannot listen on :53: ports below 1024 need root'])
  })

  test('at 40 columns show what is called how, and in which state it is', () => {
    const [nodeLines, mappingLines] = at(40)
    assert.equal(nodeLines?.[1]?.replace(/ {2,}/g, '|'), 'office|connected')
    assert.match(String(mappingLines?.[1]), /^1 +ready/)
    for (const line of mappingLines ?? []) assert.ok(textWidth(line) <= 40, line)
  })

  test('have rates only where there are some', () => {
    const rates = new Map([['node office', { in: 2048, out: 0 }]])
    const [head, line] = formatTable(nodes, nodeColumns({ now: NOW, rates }), { width: 200, color: false })
    assert.match(String(head), / IN\/S /)
    assert.doesNotMatch(String(head), /OUT\/S/)
    assert.match(String(line), / 2\.0 KiB\/s /)
  })
})

test('bytes have three figures and a unit', () => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [10_240, '10 KiB'],
    [1_022_976, '999 KiB'],
    [1_023_999, '1.0 MiB'],
    [5 * 2 ** 30, '5.0 GiB'],
    [Number.MAX_SAFE_INTEGER, '8.0 PiB'],
  ]
  for (const [bytes, text] of cases) assert.equal(formatBytes(bytes), text)
})

test('ages are in one unit', () => {
  const cases: [number, string][] = [
    [0, '0s'],
    [999, '0s'],
    [59_999, '59s'],
    [180_000, '3m'],
    [7_200_000, '2h'],
    [14 * 86_400_000, '14d'],
  ]
  for (const [ms, text] of cases) assert.equal(formatAge(ms), text)
  assert.equal(formatSince(START, NOW), '3m')
  assert.equal(formatSince(undefined, NOW), '')
  assert.equal(formatSince('garbage', NOW), '')
  assert.equal(formatSince(START, 0), '0s', 'clocks differ')
})
