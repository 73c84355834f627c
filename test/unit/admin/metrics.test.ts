import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ProxyError } from '../../../lib/core/errors.ts'
import { WebCounter } from '../../../lib/domains/web-figures.ts'
import { type Served, serveAdmin } from '../../helpers/admin/client.ts'
import { connectedNode, someMapping, someNode } from '../../helpers/admin/fake-operations.ts'

async function scrape({ ask }: Served): Promise<Map<string, number>> {
  const { status, headers, text } = await ask('GET', '/metrics')
  assert.equal(status, 200)
  assert.match(String(headers['content-type']), /^text\/plain; version=0\.0\.4/)
  const values = new Map<string, number>()
  const types = new Map<string, string>()
  for (const line of text.split('\n')) {
    const [, name, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? []
    if (name !== undefined && type !== undefined) types.set(name, type)
    const [, series, family, value] = /^((\w+)(?:\{.*\})?) (\S+)$/.exec(line) ?? []
    if (line.startsWith('#') || line === '') continue
    assert.ok(series !== undefined && family !== undefined, line)
    assert.match(family, /^symport_/)
    const part = family.replace(/_(?:bucket|sum|count)$/, '')
    if (types.get(part) === 'histogram') assert.ok(!types.has(family), family)
    else assert.equal(family.endsWith('_total'), types.get(family) === 'counter', family)
    values.set(series, Number(value))
  }
  return values
}

describe('metrics', () => {
  test('say what the operations say, at each scrape', async (t) => {
    const served = await serveAdmin(t)
    const { operations } = served
    const totals = { bytesIn: 1000, bytesOut: 2000, connections: 5, live: 2 }
    operations.totals = totals
    operations.nodeList.push({ ...connectedNode('a', totals), limited: { quota: 3 } }, someNode('b"\n\\'))
    const limited = { denied: 7, 'visitor-rate': 9 }
    operations.mappingList.push(someMapping('1', { totals, limited }), someMapping('2', { state: 'failed' }))
    const peer = { id: 'a' }
    const first = await scrape(served)
    assert.deepEqual(
      [
        'symport_bytes_in_total',
        'symport_bytes_out_total',
        'symport_connections_total',
        'symport_connections',
        'symport_node_bytes_in_total{node="a"}',
        'symport_node_connections{node="a"}',
        'symport_mapping_bytes_out_total{mapping="1"}',
        'symport_nodes_connected',
        'symport_nodes_enrolled',
        'symport_mappings{state="ready"}',
        'symport_mappings{state="failed"}',
        'symport_mappings{state="no node"}',
        'symport_main_connections{state="connected"}',
        'symport_info{version="9.9.9"}',
        'symport_resumes_total',
        'symport_limited_total{mapping="1",kind="denied"}',
        'symport_limited_total{mapping="1",kind="visitor-rate"}',
        'symport_limited_total{node="a",kind="quota"}',
      ].map((name) => first.get(name)),
      [1000, 2000, 5, 2, 1000, 2, 2000, 1, 2, 1, 1, 0, 1, 1, 0, 7, 9, 3],
    )
    assert.ok(first.has('symport_node_bytes_in_total{node="b\\"\\n\\\\"}'))
    assert.ok((first.get('symport_process_cpu_seconds_total') ?? 0) > 0)
    assert.ok((first.get('symport_process_resident_memory_bytes') ?? 0) > 0)
    assert.ok(Math.abs((first.get('symport_process_start_time_seconds') ?? 0) - Date.now() / 1000) < 3600)

    operations.totals = { ...totals, bytesIn: 1500 }
    operations.certificates = [
      { name: 'a.example.com', begins: '2026-01-01T00:00:00.000Z', ends: '2026-04-01T00:00:00.000Z' },
      { name: '*.example.com', problem: 'the CA has a problem' },
    ]
    operations.nodeList.splice(0)
    const counter = new WebCounter()
    counter.begin('app.example.com').over(200)
    counter.begin('app.example.com').over()
    const slow = counter.begin('')
    slow.answered(101)
    slow.over()
    operations.webFigures = () => counter.read()
    const reason = new ProxyError('PROXY_ERR_REFUSED', 'no')
    for (let i = 0; i < 3; i++) operations.emit({ type: 'rejected', remote: undefined, reason })
    const second = await scrape(served)
    assert.equal(second.get('symport_bytes_in_total'), 1500)
    const ends = (name: string): string => `symport_certificate_not_after_timestamp_seconds{name="${name}"}`
    assert.equal(second.get(ends('a.example.com')), Date.UTC(2026, 3, 1) / 1000)
    assert.equal(second.get(ends('*.example.com')), 0)
    assert.equal(second.get('symport_http_requests_total{host="app.example.com",code="2xx"}'), 1)
    assert.equal(second.get('symport_http_requests_total{host="app.example.com",code="none"}'), 1)
    assert.equal(second.get('symport_http_requests_total{host="",code="1xx"}'), 1)
    const duration = 'symport_http_request_duration_seconds'
    assert.equal(second.get(`${duration}_bucket{le="+Inf"}`), 2)
    assert.equal(second.get(`${duration}_count`), 2)
    assert.equal(second.get(`${duration}_bucket{le="0.5"}`), 2)
    assert.ok((second.get(`${duration}_sum`) ?? 1) < 0.5)
    assert.equal(second.get('symport_rejected_handshakes_total{code="PROXY_ERR_REFUSED"}'), 3)
    assert.equal(second.has('symport_node_bytes_in_total{node="a"}'), false, 'no label outlives what it names')
    assert.equal(peer.id, 'a')
  })

  test('count rejections before anybody asks, and their codes are bounded', async (t) => {
    const served = await serveAdmin(t)
    for (let i = 0; i < 1000; i++) {
      const reason = new ProxyError(`PROXY_ERR_X${i}`, 'no')
      served.operations.emit({ type: 'rejected', remote: undefined, reason })
    }
    const values = await scrape(served)
    const codes = [...values].filter(([name]) => name.startsWith('symport_rejected_handshakes_total'))
    assert.equal(codes.length, 65)
    assert.equal(values.get('symport_rejected_handshakes_total{code="other"}'), 936)
  })

  test('have labels for a bounded number of nodes, the enrolled ones first, and sum the others up', async (t) => {
    const served = await serveAdmin(t)
    const totals = { bytesIn: 1, bytesOut: 2, connections: 3, live: 4 }
    for (let i = 0; i < 2500; i++) served.operations.nodeList.push(someNode(`s${i}`, { enrolled: false, totals }))
    served.operations.nodeList.push(someNode('mine', { totals }))
    const values = await scrape(served)
    const named = [...values.keys()].filter((name) => name.startsWith('symport_node_bytes_in_total'))
    assert.equal(named.length, 2001)
    assert.equal(values.get('symport_node_bytes_in_total{node="mine"}'), 1)
    assert.equal(values.get('symport_node_connections{node="other"}'), 4 * 501)
  })
})
