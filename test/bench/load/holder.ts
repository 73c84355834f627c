import { fileURLToPath } from 'node:url'
import type { Processes } from '../processes.ts'
import type { Target } from './sockets.ts'

const MAIN = fileURLToPath(new URL('./holder-main.js', import.meta.url))

/**
 * An echo server in a process of its own: it has the open files that this process lacks, and nothing else in its memory
 * than the sockets it holds.
 */
export async function startHolder(processes: Processes): Promise<Target & { readonly pid: number }> {
  const holder = processes.start(process.execPath, [MAIN], 'the holder of connections')
  const port = await holder.waitFor('its port', (line) => (/^\d+$/.test(line) ? Number(line) : undefined))
  return { port, pid: holder.pid, [Symbol.asyncDispose]: () => holder.stop() }
}
