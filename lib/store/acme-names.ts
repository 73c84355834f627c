/** What a certificate is for that is had for a name: one for `*.NAME` is for NAME, too. */
export function namesOf(name: string): readonly string[] {
  return isWildcard(name) ? [name, name.slice(2)] : [name]
}

export function isWildcard(name: string): boolean {
  return name.startsWith('*.')
}

/** The name of the certificate that a host has, where those of a domain share one. */
export function keyOf(host: string, domain: string | undefined): string {
  if (domain === undefined || !host.endsWith(domain)) return host
  const label = host.slice(0, -domain.length)
  const shares = label === '' || (label.length > 1 && label.indexOf('.') === label.length - 1)
  return shares ? `*.${domain}` : host
}

/** What a public CA can give a certificate for. */
export function isCertifiable(name: string): boolean {
  const host = isWildcard(name) ? name.slice(2) : name
  return (
    host.length <= 240 && /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])$/.test(host)
  )
}
