import { isIP } from 'node:net'
import { isLoopback, parseIp } from '../sockets/ip.ts'

const WILDCARDS = new Set(['', '0.0.0.0', '::'])

export function isLoopbackName(host: string): boolean {
  const ip = parseIp(host)
  return ip ? isLoopback(ip) : host.toLowerCase() === 'localhost'
}

/**
 * Whether a request's Host header names this server, which listens on `bound`. A page whose own name was made to lead
 * here (DNS rebinding) sends that name. Where it listens on all addresses each of them is right: a page cannot choose
 * the address of the machine that it came from.
 */
export function isOwnHost(header: string | undefined, bound: string): boolean {
  const [, bracketed, plain] = /^(?:\[([0-9a-f:.]+)\]|([^:[\]\s/@]+))(?::[0-9]{1,5})?$/i.exec(header ?? '') ?? []
  const host = bracketed ?? plain
  if (host === undefined) return false
  if (isLoopbackName(host)) return true
  if (WILDCARDS.has(bound)) return isIP(host) !== 0
  const [named, listening] = [parseIp(host), parseIp(bound)]
  if (named && listening) return named.version === listening.version && named.value === listening.value
  return host.toLowerCase() === bound.toLowerCase()
}
