import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { createMetrics } from '../../../lib/admin/metrics.ts'
import { Tally } from '../../../lib/admin/tally.ts'
import { WebCounter } from '../../../lib/domains/web-figures.ts'
import { dashboardQueries } from '../../helpers/admin/dashboard.ts'
import { FakeOperations } from '../../helpers/admin/fake-operations.ts'
import { projectPath } from '../../helpers/core/project.ts'

/** The names of all metrics, each with its type. */
async function metricTypes(): Promise<Map<string, string>> {
  const operations = new FakeOperations()
  const counter = new WebCounter()
  operations.webFigures = () => counter.read()
  const { text } = await createMetrics({ operations, tally: new Tally() })
  return new Map([...(await text()).matchAll(/^# TYPE (\w+) (\w+)$/gm)].map(([, name = '', type = '']) => [name, type]))
}

test('the page about metrics has each of them', async () => {
  const page = readFileSync(projectPath('doc/metrics.md'), 'utf8')
  const told = [...page.matchAll(/^\| (`symport_.*?`) \|/gm)].flatMap(([, cell = '']) => cell.match(/\w+/g) ?? [])
  assert.deepEqual(told.sort(), [...(await metricTypes()).keys()].sort())
})

test('the dashboard asks for what there is, and shows all there is', async () => {
  const names = [...(await metricTypes())].flatMap(([name, type]) =>
    type === 'histogram' ? ['_bucket', '_sum', '_count'].map((part) => `${name}${part}`) : [name],
  )
  assert.ok(names.length > 25, names.join())
  const asked = dashboardQueries().flatMap((query) => query.match(/\bsymport_\w+/g) ?? [])
  assert.deepEqual([...new Set(asked)].sort(), [...names].sort())
})

test('every panel of the dashboard has a place of its own, a title and queries', () => {
  const { panels } = JSON.parse(readFileSync(projectPath('doc/grafana/symport.json'), 'utf8'))
  const taken = new Set<string>()
  const ids = new Set<number>()
  for (const { id, type, title, gridPos, targets } of panels) {
    assert.ok(title && !ids.has(id), `${id}: ${title}`)
    ids.add(id)
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        assert.ok(x < 24 && !taken.has(`${x},${y}`), title)
        taken.add(`${x},${y}`)
      }
    }
    assert.equal(type === 'row', targets === undefined, title)
  }
})
