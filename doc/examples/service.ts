// A service that is code: the other side listens, and what comes in there is answered here, one `for await` at a time.
// In a program of your own: import from 'symport' and 'symport/testing'.
import { connect } from 'node:net'
import { Transform } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { tcp } from '../../lib/index.ts'
import { createProxyPair } from '../../lib/testing.ts'

// Two ends of a main connection. `b` knows the domain tcp, so `a` may ask it to listen on a port.
const { a, b } = await createProxyPair({ b: { domains: [tcp()] } })

const incoming = await a.accept({ Domain: 'tcp', Addr: '127.0.0.1:0' })
const port = Number(incoming.bound.Addr.split(':').at(-1))

async function serve(): Promise<void> {
  let count = 0
  for await (const sub of incoming) {
    const number = ++count
    const answer = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        done(null, `${number}: ${chunk.toString().toUpperCase()}`)
      },
    })
    await pipeline(sub, answer, sub)
    // Leaving the loop closes the listener too.
    if (number === 2) break
  }
}

async function ask(question: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.end(question)
  return await text(socket)
}

const served = serve()
process.stdout.write(await ask('first question\n'))
process.stdout.write(await ask('second question\n'))
await served

a.close()
await Promise.all([a.closed, b.closed])
