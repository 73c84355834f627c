import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync } from 'node:fs'
import { test } from 'node:test'
import type { Child } from '../helpers/system/child.ts'
import { startWebPage } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, listenerAddress, logged, parseAddress, symportEnvironment } from '../helpers/system/symport.ts'

/** Runs a line as a person types it into a shell, on a machine where symport is installed. */
async function type(stage: Stage, line: string): Promise<Child> {
  const bin = stage.path('bin')
  mkdirSync(bin, { recursive: true })
  try {
    symlinkSync(CLI, `${bin}/symport`)
  } catch {
    // An earlier line has made it.
  }
  const machine = line.includes('node') ? 'client' : 'server'
  const env = symportEnvironment(stage, {
    PATH: `${bin}:${process.execPath.replace(/\/[^/]*$/, '')}:${process.env.PATH}`,
    XDG_STATE_HOME: stage.path(machine),
    HOME: stage.path(machine),
  })
  return await stage.start('/bin/sh', ['-c', `exec ${line}`], { env })
}

// The lines are the seed's, with `symport server` for ./server, `symport node` for ./node, and ports that are free here.
test("goproxy's first example: a port of the server's leads into the node's network", {
  timeout: 60_000,
}, async (t) => {
  const programs = requirePrograms(t, ['curl'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const desktop = await startWebPage(stage, "the customer's desktop")
  const server = await type(
    stage,
    `symport server -host 0.0.0.0 -port 0 -uuid testuuid -listener '{"Listen":{"Domain":"tcp","Addr":"127.0.0.1:0"},"Forward":{"Domain":"tcp", "Addr":"127.0.0.1:${desktop}"}}'`,
  )
  const { port } = parseAddress((await logged(server, 'listening')).address)
  await logged(await type(stage, `symport node -host localhost -port ${port} -uuid testuuid`), 'connected')
  const mapped = (await listenerAddress(server)).replace('tcp://', 'http://')
  const curl = ['-q', '-sSf', '--noproxy', '*', '--max-time', '20', mapped]
  assert.equal(await stage.must(programs.curl, curl), "the customer's desktop")
})

test("goproxy's second example: a port of the node's leads to the server's machine", { timeout: 60_000 }, async (t) => {
  const programs = requirePrograms(t, ['socat'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const service = await stage.start(programs.socat, ['-d', '-d', 'TCP-LISTEN:0,bind=127.0.0.1,fork', 'EXEC:sort'])
  const target = await service.line((line) => /listening on .*:(\d+)$/.exec(line)?.[1], '"listening on"')
  const server = await type(
    stage,
    `symport server -host 0.0.0.0 -port 0 -uuid testuuid -peer_listener '{"Listen":{"Domain":"tcp","Addr":"127.0.0.1:0"},"Forward":{"Domain":"tcp", "Addr":"127.0.0.1:${target}"}}'`,
  )
  const { port } = parseAddress((await logged(server, 'listening')).address)
  await logged(await type(stage, `symport node -host localhost -port ${port} -uuid testuuid`), 'connected')
  const mapped = parseAddress(await listenerAddress(server))
  // sort answers when its input has ended: the half-close has to travel through the tunnel.
  const talk = `printf 'b\\nc\\na\\n' | exec ${programs.socat} -t 10 - TCP:${mapped.host}:${mapped.port}`
  assert.equal(await stage.must('/bin/sh', ['-c', talk]), 'a\nb\nc')
})
