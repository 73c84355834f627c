import type { Socket } from 'node:net'

/** A request as a parser reads it that forgives nothing. */
export interface StrictRequest {
  readonly line: string
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly body: string
}

/** The first request in `bytes` and what stands behind it. Undefined: there is more to come. Throws at the least doubt. */
export function readStrictly(bytes: string): { request: StrictRequest; rest: string } | undefined {
  const end = bytes.indexOf('\r\n\r\n')
  if (end < 0) return undefined
  const [line = '', ...lines] = bytes.slice(0, end).split('\r\n')
  if (!/^[A-Z]+ \/[\x21-\x7e\x80-\xff]* HTTP\/1\.1$/.test(line)) throw new Error(`request line ${JSON.stringify(line)}`)
  const headers = lines.map((text) => {
    const [, name, value] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t\x20-\x7e\x80-\xff]*)$/.exec(text) ?? []
    if (name === undefined || value === undefined) throw new Error(`header ${JSON.stringify(text)}`)
    return [name.toLowerCase(), value] as const
  })
  const values = (wanted: string): string[] => headers.flatMap(([name, value]) => (name === wanted ? [value] : []))
  const [length, coding] = [values('content-length'), values('transfer-encoding')]
  if (values('host').length !== 1) throw new Error('not one host')
  if (length.length + coding.length > 1) throw new Error(`lengths ${length} ${coding}`)
  const behind = bytes.slice(end + 4)
  if (coding.length > 0) {
    if (coding[0] !== 'chunked') throw new Error(`coding ${coding[0]}`)
    const read = readChunks(behind)
    return read && { request: { line, headers, body: read.body }, rest: read.rest }
  }
  const [size = '0'] = length
  if (!/^\d+$/.test(size)) throw new Error(`length ${size}`)
  if (behind.length < Number(size)) return undefined
  return { request: { line, headers, body: behind.slice(0, Number(size)) }, rest: behind.slice(Number(size)) }
}

function readChunks(bytes: string): { body: string; rest: string } | undefined {
  let body = ''
  for (let left = bytes; ; ) {
    const end = left.indexOf('\r\n')
    if (end < 0) return undefined
    const size = left.slice(0, end)
    if (!/^[0-9a-f]+$/i.test(size)) throw new Error(`chunk size ${JSON.stringify(size)}`)
    const length = Number.parseInt(size, 16)
    const after = end + 2 + length
    if (left.length < after + 2) return undefined
    if (left.slice(after, after + 2) !== '\r\n') throw new Error('no end of a chunk')
    if (length === 0) return { body, rest: left.slice(after + 2) }
    body += left.slice(end + 2, after)
    left = left.slice(after + 2)
  }
}

/** Answers each request with `ok`, and keeps it; what is in doubt is kept in `doubts`. */
export function strictTarget(requests: StrictRequest[], doubts: string[]): (socket: Socket) => void {
  return (socket) => {
    let bytes = ''
    socket.on('data', (chunk) => {
      bytes += chunk.toString('latin1')
      try {
        for (let read = readStrictly(bytes); read; read = readStrictly(bytes)) {
          requests.push(read.request)
          bytes = read.rest
          socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
        }
      } catch (error) {
        doubts.push(`${error}`)
        socket.destroy()
      }
    })
    socket.on('end', () => socket.end())
  }
}
