import { isIPv6 } from 'node:net'
import { ProxyError } from '../core/errors.ts'
import { shown } from './text.ts'

/** `host` is a name, an IPv4 address, an IPv6 address without brackets, or empty. */
export interface HostPort {
  readonly host: string
  readonly port: number
}

export interface PortOptions {
  /** Whether 0, "any free port", is a port: it is for listening only. Default `false`. */
  readonly allowZero?: boolean | undefined
}

// RFC 1035, section 2.3.4.
const NAME_LENGTH = 253
const LABEL_LENGTH = 63

/**
 * Takes `host:port` apart. IPv6 stands in brackets, and the host may be empty (`:80`): what that means is for the
 * caller to say. Not `new URL`, which refuses `socks5://:1080`, drops `:80` and turns `127.1` into another address.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function parseHostPort(text: string, options: PortOptions = {}): HostPort {
  const { host, port } = text.startsWith('[') ? splitBrackets(text) : splitColon(text)
  return { host, port: parsePort(port, options) }
}

/** `host:port`, with an IPv6 host in brackets. */
export function formatHostPort(at: HostPort): string {
  return at.host.includes(':') ? `[${at.host}]:${at.port}` : `${at.host}:${at.port}`
}

/**
 * A port number in decimal digits, nothing else.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function parsePort(text: string, options: PortOptions = {}): number {
  const lowest = options.allowZero === true ? 0 : 1
  if (text === '') throw bad(`the port is missing: write a number (${lowest} to 65535)`)
  if (!/^[0-9]+$/.test(text)) throw bad(`port ${shown(text)} is not a number (${lowest} to 65535)`)
  if (/^0[0-9]/.test(text)) throw bad(`port ${shown(text)} begins with 0: write it without`)
  const port = Number(text)
  if (port < lowest || port > 65535) {
    throw bad(`port ${text.length > 20 ? `${text.slice(0, 20)}…` : text} is out of range (${lowest} to 65535)`)
  }
  return port
}

function splitBrackets(text: string): { host: string; port: string } {
  const match = /^\[([^\]]*)\](?::(.*))?$/s.exec(text)
  const host = match?.[1]
  if (host === undefined) throw bad(`${shown(text)} is not [IPv6]:port, like [::1]:80`)
  if (!isIPv6(host)) throw bad(`${shown(host)} is not an IPv6 address: brackets are for these only`)
  const port = match?.[2]
  if (port === undefined) throw bad(`${shown(text)} has no port: write ${text}:PORT`)
  return { host, port }
}

function splitColon(text: string): { host: string; port: string } {
  const colon = text.lastIndexOf(':')
  if (colon < 0) {
    const hint = /^[0-9]+$/.test(text) ? `:${text} or HOST:${text}` : 'host:port'
    throw bad(`${shown(text)} has no port: write ${hint}`)
  }
  const host = text.slice(0, colon)
  if (host.includes(':')) {
    const whole = isIPv6(text) || text === '::'
    const hint = whole ? `[${text}]:PORT` : isIPv6(host) ? `[${host}]:PORT` : undefined
    throw bad(`${shown(text)} ${hint === undefined ? 'is not host:port' : `needs brackets: write ${hint}`}`)
  }
  if (host !== '') checkName(host)
  return { host, port: text.slice(colon + 1) }
}

function checkName(host: string): void {
  if (host === '*') throw bad('"*" is not a host here: an empty one (":80") listens on all interfaces')
  if (/[\s\p{C}/\\@,;?#[\]"'`<>|*%(){}]/u.test(host)) {
    throw bad(`${shown(host)} is not a host: it has a character that no name or address has`)
  }
  const labels = (host.endsWith('.') ? host.slice(0, -1) : host).split('.')
  if (host.length > NAME_LENGTH + 1 || labels.some((label) => label === '' || label.length > LABEL_LENGTH)) {
    throw bad(`${shown(host)} is not a host: between dots stand 1 to ${LABEL_LENGTH} characters`)
  }
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_ADDRESS', message)
}
