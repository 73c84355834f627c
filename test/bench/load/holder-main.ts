// A process of its own that accepts connections, sends back what comes, and holds them: as little as Node.js can do with
// a socket. Prints its port.
import { type AddressInfo, createServer, type Socket } from 'node:net'

// One function for all sockets: a closure for each would be memory that the connection does not need.
function echo(this: Socket, chunk: Buffer): void {
  this.write(chunk)
}

function ignore(): void {}

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('data', echo)
  // A tunnel that is stopped resets what it carried.
  socket.on('error', ignore)
})
server.listen({ port: 0, host: '127.0.0.1', backlog: 1024 }, () => {
  const address: AddressInfo | string | null = server.address()
  console.log(typeof address === 'object' && address ? address.port : 'no port')
})
