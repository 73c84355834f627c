import { ProxyError } from '../../lib/core/index.ts'
import { keepSecret, loadServerIdentity, makeToken, readSecret } from '../../lib/store/secrets.ts'
import { command, noPositionals, type Runnable } from '../common/command.ts'
import { stateFolder } from '../common/identity.ts'

const keygen: Runnable = command({
  usage: 'symport keygen [flags]',
  summary: 'Makes a secret for the server, and its key if there is none, keeps them and prints the secret.',
  flags: [
    { name: 'state', kind: 'string', value: 'DIR', help: "The server's state folder." },
    {
      name: 'force',
      kind: 'boolean',
      help: 'Replace the secret that is there. Nodes that use it are refused from the next start on.',
    },
  ],
  examples: ['symport keygen', 'symport keygen --state /srv/symport'],
  async run(values, positionals) {
    noPositionals(positionals)
    const state = stateFolder(values.state)
    if (!values.force && (await readSecret(state))) {
      throw new ProxyError('PROXY_ERR_STATE', `${state.file('secret')} is there already: --force replaces it`)
    }
    const { publicKey } = await loadServerIdentity(state)
    const secret = makeToken(publicKey)
    await keepSecret(state, secret)
    process.stdout.write(`${secret}\n`)
    return 0
  },
})

export default keygen
