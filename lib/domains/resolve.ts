import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import type { Endpoint } from '../core/index.ts'
import { dialError } from '../sockets/dial.ts'
import { parseHostPort } from './address.ts'

/** The addresses behind `host:port`; an empty host is this machine. */
export async function resolve(to: Endpoint): Promise<readonly string[]> {
  const { host } = parseHostPort(to.Addr)
  if (host === '') return ['127.0.0.1']
  if (isIP(host)) return [host]
  try {
    return (await lookup(host, { all: true })).map((found) => found.address)
  } catch (error) {
    throw dialError(error, to.Addr)
  }
}
