import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import type { Socket as TcpSocket } from 'node:net'
import { SocksClient } from 'socks'
import { eventually, freePort } from './net.ts'
import { isRoot } from './programs.ts'
import type { Stage } from './stage.ts'
import type { Address } from './symport.ts'

/** What the client of SOCKS5 says. */
interface Established {
  readonly socket: TcpSocket
  readonly remoteHost?: Address | undefined
}

/** A real DNS server that knows `hostN.test` as 10.1.2.N+1, for N below 100, and answers UDP. Gives its port. */
export async function startDns(stage: Stage, programs: { dnsmasq: string; dig: string }): Promise<number> {
  const port = await freePort()
  const lines = [
    ...['no-resolv', 'no-hosts', 'bind-interfaces', 'listen-address=127.0.0.1', `port=${port}`],
    ...Array.from({ length: 100 }, (_, n) => `host-record=host${n}.test,10.1.2.${n + 1}`),
  ]
  writeFileSync(stage.path('dnsmasq.conf'), `${lines.join('\n')}\n`)
  const user = isRoot() ? ['--user=root'] : []
  await stage.start(programs.dnsmasq, [
    ...['--keep-in-foreground', `--conf-file=${stage.path('dnsmasq.conf')}`, '--pid-file=', ...user],
  ])
  await eventually(() => ask(stage, programs.dig, port, 0))
  return port
}

/** Asks for `hostN.test` over UDP; throws unless the answer is the right one. */
export async function ask(stage: Stage, dig: string, port: number, host: number): Promise<void> {
  const where = ['@127.0.0.1', '-p', String(port), '+notcp', '+ignore', '+tries=3', '+time=3', '+short']
  const said = await stage.must(dig, [...where, `host${host}.test`])
  // dig warns of the late answer to one before it, which had asked twice from what is this one's port now.
  const answer = said
    .split('\n')
    .filter((line) => !line.startsWith(';; Warning: ID mismatch'))
    .join('\n')
  if (answer !== `10.1.2.${host + 1}`) throw new Error(`host${host}.test is ${JSON.stringify(answer)}`)
}

/**
 * A port for programs that know nothing of SOCKS5: what comes there goes to `target` by UDP ASSOCIATE, as a client that is
 * not ours has it. Gives the port.
 */
export async function startAssociation(
  stage: Stage,
  proxy: Address & { readonly user?: { readonly name: string; readonly password: string } },
  target: Address,
): Promise<number> {
  const { user } = proxy
  const client = new SocksClient({
    command: 'associate',
    proxy: {
      host: proxy.host,
      port: proxy.port,
      type: 5,
      ...(user ? { userId: user.name, password: user.password } : {}),
    },
    destination: { host: '0.0.0.0', port: 0 },
    timeout: 20_000,
  })
  const established = new Promise<Established>((resolve, reject) => {
    client.on('established', resolve)
    client.on('error', reject)
  })
  client.connect()
  const { socket, remoteHost } = await established
  if (!remoteHost) throw new Error('the proxy has not said where datagrams go')
  stage.defer(() => socket.destroy())

  const near = await bind(stage)
  const far = await bind(stage)
  /** Datagrams of several programs go through one association: answers of DNS are known by their first two bytes. */
  const askers = new Map<number, { address: string; port: number }>()
  near.on('message', (data, from) => {
    askers.set(data.readUInt16BE(0), from)
    far.send(SocksClient.createUDPFrame({ remoteHost: target, data }), remoteHost.port, remoteHost.host)
  })
  far.on('message', (message) => {
    const { data } = SocksClient.parseUDPFrame(message)
    const asker = askers.get(data.readUInt16BE(0))
    if (asker) near.send(data, asker.port, asker.address)
  })
  return near.address().port
}

async function bind(stage: Stage): Promise<Socket> {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  stage.defer(() => socket.close())
  return socket
}
