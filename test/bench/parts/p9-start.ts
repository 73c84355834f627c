import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench } from '../bench.ts'
import { freePort, startTarget } from '../load/sockets.ts'
import { type Findings, type Part, Series, under } from '../part.ts'
import { listenerFlags, nodeFlags, openSymport, serverFlags, startSide } from '../tunnels/symport.ts'

const LIMIT_MS = 20_000
const TRY_AGAIN_MS = 5

/** Both processes started at once, to the first byte from the target through the mapped port. */
export const start: Part = {
  id: 'P9',
  title: 'start of both sides to the first byte',
  needs: [],
  run: measure,
}

async function measure(bench: Bench): Promise<Findings> {
  const series = new Series()
  if (!bench.takesPart('symport')) return { series, rows: [] }
  await using greeter = await startTarget((socket) => socket.write('!'))
  // The first start of all makes the secret and the keys; what is measured is every later one.
  const state = bench.processes.folder()
  await (await openSymport(bench, [greeter.port], state)).close()
  for (let round = 0; round < bench.rounds; round++) {
    bench.progress(`round ${round + 1} of ${bench.rounds}`)
    series.add('start ms', 'symport', await startOnce(bench, state, greeter.port))
  }
  return {
    series,
    rows: [series.valueRow('start ms', { what: 'start to first byte', unit: 'ms', goal: under(400, 'ms') })],
  }
}

async function startOnce(bench: Bench, state: string, target: number): Promise<number> {
  const port = await freePort()
  const mapped = await freePort()
  const begun = performance.now()
  const server = startSide(bench, 'server', [...serverFlags(state, port), ...listenerFlags(mapped, target)])
  const node = startSide(bench, 'node', nodeFlags(state, port))
  try {
    while (!(await firstByte(mapped))) {
      if (performance.now() - begun > LIMIT_MS) {
        throw new Error(`no byte in ${LIMIT_MS / 1000} s; server: ${server.lastWords}; node: ${node.lastWords}`)
      }
      await sleep(TRY_AGAIN_MS)
    }
    return performance.now() - begun
  } finally {
    await node.stop()
    await server.stop()
  }
}

/** One try. A server without its node yet may refuse, close at once, or hold the connection until there is one. */
function firstByte(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.setTimeout(2_000, () => socket.destroy())
    socket.on('data', () => {
      resolve(true)
      socket.destroy()
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(false))
  })
}
