import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { isLoopbackHost } from '../common/identity.ts'

/** The addresses of a name; none if it has none. */
export type Lookup = (name: string) => Promise<readonly string[]>

/** How long the DNS may take, in ms. */
const PATIENCE = 5000

/**
 * What is missing in the DNS for visitors to find `host`, which the server at `server` has given; undefined if nothing is,
 * or if nobody can tell from here.
 */
export async function dnsAdvice(
  host: string,
  server: string,
  find: Lookup = findAddresses,
): Promise<string | undefined> {
  // Names for trying out: they lead to the machine that asks (RFC 6761 section 6.3), or nowhere at all.
  if (isIP(host) !== 0 || !host.includes('.') || host.endsWith('.localhost')) return undefined
  const [found, own] = await Promise.all([find(host), isIP(server) === 0 ? find(server) : [server]]).catch(() => [])
  if (found === undefined || own === undefined) return undefined
  const [, domain = ''] = /^[^.]+\.(.*)$/s.exec(host) ?? []
  const first = own.find((address) => !isLoopbackHost(address))
  const record = `*.${domain} ${first === undefined ? 'A (the address of the server)' : `${first.includes(':') ? 'AAAA' : 'A'} ${first}`}`
  if (found.length === 0) return `visitors do not find ${host} yet: add the record "${record}" to the DNS of ${domain}`
  if (first === undefined || own.some((address) => found.includes(address))) return undefined
  return `${host} leads to ${found[0]}, and the server is at ${first}: unless that passes on to it, the record should be "${record}"`
}

/** Empty for a name that is not there. @throws if the DNS does not answer */
async function findAddresses(name: string): Promise<readonly string[]> {
  const patience = new Promise<never>((_, reject) => {
    setTimeout(() => reject(new Error('no answer in time')), PATIENCE).unref()
  })
  const found = lookup(name, { all: true }).then(
    (all) => all.map(({ address }) => address),
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOTFOUND' || error.code === 'ENODATA') return []
      throw error
    },
  )
  return await Promise.race([found, patience])
}
