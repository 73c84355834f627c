import assert from 'node:assert/strict'
import { once } from 'node:events'
import { access, lstat, rename, utimes, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { startAdmin } from '../../../lib/admin/admin.ts'
import { publishSocket, publishSockets, removeOldSockets } from '../../../lib/admin/socket-path.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { temporaryFolder } from '../../helpers/admin/client.ts'

test('each process has one of its own, beside that of a server, and all are found', async (t) => {
  const folder = temporaryFolder(t)
  const paths = [publishSocket(folder), publishSocket(folder)]
  const admins = await Promise.all([startAdmin({ folder }), ...paths.map((socket) => startAdmin({ folder, socket }))])
  try {
    assert.deepEqual(
      admins.slice(1).map(({ socket }) => socket),
      paths,
    )
    assert.deepEqual([...(await publishSockets(folder))].sort(), [...paths].sort())
    if (process.platform !== 'win32') assert.equal((await lstat(paths[0] ?? '')).mode & 0o777, 0o600)
  } finally {
    await Promise.all(admins.map((admin) => admin.close()))
  }
  assert.deepEqual(await publishSockets(folder), [])
})

test('what a killed process has left is removed, but nothing else', {
  skip: process.platform === 'win32',
}, async (t) => {
  const folder = temporaryFolder(t)
  const [old, fresh, live, file] = ['aaaaaaaa', 'bbbbbbbb', 'cccccccc', 'dddddddd'].map((name) =>
    publishSocket(folder, name),
  )
  await using admin = await startAdmin({ folder, ...(live === undefined ? {} : { socket: live }) })
  for (const path of [old, fresh]) {
    // A socket under another name stays when its server closes.
    const server = createServer().listen(`${path}.was`)
    await once(server, 'listening')
    await rename(`${path}.was`, path ?? '')
    await new Promise((resolve) => server.close(resolve))
  }
  await writeFile(file ?? '', 'mine')
  for (const path of [old, live, file]) await utimes(path ?? '', new Date(0), new Date(0))
  await removeOldSockets(folder)
  await assert.rejects(access(old ?? ''))
  for (const path of [fresh, live, file]) await access(path ?? '')
  assert.equal(admin.socket, live)
})

test('on Windows they are pipes that folders tell apart', () => {
  const [one, two] = ['/a', '/b'].map((path) => publishSocket(new StateFolder(path), '00000001', 'win32'))
  assert.match(one ?? '', /^\\\\\.\\pipe\\symport-[0-9a-f]{32}-00000001$/)
  assert.notEqual(one, two)
})
