import { connectPair, MEMORY, TCP } from './proxies.ts'

/** Run as a program of its own: it has one session, ends it, and prints what then still keeps the process alive. */
const kind = process.argv[2] === 'tcp' ? TCP : MEMORY
const { dialling, accepting, [Symbol.asyncDispose]: dispose } = await connectPair(kind)
await dialling.dial({ Domain: 'none', Addr: '' }).catch(() => {})
// Longer than an acknowledgement is held back: its timer is not running when the end comes.
await new Promise((resolve) => setTimeout(resolve, 200))
if (process.argv[3] === 'dialling') dialling.close()
else accepting.close()
await Promise.all([dialling.closed, accepting.closed])
await dispose()
// The link takes a few turns of the event loop to close.
for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve))
process.stdout.write(JSON.stringify(process.getActiveResourcesInfo().filter((kind) => !kind.endsWith('Wrap'))))
