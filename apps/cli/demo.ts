import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createWeb } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createNode, createPolicy, createServer, dialTcp, listenTcp, parsePattern, type Spec } from '../../lib/index.ts'
import { command, noPositionals, type Runnable } from '../common/command.ts'
import { logEvents } from '../common/events.ts'
import { createLog } from '../common/log.ts'
import { createDomains } from '../common/options.ts'
import { stopSignal, untilStopped } from '../common/until-stopped.ts'

const PAGE = (served: number): string => `<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>symport</title>
<style>body{font:1.1rem/1.5 system-ui;max-width:36rem;margin:15vh auto;padding:0 1rem}code{background:#8882;padding:.1em .3em}</style>
<h1>It works.</h1>
<p>This page came from a web server that only the <code>node</code> can reach, through one encrypted connection, out of a
port of the <code>server</code>. Request ${served}.</p>
`

const spec = (listen: string, forward: string): Spec => ({
  Listen: { Domain: 'tcp', Addr: listen },
  Forward: { Domain: 'tcp', Addr: forward },
})

const message = (mapped: string, target: string, server: string): string => `
  A web page on ${target}, which only the node reaches, is mapped to

    http://${mapped}/

  the way it goes: you -> ${mapped} (server) == encrypted, ${server} == (node) -> ${target}

  Try next: open it in a browser, or   curl http://${mapped}/
  For real: "symport server --listener 8080:127.0.0.1:80" on a machine that can be reached;
            it prints what to run on the machine that cannot.

  Ctrl-C ends the demo.
`

const demo: Runnable = command({
  usage: 'symport demo',
  summary: 'Starts a server, a node and a small web page on loopback, and a mapping between them.',
  flags: [],
  examples: ['symport demo'],
  async run(_values, positionals) {
    noPositionals(positionals)
    const stop = stopSignal()
    let served = 0
    const web = createWeb((_request, response) => {
      response.setHeader('content-type', 'text/html; charset=utf-8')
      response.end(PAGE(++served))
    })
    web.listen(0, '127.0.0.1')
    await once(web, 'listening')
    const target = `127.0.0.1:${(web.address() as AddressInfo).port}`
    const secret = randomBytes(16).toString('hex')
    const domains = createDomains()
    let mapped = ''
    const log = await createLog({ 'log-level': 'warn', 'log-file': undefined })
    const server = await createServer({
      listen: (onLink) => listenTcp({ host: '127.0.0.1', port: 0 }, onLink),
      secret,
      listeners: [spec('127.0.0.1:0', target)],
      domains,
      policy: createPolicy({ dial: 'none', listenPorts: 'none' }),
      onEvent(event) {
        if (event.type === 'listener-ready') mapped = event.bound.Addr
        else if (event.type === 'rejected') logEvents(log, 'server', false)(event)
      },
    })
    let arrived = (): void => {}
    const connected = new Promise<void>((resolve) => {
      arrived = resolve
    })
    const [host = '', port] = server.address.split(':')
    const node = await createNode({
      dial: (options) => dialTcp({ host, port: Number(port) }, options),
      server: server.address,
      secret,
      id: 'demo',
      domains,
      policy: createPolicy({ dial: [parsePattern(target)], listenPorts: 'none' }),
      onEvent(event) {
        if (event.type === 'connected') arrived()
        else logEvents(log, 'node', false)(event)
      },
    })
    await connected
    process.stdout.write(message(mapped, target, server.address))
    return await untilStopped(
      {
        async drain(options) {
          web.close()
          web.closeAllConnections()
          await Promise.all([node.drain(options), server.drain(options)])
        },
      },
      { stop, timeout: () => 1000, log },
    )
  },
})

export default demo
