import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { dashboardQueries } from '../helpers/admin/dashboard.ts'
import { eventually, freePort, startWebPage } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { listenersReady } from '../helpers/system/publish.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, startNode, startServer } from '../helpers/system/symport.ts'

interface Answer {
  readonly status: string
  readonly data: { readonly result: readonly { readonly value: readonly [number, string] }[] }
}

/** What has something to tell in this test, by a word of the query. */
const KNOWN = [
  'symport_nodes_connected',
  'symport_bytes_out_total',
  'symport_http_requests_total',
  'symport_http_request_duration_seconds_bucket',
  'symport_limited_total',
  'symport_process_start_time_seconds',
  'symport_info',
]

test('Prometheus reads the metrics, and answers all that the dashboard asks', async (t) => {
  const programs = requirePrograms(t, ['curl', 'prometheus', 'promtool'])
  if (!programs) return
  const stage = new Stage(t)
  const page = await startWebPage(stage, 'measured')
  writeFileSync(
    stage.path('server.toml'),
    [
      'admin = { listen = "127.0.0.1:0" }',
      'allow-names = ["app.example.test"]',
      '[[mapping]]',
      'listen = "127.0.0.1:0"',
      `forward = "127.0.0.1:${page}"`,
      'limits = { deny = ["127.0.0.0/8"] }',
    ].join('\n'),
  )
  const { child: server, address } = await startServer(stage, ['--config', stage.path('server.toml')])
  const admin = new URL(String((await logged(server, 'admin API ready')).address).replace(/^(?!http)/, 'http://'))
  const { listen } = await logged(server, 'listener ready')
  const name = `http://127.0.0.1:${page}?mode=domain&value=app.example.test`
  await listenersReady(await startNode(stage, address, ['-R', name]), 1)
  const visit = async (): Promise<void> => {
    const curl = ['-q', '--silent', '--show-error', '--max-time', '10', '--noproxy', '*']
    const url = `http://127.0.0.1:${address.port}/`
    const asked = await stage.must(programs.curl, [...curl, '--header', 'Host: app.example.test', url])
    assert.match(asked, /measured/)
    const { status } = await stage.run(programs.curl, [...curl, `http://${String(listen).replace('tcp://', '')}/`])
    assert.notEqual(status, 0, 'the mapping lets nobody of this machine in')
  }
  await visit()

  const token = readFileSync(stage.path('server-state', 'admin-token'), 'utf8').trim()
  const metrics = await (
    await fetch(new URL('/metrics', admin), { headers: { authorization: `Bearer ${token}` } })
  ).text()
  writeFileSync(stage.path('metrics.txt'), metrics)
  const checkScript = `exec '${programs.promtool}' check metrics < '${stage.path('metrics.txt')}'`
  assert.equal(await stage.must('/bin/sh', ['-c', checkScript]), '')

  const port = await freePort()
  writeFileSync(stage.path('token'), token, { mode: 0o600 })
  writeFileSync(
    stage.path('prometheus.yml'),
    `global: { scrape_interval: 1s }
scrape_configs:
  - job_name: symport
    authorization: { credentials_file: ${stage.path('token')} }
    static_configs: [{ targets: ['${admin.host}'] }]
`,
  )
  await stage.start(programs.prometheus, [
    `--config.file=${stage.path('prometheus.yml')}`,
    `--storage.tsdb.path=${stage.path('tsdb')}`,
    `--web.listen-address=127.0.0.1:${port}`,
  ])
  const query = async (text: string): Promise<Answer> => {
    const response = await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(text)}`)
    const answer: Answer = JSON.parse(await response.text())
    return answer
  }
  // A rate takes two looks.
  await eventually(async () => {
    await visit()
    const { data } = await query('rate(symport_http_requests_total{code="2xx"}[1m])')
    assert.ok(Number(data.result[0]?.value[1]) > 0)
  })
  for (const expression of dashboardQueries()) {
    const asked = expression.replaceAll('$__rate_interval', '1m').replace(/\$(?:job|instance)\b/g, '.*')
    const { status, data } = await query(asked)
    assert.equal(status, 'success', expression)
    // Nothing has failed here.
    if (expression.includes('5xx')) continue
    if (KNOWN.some((name) => expression.includes(name))) assert.ok(data.result.length > 0, expression)
  }
})
