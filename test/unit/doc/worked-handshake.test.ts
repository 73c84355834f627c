import assert from 'node:assert/strict'
import { createPrivateKey, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Acceptor, derivePsk, makeToken } from '../../../lib/core/index.ts'
import { NoiseHandshake, rawPublicKey, x25519PrivateKey } from '../../../lib/core/noise.ts'
import { openRecord, RecordKeys, sealRecord } from '../../../lib/core/record.ts'
import { memoryPair } from '../../../lib/transports/memory.ts'

// The worked handshake of doc/protocol.md: keys that count upwards, everything else computed from them. Payloads and
// frames are written out byte by byte, so that what the page shows does not depend on the code that it describes.

const PAGE = readFileSync(new URL('../../../../doc/protocol.md', import.meta.url), 'utf8')

const hex = (text: string): Buffer => Buffer.from(text.replace(/\s+/g, ''), 'hex')
const counting = (from: number, length: number): Buffer => Buffer.from(Array.from({ length }, (_, i) => from + i))

/** `name   hex`, 32 bytes a line. */
function block(lines: Record<string, Uint8Array | string>): string {
  const rows = Object.entries(lines).flatMap(([name, value]) => {
    const parts =
      typeof value === 'string'
        ? [value]
        : (Buffer.from(value)
            .toString('hex')
            .match(/.{1,64}/g) ?? [''])
    return parts.map((part, index) => `${(index === 0 ? name : '').padEnd(28)}${part}`)
  })
  return ['```', ...rows, '```'].join('\n')
}

function assertShown(lines: Record<string, Uint8Array | string>): void {
  const text = block(lines)
  assert.ok(PAGE.includes(text), `doc/protocol.md does not contain this block:\n\n${text}\n`)
}

const serverKey = x25519PrivateKey(counting(0x10, 32))
const diallerKey = x25519PrivateKey(counting(0x30, 32))
const acceptorKey = x25519PrivateKey(counting(0x50, 32))
const nodeKey = createPrivateKey({
  key: Buffer.concat([hex('302e020100300506032b657004220420'), counting(0x70, 32)]),
  format: 'der',
  type: 'pkcs8',
})
const nodePublicKey = hex(Buffer.from(nodeKey.export({ format: 'jwk' }).x ?? '', 'base64url').toString('hex'))

const token = makeToken(counting(0, 16), rawPublicKey(serverKey))
const preamble = hex('f5 53 59 4d  01  02  00')
// session (16), epoch, features, sub-connections, pending opens
const payload1 = hex('00000000000000000000000000000000  00000000  00000000  00004000  00000400')
// session (16), resumed, features, sub-connections, pending opens
const payload2 = Buffer.concat([counting(0xa0, 16), hex('00  00000000  00004000  00000400')])

const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255])
const u32 = (value: number): Buffer => Buffer.concat([u16(value >>> 16), u16(value & 0xffff)])
const frame = (type: number, id: number, payload: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from([type]), u32(id), Buffer.from([0]), u16(payload.length), payload])
const proven = (hash: Uint8Array): Buffer => Buffer.concat([Buffer.from('symport node key, dialler\0'), hash])

function diallersHello(hash: Uint8Array): Buffer {
  const label = Buffer.from('node-1')
  const proof = Buffer.concat([nodePublicKey, sign(null, proven(hash), nodeKey)])
  const fields = [hex('01'), u16(label.length), label, hex('02'), u16(proof.length), proof]
  return frame(0x00, 0, Buffer.concat([hex('0000000000000000'), ...fields]))
}

const request = '{"to":{"Domain":"tcp","Addr":"127.0.0.1:80"},"from":"192.0.2.1:49152"}'
const open = frame(0x10, 1, Buffer.concat([u32(262_144), Buffer.from(request)]))
const data = frame(0x12, 1, Buffer.from('hello'))
const opened = frame(0x11, 1, u32(262_144))

async function work() {
  const psk = await derivePsk(token, '', 'NKpsk0')
  const common = { suite: 'NKpsk0', prologue: preamble, psk, static: serverKey } as const
  const dialler = new NoiseHandshake({ ...common, initiator: true, ephemeral: diallerKey })
  const acceptor = new NoiseHandshake({ ...common, initiator: false, ephemeral: acceptorKey })
  const message1 = dialler.write(payload1)
  assert.deepEqual(acceptor.read(message1), payload1)
  const message2 = acceptor.write(payload2)
  assert.deepEqual(dialler.read(message2), payload2)
  assert.deepEqual(dialler.split(), acceptor.split())
  const [toAcceptor, toDialler] = dialler.split()
  return { psk, message1, message2, hash: dialler.hash, toAcceptor, toDialler }
}

test('doc/protocol.md shows the worked handshake of a token', async () => {
  const { psk, message1, message2, hash, toAcceptor, toDialler } = await work()
  assertShown({
    'server private key': counting(0x10, 32),
    'server public key': rawPublicKey(serverKey),
    'dialler ephemeral, private': counting(0x30, 32),
    'dialler ephemeral, public': rawPublicKey(diallerKey),
    'acceptor ephemeral, private': counting(0x50, 32),
    'acceptor ephemeral, public': rawPublicKey(acceptorKey),
    token,
    psk,
  })
  assertShown({ preamble, 'payload 1': payload1, length: u16(message1.length), 'message 1': message1 })
  assertShown({ answer: hex('01'), 'payload 2': payload2, length: u16(message2.length), 'message 2': message2 })
  assertShown({ 'handshake hash': hash, 'Split, to acceptor': toAcceptor, 'Split, to dialler': toDialler })
})

test('doc/protocol.md shows the first records of the worked handshake', async () => {
  const { hash, toAcceptor, toDialler } = await work()
  const dialler = new RecordKeys(toAcceptor)
  const acceptor = new RecordKeys(toDialler)
  assertShown({ 'record key, to acceptor': dialler.current.bytes, 'record key, to dialler': acceptor.current.bytes })

  const seal = (keys: RecordKeys, ...frames: Buffer[]): Buffer => Buffer.concat(sealRecord(keys, Buffer.concat(frames)))
  const nonce = (number: number): Buffer => Buffer.concat([Buffer.alloc(8), u32(number)])
  const hello0 = diallersHello(hash)
  assertShown({
    'node key, private': counting(0x70, 32),
    'node key, public': nodePublicKey,
    signed: proven(hash),
    signature: sign(null, proven(hash), nodeKey),
    'frame hello': hello0,
    nonce: nonce(0),
    record: seal(dialler, hello0),
  })
  const hello1 = frame(0x00, 0, hex('0000000000000000'))
  assertShown({ 'frame hello': hello1, nonce: nonce(0), record: seal(acceptor, hello1) })
  assertShown({ 'frame open': open, 'frame data': data, nonce: nonce(1), record: seal(dialler, open, data) })
  const ack = frame(0x01, 0, hex('0000000000000001'))
  assertShown({ 'frame opened': opened, nonce: nonce(1), record: seal(acceptor, opened) })
  assertShown({ 'frame ack': ack, nonce: nonce(2), record: seal(acceptor, ack) })
})

test('doc/protocol.md shows the worked handshake of a chosen secret', async () => {
  const name = 'office'
  const secret = 'correct horse battery staple'
  const prologue = Buffer.concat([hex('f5 53 59 4d  01  01  06'), Buffer.from(name)])
  const psk = await derivePsk(secret, name, 'NNpsk0')
  const common = { suite: 'NNpsk0', prologue, psk } as const
  const dialler = new NoiseHandshake({ ...common, initiator: true, ephemeral: diallerKey })
  const acceptor = new NoiseHandshake({ ...common, initiator: false, ephemeral: acceptorKey })
  const message1 = dialler.write(payload1)
  acceptor.read(message1)
  const message2 = acceptor.write(payload2)
  dialler.read(message2)
  const [toAcceptor, toDialler] = dialler.split()
  assertShown({
    name,
    secret,
    psk,
    preamble: prologue,
    'message 1': message1,
    'message 2': message2,
    'handshake hash': dialler.hash,
    'record key, to acceptor': new RecordKeys(toAcceptor).current.bytes,
    'record key, to dialler': new RecordKeys(toDialler).current.bytes,
  })
})

test('an acceptor takes a dialler that sends what the page shows', async () => {
  const psk = await derivePsk(token, '', 'NKpsk0')
  const links = memoryPair()
  const acceptor = new Acceptor({ staticKey: serverKey, pskFor: async (name) => (name === '' ? psk : undefined) })
  const accepting = acceptor.accept(links.b)

  let received = Buffer.alloc(0)
  let look = (): void => {}
  links.a.start({
    received(bytes) {
      received = Buffer.concat([received, bytes])
      look()
      return true
    },
    drained() {},
    ended() {},
    closed() {},
  })
  const read = async (length: number): Promise<Buffer> => {
    while (received.length < length) {
      await new Promise<void>((resolve) => {
        look = resolve
      })
    }
    const bytes = received.subarray(0, length)
    received = received.subarray(length)
    return bytes
  }

  const noise = new NoiseHandshake({
    suite: 'NKpsk0',
    initiator: true,
    prologue: preamble,
    psk,
    static: serverKey,
    ephemeral: diallerKey,
  })
  const message1 = noise.write(payload1)
  links.a.write([preamble, u16(message1.length), message1])
  assert.equal((await read(1))[0], 1)
  const payload = noise.read(await read((await read(2)).readUInt16BE(0)))
  assert.deepEqual(payload.subarray(16), payload2.subarray(16))
  const [toAcceptor, toDialler] = noise.split()
  links.a.write(sealRecord(new RecordKeys(toAcceptor), diallersHello(noise.hash)))

  const { main } = await accepting
  assert.equal(main.peer.label, 'node-1')
  assert.deepEqual(main.peer.key, nodePublicKey)
  const head = await read(4)
  const record = Buffer.concat([head, await read(head.readUInt32BE(0))])
  const hello = Buffer.concat(openRecord(new RecordKeys(toDialler), record, 0, record.length - 4))
  assert.deepEqual(hello, frame(0x00, 0, hex('0000000000000000')))
  main.close()
  links.a.destroy()
  await main.closed
})
