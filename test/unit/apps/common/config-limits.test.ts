import assert from 'node:assert/strict'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { loadConfig, readConfig } from '../../../../apps/common/config.ts'
import { diffConfig } from '../../../../apps/common/config-diff.ts'

async function folderOf(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'symport-limits-'))
  t.after(() => rm(folder, { recursive: true }))
  return folder
}

async function file(folder: string, text: string, mode = 0o600): Promise<string> {
  const path = join(folder, 'server.toml')
  await writeFile(path, text)
  await chmod(path, mode)
  return path
}

const MAPPING = 'listen = ":8078"\nforward = "127.0.0.1:8077"\n'
const SITE = 'listen = "web://shop.example.com"\nforward = "127.0.0.1:3000"\n'

test('limits of a mapping and of each node are read in bytes, with dashes or underscores', async (t) => {
  const folder = await folderOf(t)
  const path = await file(
    folder,
    `[node_limits]
out = "10Mbit/s"
visitor = { connections = 9 }
[[mapping]]
${MAPPING}
[mapping.limits]
in = "1MB/s"
out = 500_000
connections = 200
rate = 5
quota = "50GB"
visitor = { in = "100kb", rate = 1 }
allow = ["192.0.2.0/24", "2001:db8::/32"]
deny = "192.0.2.66"
[[mapping]]
listen = ":8079"
forward = "127.0.0.1:8077"
`,
  )
  const config = await loadConfig(path, 'server')
  assert.deepEqual(config.nodeLimits, { out: 1_250_000, visitor: { connections: 9 } })
  const [limited, plain] = config.listeners
  assert.deepEqual(limited?.limits, {
    ...{ in: 1_000_000, out: 500_000, connections: 200, rate: 5, quota: 50_000_000_000 },
    visitor: { in: 100_000, rate: 1 },
    ...{ allow: ['192.0.2.0/24', '2001:db8::/32'], deny: ['192.0.2.66'] },
  })
  assert.deepEqual([plain?.limits, plain?.http], [undefined, undefined])
})

test('what is done to requests is read, the page from its file beside', async (t) => {
  const folder = await folderOf(t)
  await writeFile(join(folder, 'down.html'), '<h1>Back soon</h1>')
  const hash = `$scrypt$ln=15,r=8,p=1$${'A'.repeat(22)}$${'B'.repeat(43)}`
  const text = `[[mapping]]
${SITE}
[mapping.http]
basic_auth = ["joe:pass:word", "ann:${hash}"]
request_headers = ["X_Env: a:b ", "Cookie:"]
response-headers = "Server:"
host_header = "rewrite"
maintenance = "down.html"
inspect = true
`
  const path = await file(folder, text)
  const config = await loadConfig(path, 'server')
  assert.deepEqual(config.listeners[0]?.http, {
    basicAuth: { joe: { password: 'pass:word' }, ann: hash },
    requestHeaders: { X_Env: 'a:b', Cookie: null },
    responseHeaders: { Server: null },
    ...{ hostHeader: 'rewrite', maintenance: '<h1>Back soon</h1>', inspect: true },
  })
  assert.deepEqual(config.warnings, [])
  const exposed = await loadConfig(await file(folder, text, 0o644), 'server')
  assert.match(exposed.warnings.join(), /holds a secret, and every user of this machine can read it/)
  for (const [page, why] of [
    ['gone.html', /mapping\[0\]\.http\.maintenance: cannot read .*gone\.html: there is no such file/],
    ['.', /it is a folder/],
  ] as const) {
    await assert.rejects(loadConfig(await file(folder, text.replace('down.html', page)), 'server'), {
      code: 'PROXY_ERR_CONFIG',
      message: why,
    })
  }
  await writeFile(join(folder, 'down.html'), 'x'.repeat(65_537))
  await assert.rejects(loadConfig(await file(folder, text), 'server'), /a page has at most 65536 bytes/)
})

test('what is wrong is told by its key, and no password is shown', async (t) => {
  const folder = await folderOf(t)
  const path = await file(
    folder,
    `[node-limits]
inn = 5
visitor = { quota = 1 }
[[mapping]]
${SITE}
[mapping.limits]
in = "1Mb/s"
out = 0
connections = "many"
rate = 1.5
quota = "50GB/s"
allow = ["10.0.0.0/33"]
deny = ["2001:db8::/32"]
[mapping.http]
basic-auth = ["hunter2", "joe:", "__proto__:hunter2"]
request-headers = ["X-A", "X-B: ä", "Host: x"]
host-header = "a b"
maintenance = 5
inspct = true
`,
  )
  const { problems } = await readConfig(path, 'server')
  const told = problems.map(({ key, message }) => `${key}: ${message}`).sort()
  for (const [i, expected] of [
    /^mapping\[0\]\.http\.basic-auth\[0\]: write NAME:PASSWORD$/,
    /^mapping\[0\]\.http\.basic-auth\[1\]: write NAME:PASSWORD$/,
    /^mapping\[0\]\.http\.basic-auth\[2\]: that is no name here$/,
    /^mapping\[0\]\.http\.host-header: a host/,
    /^mapping\[0\]\.http\.inspct: unknown key: did you mean inspect\?$/,
    /^mapping\[0\]\.http\.maintenance: write true or false/,
    /^mapping\[0\]\.http\.request-headers\[0\]: write "NAME: VALUE"/,
    /^mapping\[0\]\.http\.request-headers\[1\]: the value of a header/,
    /^mapping\[0\]\.http\.request-headers\[2\]: .*not one of them$/,
    /^mapping\[0\]\.limits\.allow\[0\]: .*CIDR/,
    /^mapping\[0\]\.limits\.connections: write a number/,
    /^mapping\[0\]\.limits\.in: "1Mb" may be bytes or bits/,
    /^mapping\[0\]\.limits\.out: at least 1$/,
    /^mapping\[0\]\.limits\.quota: "50GB\/s" is no size/,
    /^mapping\[0\]\.limits\.rate: write a whole number$/,
    /^node-limits\.inn: unknown key: did you mean in\?$/,
    /^node-limits\.visitor\.quota: unknown key: known are in, out, connections, rate$/,
  ].entries()) {
    assert.match(told[i] ?? 'nothing', expected)
  }
  assert.equal(told.length, 17)
  assert.doesNotMatch(told.join(), /hunter2/)
  for (const [text, why] of [
    [`role = "node"\n[node-limits]\nin = 1\n`, /node-limits/],
    [`role = "node"\nserver = "x"\n[[listener]]\n${MAPPING}limits = { in = 1 }\n`, /limits: unknown key/],
    [`[[peer-listener]]\n${MAPPING}limits = { in = 1 }\n`, /limits: unknown key/],
  ] as const) {
    await assert.rejects(loadConfig(await file(folder, text)), why)
  }
})

test('other limits of nodes hold at once, and a restart is not asked for', async (t) => {
  const folder = await folderOf(t)
  const [before, after] = [
    await loadConfig(await file(folder, ''), 'server'),
    await loadConfig(await file(folder, `node-limits = { in = "1MB" }\n[[mapping]]\n${MAPPING}`), 'server'),
  ]
  const diff = diffConfig(before, after)
  assert.deepEqual([diff.live, diff.restart, diff.mappings], [['node-limits'], [], true])
  assert.deepEqual(diffConfig(after, after).changes, [])
})
