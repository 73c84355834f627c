import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { closeSync, openSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { cleanEnvironment } from '../helpers/system/child.ts'
import { sha256 } from '../helpers/system/net.ts'
import { PASSWORD, startPostgres } from '../helpers/system/postgres.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, startTunnel } from '../helpers/system/symport.ts'

const ROWS = 600_000

/** A file for COPY with `count` rows of a number and a text, and its SHA-256. */
function writeRows(path: string, count: number): string {
  const hash = createHash('sha256')
  const file = openSync(path, 'w')
  for (let i = 0; i < count; ) {
    let block = ''
    for (const end = Math.min(i + 10_000, count); i < end; i++) {
      block += `${i}\t${createHash('sha1').update(String(i)).digest('base64')} äöü 木\n`
    }
    hash.update(block)
    writeSync(file, block)
  }
  closeSync(file)
  return hash.digest('hex')
}

test('psql works through the tunnel to a real PostgreSQL', { timeout: 180_000 }, async (t) => {
  const programs = requirePrograms(t, ['initdb', 'postgres', 'psql'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const cluster = await startPostgres(stage, programs.initdb, programs.postgres)

  const psql = (at: Address, command: string, password = PASSWORD): [string, string[], { env: NodeJS.ProcessEnv }] => {
    const login = ['-h', at.host, '-p', String(at.port), '-U', 'postgres', '-d', 'postgres']
    const env = cleanEnvironment({ PGPASSWORD: password, PGCLIENTENCODING: 'UTF8', PGCONNECT_TIMEOUT: '15' })
    return [programs.psql, ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', ...login, '-c', command], { env }]
  }

  const { address } = await startTunnel(stage, 'listener', `tcp://127.0.0.1:${cluster.port}`)

  await t.test('a query is answered', async () => {
    assert.equal(await stage.must(...psql(address, 'select 6 * 7')), '42')
    assert.equal(await stage.must(...psql(address, 'select inet_server_port()')), String(cluster.port))
  })

  await t.test('a wrong password is refused by the database', async () => {
    const { status, output } = await stage.run(...psql(address, 'select 1', 'wrong'))
    assert.notEqual(status, 0)
    assert.match(output, /password authentication failed/)
  })

  await t.test('a big COPY in and out keeps every byte', async () => {
    const expected = writeRows(stage.path('rows'), ROWS)
    await stage.must(...psql(address, 'create table rows (id int primary key, note text)'))
    const [program, copyIn, options] = psql(address, 'copy rows from stdin')
    await stage.must(program, copyIn, { ...options, from: stage.path('rows') })
    assert.equal(await stage.must(...psql(address, 'select count(*), max(id) from rows')), `${ROWS}|${ROWS - 1}`)
    const [, copyOut] = psql(address, 'copy (select * from rows order by id) to stdout')
    await stage.must(program, copyOut, { ...options, to: stage.path('rows-back') })
    assert.equal(await sha256(stage.path('rows-back')), expected)
  })
})

test("a port of the server's leads to PostgreSQL's Unix socket on the node", { timeout: 120_000 }, async (t) => {
  const programs = requirePrograms(t, ['initdb', 'postgres', 'psql'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const cluster = await startPostgres(stage, programs.initdb, programs.postgres)
  const { address } = await startTunnel(stage, 'listener', `unix://${cluster.socket}`)
  const login = `host=${address.host} port=${address.port} user=postgres dbname=postgres connect_timeout=15`
  const env = cleanEnvironment({ PGPASSWORD: PASSWORD })
  // Null: the session came in by the Unix socket.
  const query = 'select inet_server_port() is null'
  assert.equal(await stage.must(programs.psql, ['-X', '-A', '-t', '-d', login, '-c', query], { env }), 't')
})
