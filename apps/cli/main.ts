import { type Runnable, reportError, unknownCommand } from '../common/command.ts'
import { version } from './version.ts'

interface Entry {
  readonly summary: string
  load(): Promise<{ default: Runnable }>
}

async function publishing(name: 'http' | 'tcp' | 'udp'): Promise<{ default: Runnable }> {
  const commands = await import('./publish.ts')
  return { default: commands[name] }
}

/** Loaded when called for: a start should not wait for what it does not use. */
const COMMANDS: Record<string, Entry> = {
  demo: { summary: 'a server, a node and a small web page on loopback', load: () => import('./demo.ts') },
  server: { summary: 'accept nodes', load: () => import('../server/command.ts') },
  node: { summary: 'connect to a server', load: () => import('../node/command.ts') },
  http: { summary: 'publish a web service at a public URL', load: () => publishing('http') },
  tcp: { summary: 'publish a TCP port', load: () => publishing('tcp') },
  udp: { summary: 'publish a UDP port', load: () => publishing('udp') },
  login: { summary: 'keep a server and its secret for these commands', load: () => import('./login.ts') },
  connect: {
    summary: 'a channel or target on standard input and output',
    load: () => import('./connect.ts'),
  },
  forward: { summary: 'listen and forward in one process', load: () => import('./forward.ts') },
  check: { summary: 'say what is wrong with a configuration file', load: () => import('./check.ts') },
  nodes: { summary: 'who may connect to a server, and who does', load: () => import('./nodes.ts') },
  mappings: { summary: 'what a server listens on while it runs', load: () => import('./mappings.ts') },
  status: { summary: 'what a server does, or a node with --admin', load: () => import('./status.ts') },
  requests: { summary: 'the last requests of what is inspected, and replay', load: () => import('./requests.ts') },
  reload: { summary: 'apply the changed configuration file of a server', load: () => import('./reload.ts') },
  uuid: { summary: "print the node's command line", load: () => import('./uuid.ts') },
  keygen: { summary: "make the server's key and secret", load: () => import('./keygen.ts') },
  launchers: { summary: 'write executables for supervisor files', load: () => import('./launchers.ts') },
}

function overview(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length))
  const list = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`)
  return `symport: a tunnel to a port behind a NAT or a firewall

  symport demo                                       see it work on this machine
  symport server --listener 13389:127.0.0.1:3389     on the machine that can be reached
  symport node --host server.example.com             on the machine that cannot; the secret is asked for

Commands (each has --help):
${list.join('\n')}
`
}

/** Runs a command line, without the program's name, and answers the exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  // Whoever read our output may go away (`| head`): that is no error.
  process.stdout.on('error', () => {})
  try {
    const [name, ...rest] = argv
    if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
      process.stdout.write(overview())
      return 0
    }
    if (name === '--version' || name === '-v' || name === '-version') {
      process.stdout.write(`${await version()}\n`)
      return 0
    }
    const entry = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
    if (!entry) throw unknownCommand(name, Object.keys(COMMANDS))
    const { default: run } = await entry.load()
    return await run(rest)
  } catch (error) {
    return reportError(error)
  }
}
