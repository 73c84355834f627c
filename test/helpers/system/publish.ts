import { SECRET, start } from '../e2e/cli.ts'
import type { Child } from './child.ts'
import type { Stage } from './stage.ts'
import { type Address, logged } from './symport.ts'

export interface NodeOptions {
  /** Its state folder; different ones are different machines. */
  readonly state?: string
  readonly env?: NodeJS.ProcessEnv
}

/** A node with these flags; each that asks for a listener (`-L`, `-R`, `-D`) is ready when this returns. */
export async function startReadyNode(
  stage: Stage,
  at: Address,
  flags: readonly (readonly [flag: string, value: string])[],
  { state = 'node', env = {} }: NodeOptions = {},
): Promise<Child> {
  const where = ['--host', at.host, '--port', String(at.port), '--state', stage.path(state)]
  const node = await start(stage, ['node', ...where, ...flags.flat()], { env: { SYMPORT_UUID: SECRET, ...env } })
  await logged(node, 'connected')
  await listenersReady(node, flags.filter(([flag]) => ['-L', '-R', '-D'].includes(flag)).length)
  return node
}

/** A node that publishes these. */
export function publish(stage: Stage, at: Address, urls: readonly string[]): Promise<Child> {
  return startReadyNode(
    stage,
    at,
    urls.map((url) => ['-R', url]),
  )
}

/** Waits until a side has so many listeners; throws when one of them is refused. */
export async function listenersReady(child: Child, count: number): Promise<void> {
  let ready = 0
  const pick = (line: string): string | undefined => {
    if (line.includes('"code":"PROXY_ERR_LISTEN')) return line
    return line.includes('"listener ready"') && ++ready === count ? 'ready' : undefined
  }
  const found = count === 0 ? 'ready' : await child.line(pick, `${count} listeners`)
  if (found !== 'ready') throw new Error(`a listener is refused: ${found}`)
}
