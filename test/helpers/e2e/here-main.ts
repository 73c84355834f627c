import { parentPort } from 'node:worker_threads'
import { main } from '../../../apps/cli/main.ts'
import type { Answered, Asked } from './here.ts'

// The command line in a thread that has an environment, a standard output and a standard error of its own.

/** Keeps what is written instead of writing it. */
function caught(stream: NodeJS.WriteStream): () => string {
  let text = ''
  stream.write = (chunk: string | Uint8Array): boolean => {
    text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString()
    return true
  }
  return () => {
    const all = text
    text = ''
    return all
  }
}

const [stdout, stderr] = [caught(process.stdout), caught(process.stderr)]

parentPort?.on('message', async ({ args, env }: Asked) => {
  for (const name of Object.keys(process.env)) if (!(name in env)) delete process.env[name]
  Object.assign(process.env, env)
  const status = await main(args)
  // Each start has its own.
  process.stdout.removeAllListeners('error')
  const answered: Answered = { status, stdout: stdout(), stderr: stderr().replace(/\n$/, '') }
  parentPort?.postMessage(answered)
})
