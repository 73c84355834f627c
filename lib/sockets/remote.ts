import { isIPv4 } from 'node:net'

const MAPPED = '::ffff:'

/** `192.0.2.1:80`, `[2001:db8::1]:80`; without a port (undefined or 0) the host alone, in brackets all the same. */
export function formatRemote(address: string, port: number | undefined): string {
  const host = address.includes(':') ? bracketed(address) : address
  return port ? `${host}:${port}` : host
}

/** What a socket of both versions calls `::ffff:192.0.2.1` is IPv4 to people. */
function bracketed(address: string): string {
  const tail = address.startsWith(MAPPED) ? address.slice(MAPPED.length) : ''
  return isIPv4(tail) ? tail : `[${address}]`
}
