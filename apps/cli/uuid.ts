import { loadCertificates, ProxyError } from '../../lib/index.ts'
import { readFingerprint } from '../../lib/store/certificates.ts'
import { readSecret } from '../../lib/store/secrets.ts'
import { command, noPositionals, type Runnable } from '../common/command.ts'
import { toPort } from '../common/flags.ts'
import { nodeCommand, stateFolder } from '../common/identity.ts'
import { DEFAULT_PORT, parsePlace } from '../common/transports.ts'

const uuid: Runnable = command({
  usage: 'symport uuid [flags]',
  summary: "Prints the node's command line for the server on this machine, secret included.",
  flags: [
    {
      name: 'host',
      kind: 'string',
      value: 'HOST',
      help: 'What nodes reach this machine as. Default: one of its addresses.',
    },
    { name: 'port', kind: 'string', value: 'PORT', help: `The server's port. Default: ${DEFAULT_PORT}.` },
    { name: 'cert', kind: 'string', value: 'FILE', help: 'The certificate that the server was given with --cert.' },
    { name: 'state', kind: 'string', value: 'DIR', help: "The server's state folder." },
  ],
  examples: ['symport uuid --host server.example.com'],
  async run(values, positionals) {
    noPositionals(positionals)
    const port = values.port === undefined ? undefined : toPort(values.port, 'port')
    const place = parsePlace(values.host ?? '0.0.0.0', '--host', { port, listening: true })
    const state = stateFolder(values.state)
    const kept = await readSecret(state)
    if (!kept) {
      throw new ProxyError(
        'PROXY_ERR_STATE',
        `there is no secret in ${state.path}: start "symport server" once, or "symport keygen"`,
      )
    }
    const { cert } = values
    const pin = await (cert === undefined ? (await loadCertificates(state)).fingerprint() : readFingerprint(cert))
    process.stdout.write(`${nodeCommand(place.host, place.port ?? DEFAULT_PORT, kept.secret, pin)}\n`)
    return 0
  },
})

export default uuid
