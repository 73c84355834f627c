import assert from 'node:assert/strict'
import test from 'node:test'
import { certificateColumns } from '../../../../apps/common/operator-tables.ts'
import { formatTable } from '../../../../apps/common/table.ts'

test('a certificate stands with its end, in another colour if that is near', () => {
  const now = Date.parse('2030-01-01T00:00:00Z')
  const rows = [
    { name: 'a.example.com', begins: '2029-12-01T00:00:00.000Z', ends: '2030-03-01T12:34:56.000Z' },
    { name: 'b.example.com', begins: '2029-10-07T00:00:00.000Z', ends: '2030-01-05T00:00:00.000Z' },
    { name: 'c.example.com', problem: 'nobody could be asked' },
  ]
  const columns = certificateColumns({ now })
  assert.deepEqual(formatTable(rows, columns, { width: 80, color: false }), [
    'CERTIFICATE    ENDS',
    'a.example.com  2030-03-01 12:34 UTC',
    'b.example.com  2030-01-05 00:00 UTC',
    'c.example.com  none',
  ])
  assert.deepEqual(
    rows.map((row) => columns[1]?.color?.(row)),
    [undefined, 'yellow', 'yellow'],
  )
})
