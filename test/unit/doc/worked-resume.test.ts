import assert from 'node:assert/strict'
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createPrivateKey,
  hkdfSync,
  type KeyObject,
  sign,
} from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Acceptor, derivePsk, makeToken, Proxy } from '../../../lib/core/index.ts'
import { NoiseHandshake, rawPublicKey, x25519PrivateKey } from '../../../lib/core/noise.ts'
import { memoryPair } from '../../../lib/transports/memory.ts'
import { ByteStream } from '../../helpers/core/byte-stream.ts'
import { frame, hex, openPayload, PREAMBLE, u32, u64, withLength } from '../../helpers/core/bytes.ts'

// The worked resume of doc/protocol.md: the session of the worked handshake goes on with a second link. Keys and records
// are computed here as the page says, not by lib/core, so that page and code are held against each other.

const PAGE = readFileSync(new URL('../../../../doc/protocol.md', import.meta.url), 'utf8')

const counting = (from: number, length: number): Buffer => Buffer.from(Array.from({ length }, (_, i) => from + i))

/** The page has the block `name   hex`, 32 bytes a line. */
function assertShown(lines: Record<string, Uint8Array | string>): void {
  const rows = Object.entries(lines).flatMap(([name, value]) => {
    const text = typeof value === 'string' ? value : Buffer.from(value).toString('hex')
    return (text.match(/.{1,64}/g) ?? []).map((part, index) => `${(index === 0 ? name : '').padEnd(28)}${part}`)
  })
  const text = ['```', ...rows, '```'].join('\n')
  assert.ok(PAGE.includes(text), `doc/protocol.md does not contain this block:\n\n${text}\n`)
}

const serverKey = x25519PrivateKey(counting(0x10, 32))
const token = makeToken(counting(0, 16), rawPublicKey(serverKey))
const nodeKey = createPrivateKey({
  key: Buffer.concat([hex('302e020100300506032b657004220420'), counting(0x70, 32)]),
  format: 'der',
  type: 'pkcs8',
})
const LIMITS = hex('00000000 00004000 00000400')
const firstPayload1 = Buffer.concat([Buffer.alloc(16), u32(0), LIMITS])

type Split = readonly [toAcceptor: Buffer, toDialler: Buffer]

function noiseOf(psk: Buffer, initiator: boolean, ephemeral?: KeyObject): NoiseHandshake {
  return new NoiseHandshake({
    suite: 'NKpsk0',
    initiator,
    prologue: PREAMBLE.NKpsk0,
    psk,
    static: serverKey,
    ephemeral,
  })
}

const resumeSecretOf = (split: Split, hash: Uint8Array): Buffer =>
  Buffer.from(hkdfSync('sha256', Buffer.concat(split), hash, 'symport resume', 32))

function recordKey(split: Uint8Array, salt: Uint8Array = new Uint8Array(0)): Buffer {
  const chain = Buffer.from(hkdfSync('sha256', split, salt, 'symport chain', 32))
  return createHmac('sha256', chain).update('key\x01').digest().subarray(0, 16)
}

const nonceOf = (number: number): Buffer => Buffer.concat([Buffer.alloc(4), u64(number)])

function seal(key: Uint8Array, number: number, plain: Uint8Array): Buffer {
  const length = u32(plain.length + 16)
  const cipher = createCipheriv('aes-128-gcm', key, nonceOf(number)).setAAD(length)
  return Buffer.concat([length, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
}

/** The next record of a link, opened. */
async function open(stream: ByteStream, key: Uint8Array, number: number): Promise<{ plain: Buffer; record: Buffer }> {
  const length = await stream.read(4)
  const body = await stream.read(length.readUInt32BE())
  const decipher = createDecipheriv('aes-128-gcm', key, nonceOf(number), { authTagLength: 16 })
  decipher.setAAD(length).setAuthTag(body.subarray(-16))
  const plain = Buffer.concat([decipher.update(body.subarray(0, -16)), decipher.final()])
  return { plain, record: Buffer.concat([length, body]) }
}

const statement = (hash: Uint8Array): Buffer => Buffer.concat([Buffer.from('symport node key, dialler\0'), hash])

function diallersHello(expected: number, hash: Uint8Array): Buffer {
  const raw = Buffer.from(nodeKey.export({ format: 'jwk' }).x ?? '', 'base64url')
  const proof = Buffer.concat([raw, sign(null, statement(hash), nodeKey)])
  const label = Buffer.from('node-1')
  return frame(0x00, 0, Buffer.concat([u64(expected), hex('01'), withLength(label), hex('02'), withLength(proof)]))
}

/** Both sides of a handshake; what the dialler has then. */
function shake(psk: Buffer, ephemerals: readonly [number, number], payload1: Buffer, payload2: Buffer) {
  const dialler = noiseOf(psk, true, x25519PrivateKey(counting(ephemerals[0], 32)))
  const acceptor = noiseOf(psk, false, x25519PrivateKey(counting(ephemerals[1], 32)))
  const message1 = dialler.write(payload1)
  acceptor.read(message1)
  const message2 = acceptor.write(payload2)
  dialler.read(message2)
  return { message1, message2, hash: dialler.hash, split: dialler.split() }
}

test('doc/protocol.md shows the worked resume', async () => {
  const psk = await derivePsk(token, '', 'NKpsk0')
  const session = counting(0xa0, 16)
  const first = shake(psk, [0x30, 0x50], firstPayload1, Buffer.concat([session, hex('00'), LIMITS]))
  const secret = resumeSecretOf(first.split, first.hash)
  assertShown({ 'resume secret': secret })

  const payload1 = Buffer.concat([session, u32(1), LIMITS])
  const payload2 = Buffer.concat([session, hex('01'), LIMITS])
  const { message1, message2, hash, split } = shake(psk, [0xb0, 0xd0], payload1, payload2)
  assertShown({
    'dialler ephemeral, private': counting(0xb0, 32),
    'acceptor ephemeral, private': counting(0xd0, 32),
    preamble: PREAMBLE.NKpsk0,
    'payload 1': payload1,
    'message 1': message1,
    answer: hex('01'),
    'payload 2': payload2,
    'message 2': message2,
  })
  const [toAcceptor, toDialler] = [recordKey(split[0], secret), recordKey(split[1], secret)]
  assertShown({
    'handshake hash': hash,
    'Split, to acceptor': split[0],
    'Split, to dialler': split[1],
    'record key, to acceptor': toAcceptor,
    'record key, to dialler': toDialler,
  })

  const hello0 = diallersHello(0, hash)
  assertShown({
    signed: statement(hash),
    signature: sign(null, statement(hash), nodeKey),
    'frame hello': hello0,
    nonce: nonceOf(0),
    record: seal(toAcceptor, 0, hello0),
  })
  const hello1 = frame(0x00, 0, u64(1))
  assertShown({ 'frame hello': hello1, nonce: nonceOf(0), record: seal(toDialler, 0, hello1) })
  const opened = frame(0x11, 1, u32(262_144))
  assertShown({ 'frame opened': opened, nonce: nonceOf(1), record: seal(toDialler, 1, opened) })
})

test('an acceptor goes on with a session, and re-sends, as the page shows', async () => {
  const psk = await derivePsk(token, '', 'NKpsk0')
  const acceptor = new Acceptor({ staticKey: serverKey, pskFor: async () => psk })

  const dial = async (payload1: Buffer) => {
    const links = memoryPair()
    const accepted = acceptor.accept(links.b)
    const stream = new ByteStream(links.a)
    const noise = noiseOf(psk, true)
    links.a.write([PREAMBLE.NKpsk0, withLength(noise.write(payload1))])
    assert.deepEqual(await stream.read(1), hex('01'))
    const payload2 = noise.read(await stream.read((await stream.read(2)).readUInt16BE()))
    return { link: links.a, accepted, stream, payload2, hash: noise.hash, split: noise.split() }
  }

  const first = await dial(firstPayload1)
  const session = first.payload2.subarray(0, 16)
  const [toAcceptor1, toDialler1] = [recordKey(first.split[0]), recordKey(first.split[1])]
  const request = openPayload(262_144, { to: { Domain: 'nowhere', Addr: 'x:1' } })
  first.link.write([seal(toAcceptor1, 0, diallersHello(0, first.hash))])
  first.link.write([seal(toAcceptor1, 1, frame(0x10, 1, request))])
  const { main } = await first.accepted
  const proxy = new Proxy(main)
  await open(first.stream, toDialler1, 0)
  // The answer has come, but the dialler will say that it has not.
  const lost = await open(first.stream, toDialler1, 1)
  assert.equal(lost.plain[0], 0x15)
  first.link.destroy()

  const second = await dial(Buffer.concat([session, u32(1), LIMITS]))
  assert.deepEqual(second.payload2.subarray(0, 17), Buffer.concat([session, hex('01')]))
  const secret = resumeSecretOf(first.split, first.hash)
  const [toAcceptor2, toDialler2] = [recordKey(second.split[0], secret), recordKey(second.split[1], secret)]
  second.link.write([seal(toAcceptor2, 0, diallersHello(0, second.hash))])
  const again = await second.accepted
  assert.equal(again.main, main)
  assert.equal(again.resumed, true)

  assert.deepEqual((await open(second.stream, toDialler2, 0)).plain, frame(0x00, 0, u64(1)))
  let number = 1
  let next = await open(second.stream, toDialler2, number)
  // Ack, ping and pong may come between.
  while ((next.plain[0] ?? 0) <= 0x03) next = await open(second.stream, toDialler2, ++number)
  assert.deepEqual(next.plain, lost.plain)
  assert.notDeepEqual(next.record, lost.record)

  proxy.close()
  second.link.destroy()
  await proxy.closed
})
