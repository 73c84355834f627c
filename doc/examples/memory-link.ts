// Two Proxies over a link inside this process: no port is opened, nothing leaves it.
// In a program of your own: import from 'symport' and 'symport/testing'.
import { Transform } from 'node:stream'
import { text } from 'node:stream/consumers'
import { Acceptor, connect, type DomainPlugin, derivePsk, Proxy } from '../../lib/index.ts'
import { memoryPair } from '../../lib/testing.ts'

// A domain of one's own. What it dials is any Duplex: here one that answers in capitals.
const shout: DomainPlugin = {
  name: 'shout',
  async dial() {
    return new Transform({
      transform(chunk: Buffer, _encoding, done) {
        done(null, chunk.toString().toUpperCase())
      },
    })
  },
}

const secret = 'a secret that both ends know'
const psk = await derivePsk(secret, '', 'NNpsk0')
const acceptor = new Acceptor({ pskFor: async (name) => (name === '' ? psk : undefined) })

const links = memoryPair()
const [{ main: accepted }, dialled] = await Promise.all([
  acceptor.accept(links.b),
  connect(async () => links.a, { secret }),
])
await using near = new Proxy(dialled)
await using _far = new Proxy(accepted, { domains: [shout] })

const sub = await near.dial({ Domain: 'shout', Addr: '' })
sub.end('hello through the tunnel\n')
process.stdout.write(await text(sub))
