import type { Endpoint } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import type { ReadEndpoint } from './domain.ts'
import { Hidden } from './hidden.ts'

/**
 * A channel, or a tunnel by way of one. The password is never a part of `Addr`, and `checkEndpoint` of the core drops it:
 * the peer is not told. An empty one says that there is none; one that is missing, that somebody has lost it.
 */
export interface ChannelEndpoint extends Endpoint {
  readonly Password?: Hidden | undefined
}

const NAME = /^(?=.*[^.])[A-Za-z0-9._-]{1,64}$/
const PASSWORD_BYTES = 256

/** Whether a channel can be called so: 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`, and not dots only. */
export function isChannelName(text: string): boolean {
  return NAME.test(text)
}

/**
 * Domain `channel`: `name:password@`, or `name@` for one without a password. Both may be percent-encoded. An endpoint that
 * was read already (the bare name, with its password beside it) stays what it is.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS, which never shows the password
 */
export const readChannel: ReadEndpoint = (at) => readNamed(at)

/**
 * Domain `tunnel`: empty for the peer itself; else as a channel, whose far node dials what is asked for.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS, which never shows the password
 */
export const readTunnel: ReadEndpoint = (at) => (at.Addr === '' ? { Domain: at.Domain, Addr: '' } : readNamed(at))

/** The password that an endpoint was given; undefined if there is none with it, not even an empty one. */
export function passwordOf(at: Endpoint): Hidden | undefined {
  const password = 'Password' in at ? at.Password : undefined
  return password instanceof Hidden ? password : undefined
}

/**
 * The two halves of `name[:password]`, as they stand before the `@` of a URL.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS, which never shows the password
 */
export function readUserInfo(text: string): { readonly name: string; readonly password: Hidden } {
  const colon = text.indexOf(':')
  const name = decode(colon < 0 ? text : text.slice(0, colon), 'the name of the channel')
  if (!isChannelName(name)) throw badName(name)
  if (colon < 0) return { name, password: new Hidden('') }
  const password = decode(text.slice(colon + 1), `the password of channel ${name}`)
  if (password === '') throw bad(`the password of channel ${name} is empty: write ${name}@ for one without`)
  if (Buffer.byteLength(password) > PASSWORD_BYTES) {
    throw bad(`the password of channel ${name} is longer than ${PASSWORD_BYTES} bytes`)
  }
  return { name, password: new Hidden(password) }
}

function readNamed(at: Endpoint): ChannelEndpoint {
  const { Domain, Addr } = at
  const known = passwordOf(at)
  if (known) {
    if (!isChannelName(Addr)) throw badName(Addr)
    return { Domain, Addr, Password: known }
  }
  const end = Addr.lastIndexOf('@')
  if (end < 0) {
    const [name = ''] = Addr.split(':', 1)
    const named = isChannelName(name) ? name : 'NAME'
    const what = named === Addr ? `channel ${named} has no password with it` : 'the "@" is missing'
    throw bad(`${what}: write ${Domain}://${named}:PASSWORD@, or ${Domain}://${named}@ for one without a password`)
  }
  // What stands there may be a part of a password with an @ in it.
  if (end < Addr.length - 1) throw bad(`nothing comes behind the "@" of a channel: write ${Domain}://NAME:PASSWORD@`)
  const { name, password } = readUserInfo(Addr.slice(0, end))
  return { Domain, Addr: name, Password: password }
}

function decode(text: string, what: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw bad(`${what} has a "%" that is not followed by two digits of a byte of UTF-8: write %25 for a "%" itself`)
  }
}

/** A name that is none is not shown: it may be a password that stands in the wrong place. */
function badName(name: string): ProxyError {
  if (name === '') return bad('the name of the channel is missing: write NAME:PASSWORD@')
  if (name.length > 64) return bad('the name of a channel has at most 64 characters')
  return bad('the name of a channel has letters, digits, ".", "_" and "-" only, and is not made of dots')
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_ADDRESS', message)
}
