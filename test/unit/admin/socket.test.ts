import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { dirname } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, test } from 'node:test'
import { startAdmin } from '../../../lib/admin/admin.ts'
import { adminSocket } from '../../../lib/admin/socket-path.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { ask, serveAdmin, temporaryFolder } from '../../helpers/admin/client.ts'
import { FakeOperations } from '../../helpers/admin/fake-operations.ts'
import { Child } from '../../helpers/system/child.ts'

describe('the socket in the state folder', { concurrency: 4 }, () => {
  test('is for its owner alone, and gone with the server', async (t) => {
    const { admin, folder, ask } = await serveAdmin(t)
    assert.equal(admin.socket, folder.file('admin.sock'))
    assert.equal(statSync(folder.path).mode & 0o777, 0o700)
    assert.equal(statSync(folder.file('admin.sock')).mode & 0o777, 0o600)
    assert.equal((await ask('GET', '/healthz')).status, 200)
    assert.equal(existsSync(folder.file('admin-token')), false, 'no token without TCP')
    await admin.close()
    assert.equal(existsSync(folder.file('admin.sock')), false)
  })

  test('is for its owner alone in a folder that others may read', async (t) => {
    const folder = temporaryFolder(t)
    mkdirSync(folder.path)
    chmodSync(folder.path, 0o755)
    await serveAdmin(t, { folder })
    assert.equal(statSync(folder.file('admin.sock')).mode & 0o777, 0o600)
    assert.equal(statSync(folder.path).mode & 0o777, 0o755, 'the folder is somebody else’s')
    writeFileSync(folder.file('later'), '')
    assert.notEqual(statSync(folder.file('later')).mode & 0o400, 0)
  })

  test('that a killed server left behind is taken over', async (t) => {
    const folder = temporaryFolder(t)
    mkdirSync(folder.path)
    const path = folder.file('admin.sock')
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('listening'))`
    const child = await Child.start(process.execPath, ['-e', script])
    await child.line((line) => (line === 'listening' ? true : undefined), 'that it listens')
    await child.stop('SIGKILL')
    assert.ok(existsSync(path))
    const { ask } = await serveAdmin(t, { folder })
    assert.equal((await ask('GET', '/healthz')).status, 200)
  })

  test('of a server that runs is an error in plain words, and goes on working', async (t) => {
    const first = await serveAdmin(t)
    await assert.rejects(serveAdmin(t, { folder: first.folder }), {
      code: 'PROXY_ERR_STATE',
      message: `another server runs with the state folder ${first.folder.path}: --state takes another one`,
    })
    assert.equal((await first.ask('GET', '/healthz')).status, 200)
  })

  test('where a file lies already is an error, and the file stays', async (t) => {
    const folder = temporaryFolder(t)
    await folder.write('admin.sock', 'precious')
    await assert.rejects(serveAdmin(t, { folder }), { code: 'PROXY_ERR_STATE', message: /not a socket/ })
    assert.equal((await folder.read('admin.sock'))?.text, 'precious')
  })

  test('whose path is too long is told, and the server runs without', async (t) => {
    const short = temporaryFolder(t)
    const long = new StateFolder(short.file('x'.repeat(106 - short.path.length - '//admin.sock'.length)))
    assert.equal(Buffer.byteLength(adminSocket(long)), 106)
    const longer = new StateFolder(`${long.path}yy`)
    const { admin, errors } = await serveAdmin(t, { folder: longer, tcp: { host: '127.0.0.1', port: 0 } })
    assert.equal(admin.socket, undefined)
    assert.equal(errors[0]?.code, 'PROXY_ERR_LISTEN_FAILED')
    assert.match(errors[0]?.message ?? '', /too long for a Unix socket \(108 bytes/)
    assert.equal((await ask(String(admin.address), 'GET', '/healthz')).status, 200)
    const fits = await serveAdmin(t, { folder: new StateFolder(`${long.path}y`) })
    assert.equal((await fits.ask('GET', '/healthz')).status, 200)
  })

  test('a folder that cannot be made is an error', async (t) => {
    const folder = temporaryFolder(t)
    await folder.write('file', '')
    const inFile = new StateFolder(folder.file('file/state'))
    await assert.rejects(serveAdmin(t, { folder: inFile }), { code: 'PROXY_ERR_STATE' })
  })

  test('is there before there is anything to serve: whoever asks then waits, and another server is an error', async (t) => {
    const { folder } = await serveAdmin(t).then(async (served) => {
      await served.admin.close()
      return served
    })
    const admin = await startAdmin({ folder })
    t.after(() => admin.close())
    const early = [1, 2].map(() => ask(String(admin.socket), 'GET', '/api/v1/status'))
    await assert.rejects(startAdmin({ folder }), { code: 'PROXY_ERR_STATE' })
    const operations = new FakeOperations()
    admin.serve(operations)
    admin.serve(new FakeOperations())
    for (const answer of await Promise.all(early)) assert.deepEqual(answer.json, operations.status())
    assert.equal(operations.listeners.size, 1)
  })

  test('that never had anything to serve ends at once, and so do those who wait', async (t) => {
    const admin = await startAdmin({ folder: temporaryFolder(t) })
    const waiting = assert.rejects(ask(String(admin.socket), 'GET', '/healthz'))
    const probe = connect(String(admin.socket))
    await once(probe, 'connect')
    const started = performance.now()
    await admin.close()
    assert.ok(performance.now() - started < 1000)
    await waiting
    probe.destroy()
  })

  test('on Windows is a pipe of its own for each folder', () => {
    const [one, two] = ['/a', '/b'].map((path) => adminSocket(new StateFolder(path), 'win32'))
    assert.match(String(one), /^\\\\\.\\pipe\\symport-[0-9a-f]{32}$/)
    assert.notEqual(one, two)
  })

  test('garbage is answered with 400 or nothing, and costs nobody else anything', async (t) => {
    const { admin, ask } = await serveAdmin(t)
    const path = String(admin.socket)
    for (const garbage of [
      '\0\0\0\0',
      'GET',
      'GET / HTTP/9.9\r\n\r\n',
      `GET /${'x'.repeat(70_000)} HTTP/1.1\r\n\r\n`,
    ]) {
      const socket = connect(path)
      socket.on('error', () => {})
      socket.end(garbage)
      assert.match(await text(socket).catch(() => ''), /^$|^HTTP\/1\.1 4/)
    }
    const cut = connect(path)
    await once(cut, 'connect')
    cut.destroy()
    const half = connect(path)
    half.write(
      'POST /api/v1/nodes HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"id"',
    )
    await once(half, 'connect')
    half.destroy()
    assert.equal((await ask('GET', '/healthz')).status, 200)
  })
})

describe('closing', () => {
  test('answers what is under way, and takes nothing new', async (t) => {
    const { admin, operations, ask } = await serveAdmin(t)
    await ask('GET', '/healthz')
    let open = (): void => {}
    operations.gate = new Promise((resolve) => {
      open = resolve
    })
    const added = ask('POST', '/api/v1/nodes', { body: { id: 'a' } })
    const idle = connect(String(admin.socket))
    await once(idle, 'connect')
    await ask('GET', '/healthz')
    const closed = admin.close()
    await new Promise((resolve) => setImmediate(resolve))
    await assert.rejects(ask('GET', '/healthz'))
    open()
    assert.equal((await added).status, 201)
    await closed
    assert.equal(operations.listeners.size, 0)
  })

  test('takes at most 2 s, whatever hangs', async (t) => {
    const { admin, operations, ask } = await serveAdmin(t)
    operations.gate = new Promise(() => {})
    const hanging = ask('POST', '/api/v1/nodes', { body: { id: 'a' } })
    const cut = assert.rejects(hanging)
    await ask('GET', '/healthz')
    const started = performance.now()
    await admin.close()
    await admin.close()
    assert.ok(performance.now() - started < 2000)
    await cut
  })

  test('before the first connection loads nothing and leaves nothing', async (t) => {
    const folder = temporaryFolder(t)
    const operations = new FakeOperations()
    const admin = await startAdmin({ operations, folder })
    await admin.close()
    assert.equal(operations.listeners.size, 0)
    assert.equal(existsSync(folder.file('admin.sock')), false)
    assert.ok(existsSync(dirname(folder.file('x'))))
  })

  test('a start with it loads neither fastify nor prom-client nor node:http', async () => {
    const module = new URL('../../../lib/admin/admin.js', import.meta.url).href
    const script = `
      await import(${JSON.stringify(module)})
      const { createRequire } = await import('node:module')
      const loaded = Object.keys(createRequire(import.meta.url).cache)
      console.log(JSON.stringify([process.moduleLoadList.includes('NativeModule http'), loaded]))`
    const child = await Child.start(process.execPath, ['--input-type=module', '-e', script])
    await child.exited
    assert.deepEqual(JSON.parse(child.lines.join('')), [false, []])
  })

  test('a server of Node that is not ours is left alone', async (t) => {
    const folder = temporaryFolder(t)
    mkdirSync(folder.path)
    const other = createServer().listen(folder.file('admin.sock'))
    t.after(() => other.close())
    await once(other, 'listening')
    await assert.rejects(serveAdmin(t, { folder }), { code: 'PROXY_ERR_STATE' })
    assert.ok(existsSync(folder.file('admin.sock')))
  })
})
