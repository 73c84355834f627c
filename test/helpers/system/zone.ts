import { createSocket, type RemoteInfo } from 'node:dgram'
import { once } from 'node:events'

const TYPES = { A: 1, NS: 2, CNAME: 5, SOA: 6, TXT: 16 } as const
type Type = keyof typeof TYPES

/** What a name has: addresses, name servers, what it is an alias of, texts. */
export type Records = Partial<Record<'A' | 'NS' | 'CNAME' | 'TXT', string[]>>

export interface Zone {
  readonly port: number
  /** By name, in lower case and without a dot at the end; it may change while it is asked. */
  readonly names: Map<string, Records>
  /** `TYPE name`, of each question. */
  readonly asked: string[]
  /** Says nothing any more. */
  silent: boolean
  close(): void
}

/** A DNS server over UDP (RFC 1035) that knows what it is told, and one name in each of its answers' questions. */
export async function startZone(names: Record<string, Records>, host = '127.0.0.1', at = 0): Promise<Zone> {
  const socket = createSocket('udp4')
  socket.bind(at, host)
  await once(socket, 'listening')
  const zone = {
    port: socket.address().port,
    names: new Map(Object.entries(names)),
    asked: [] as string[],
    silent: false,
    close: () => socket.close(),
  }
  socket.on('message', (message: Buffer, from: RemoteInfo) => {
    const answer = zone.silent ? undefined : answerTo(message, zone)
    if (answer) socket.send(answer, from.port, from.address)
  })
  return zone
}

function answerTo(message: Buffer, zone: Zone): Buffer | undefined {
  const labels: string[] = []
  let at = 12
  for (let length = message[at] ?? 0; length > 0; length = message[at] ?? 0) {
    labels.push(message.toString('latin1', at + 1, at + 1 + length))
    at += 1 + length
  }
  const question = message.subarray(12, at + 5)
  const code = message.readUInt16BE(at + 1)
  const name = labels.join('.').toLowerCase()
  const type = (Object.keys(TYPES) as Type[]).find((one) => TYPES[one] === code)
  zone.asked.push(`${type ?? code} ${name}`)
  const records = zone.names.get(name)
  const answers: Buffer[] = []
  // What asks for TXT is told what the alias has as well, as resolvers do.
  for (const alias of (type !== 'CNAME' && records?.CNAME) || []) {
    answers.push(record(name, 'CNAME', encodeName(alias)))
    for (const value of valuesOf(zone.names.get(alias), type)) answers.push(record(alias, type ?? 'A', value))
  }
  for (const value of valuesOf(records, type)) answers.push(record(name, type ?? 'A', value))
  const header = Buffer.alloc(12)
  message.copy(header, 0, 0, 2)
  // An answer, with authority; NXDOMAIN for what is not known.
  header.writeUInt16BE(0x8400 | (message.readUInt16BE(2) & 0x0100) | (records ? 0 : 3), 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(answers.length, 6)
  return Buffer.concat([header, question, ...answers])
}

function valuesOf(records: Records | undefined, type: Type | undefined): Buffer[] {
  if (!records || type === undefined || type === 'SOA') return []
  return (records[type] ?? []).map((value) => {
    if (type === 'A') return Buffer.from(value.split('.').map(Number))
    if (type === 'TXT') return Buffer.concat([Buffer.from([value.length]), Buffer.from(value)])
    return encodeName(value)
  })
}

function record(name: string, type: Type, data: Buffer): Buffer {
  const fixed = Buffer.alloc(10)
  fixed.writeUInt16BE(TYPES[type], 0)
  fixed.writeUInt16BE(1, 2)
  // An hour: nobody who looks for what has just been written may keep it.
  fixed.writeUInt32BE(3600, 4)
  fixed.writeUInt16BE(data.length, 8)
  return Buffer.concat([encodeName(name), fixed, data])
}

function encodeName(name: string): Buffer {
  const labels = name.split('.').map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)]))
  return Buffer.concat([...labels, Buffer.from([0])])
}
