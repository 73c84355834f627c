import { ProxyError } from '../../lib/core/index.ts'
import { forward } from '../../lib/hub/forward.ts'
import { command, type Runnable } from '../common/command.ts'
import { logEvents } from '../common/events.ts'
import { outliveHangUp } from '../common/hang-up.ts'
import { createLog, LOG_FLAGS } from '../common/log.ts'
import { createDomains, parseDynamic, parseSpecs } from '../common/options.ts'
import { stopSignal, untilStopped } from '../common/until-stopped.ts'

const forwardCommand: Runnable = command({
  usage: 'symport forward [flags] SPEC...',
  summary: 'Listens and forwards inside one process, without a server: what socat is used for.',
  flags: [...LOG_FLAGS],
  examples: [
    'symport forward unix:///tmp/agent.sock,tcp://agent.example.com:9299',
    'symport forward 8080:127.0.0.1:80',
    '# a SOCKS5 and HTTP proxy, and TLS for a program that has none',
    'symport forward mixed://127.0.0.1:1080 tcp://127.0.0.1:3000,https://example.com',
  ],
  async run(values, positionals) {
    if (positionals.length === 0) {
      throw new ProxyError('PROXY_ERR_USAGE', 'forward what? For example: symport forward 8080:127.0.0.1:80')
    }
    const domains = createDomains()
    // A proxy needs no other half: it dials from here.
    const specs = positionals.flatMap((text) =>
      (/^(?:socks5|http|mixed):[^,]*$/i.test(text) ? parseDynamic : parseSpecs)([text], domains),
    )
    const log = await createLog(values)
    outliveHangUp(log)
    const stop = stopSignal()
    const abort = new AbortController()
    const onEvent = logEvents(log, 'node', false)
    const listeners = await forward(specs, { domains, onEvent, signal: abort.signal })
    if (listeners.length === 0) return 1
    const drain = async (): Promise<void> => {
      await Promise.all(listeners.map((listener) => listener.close()))
      abort.abort()
    }
    const status = await untilStopped({ drain }, { stop, timeout: () => 0, log })
    // Connections that are open end with the process, as everybody expects of a forwarder.
    process.exit(status)
  },
})

export default forwardCommand
