import { readFile } from 'node:fs/promises'
import { type Endpoint, ProxyError } from '../../lib/core/index.ts'
import { readChannel } from '../../lib/domains/channel-address.ts'
import { parseEndpointUrl } from '../../lib/domains/endpoint-url.ts'
import { DOMAINS } from '../../lib/domains/table.ts'

const URL = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is
/** How a channel of a stream of bytes is written. */
const CHANNEL_SCHEMES = ['tcp', 'unix', 'channel']
const FORMS = 'write tcp://CHANNEL:PASSWORD@, or tcp://HOST:PORT for what the server reaches'

/**
 * What `symport connect` joins: a channel (`tcp://ssh:password@`), or what the server dials. The error never shows what
 * stands before an `@`.
 *
 * @throws ProxyError
 */
export async function readTarget(text: string, passwordFile: string | undefined): Promise<Endpoint> {
  const [, scheme = '', rest = ''] = URL.exec(text.trim()) ?? []
  const name = scheme.toLowerCase()
  if (name === 'udp' || /\/udp$/i.test(rest)) {
    throw usage(
      'udp carries datagrams, and standard input and output are a stream of bytes: "symport node -L" takes udp',
    )
  }
  if (name === 'tunnel') {
    throw usage('a tunnel is for connections that name their own targets: "symport node -D" makes a proxy of it')
  }
  // A path may have an @ in it.
  if (!rest.startsWith('/') && text.includes('@')) return await readChannelUrl(name, rest, passwordFile)
  if (passwordFile !== undefined) throw usage('--password-file is for a channel: write tcp://CHANNEL@')
  if (scheme === '') throw usage(`that is no URL: ${FORMS}`)
  if (name === 'tcp' && /^[a-z_][\w.-]*$/i.test(rest)) {
    throw usage(`"${rest}" has no port: write tcp://${rest}:PORT, or for a channel tcp://${rest}:PASSWORD@`)
  }
  const target = parseEndpointUrl(text, { domains: DOMAINS, role: 'forward' })
  if (target.Domain === 'channel' || target.Domain === 'tunnel') throw usage(FORMS)
  return target
}

async function readChannelUrl(scheme: string, rest: string, passwordFile: string | undefined): Promise<Endpoint> {
  if (!CHANNEL_SCHEMES.includes(scheme)) throw usage('a channel is written tcp://CHANNEL:PASSWORD@')
  if (!rest.endsWith('@')) {
    throw usage('nothing comes behind the "@": a channel is written tcp://CHANNEL:PASSWORD@ here, without an address')
  }
  if (passwordFile === undefined) return readChannel({ Domain: 'channel', Addr: rest }, 'forward')
  if (rest.includes(':')) throw usage('the URL has a password, and --password-file is given: keep one')
  const password = encodeURIComponent(await readPassword(passwordFile))
  return readChannel({ Domain: 'channel', Addr: `${rest.slice(0, -1)}:${password}@` }, 'forward')
}

async function readPassword(path: string): Promise<string> {
  let password: string
  try {
    password = (await readFile(path, 'utf8')).replace(/[\r\n]+$/, '')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const why = code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'permission denied' : code
    throw usage(`--password-file: cannot read ${path}: ${why}`)
  }
  if (password === '') throw usage(`--password-file: ${path} is empty`)
  return password
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
