import type { LookupAllOptions } from 'node:dns'
import dns from 'node:dns/promises'
import { syncBuiltinESMExports } from 'node:module'

/** `node --import`: for a program to which names below `.there.test` are 127.0.0.1, and to nobody else on this machine. */
const real = dns.lookup
const lookup = (name: string, options: LookupAllOptions): Promise<unknown> =>
  real(name.endsWith('.there.test') ? '127.0.0.1' : name, options)
Object.assign(dns, { lookup })
syncBuiltinESMExports()
