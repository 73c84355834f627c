import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import { connect, type TLSSocket } from 'node:tls'
import { NoiseHandshake } from '../../../lib/core/noise.ts'
import { openRecord, RecordKeys, sealRecord } from '../../../lib/core/record.ts'
import { type OnePortServer, onePortServer, PSK, selfSigned } from '../../helpers/contract/one-port.ts'
import { frame, hex, PREAMBLE, payload1, u64, withLength } from '../../helpers/core/bytes.ts'

// A node that knows no more than section 12 of doc/protocol.md connects by wss: the request is the one that the page shows,
// and WebSocket frames are written and read here (RFC 6455 section 5.2), so that the page is held against the code.

const PAGE = readFileSync(new URL('../../../../doc/protocol.md', import.meta.url), 'utf8')
const SECTION = /^## 12\. Links$(.*?)^## /ms.exec(PAGE)?.[1] ?? ''
const REQUEST = /^```\n(GET .*?)```$/ms.exec(SECTION)?.[1] ?? ''

const [BINARY, TEXT, CLOSE, PING, PONG] = [0x2, 0x1, 0x8, 0x9, 0xa]

/** A masked frame, as a client sends it. `final` is false for a fragment that goes on. */
function masked(opcode: number, payload: Uint8Array, final = true): Buffer {
  const mask = randomBytes(4)
  const length = payload.length
  const head = Buffer.from(length < 126 ? [0x80 | length] : [0x80 | 126, length >> 8, length & 255])
  const body = Buffer.from(payload).map((byte, index) => byte ^ (mask[index % 4] ?? 0))
  return Buffer.concat([Buffer.from([(final ? 0x80 : 0) | opcode]), head, mask, body])
}

class Stranger {
  readonly socket: TLSSocket
  #bytes = Buffer.alloc(0)
  /** What came in binary messages, one behind the other. */
  #link = Buffer.alloc(0)

  constructor(socket: TLSSocket) {
    this.socket = socket
    socket.on('error', () => {})
  }

  async #take(length: number): Promise<Buffer> {
    while (this.#bytes.length < length) {
      const chunk = this.socket.read()
      if (chunk instanceof Buffer) this.#bytes = Buffer.concat([this.#bytes, chunk])
      else await once(this.socket, 'readable')
    }
    const bytes = this.#bytes.subarray(0, length)
    this.#bytes = this.#bytes.subarray(length)
    return bytes
  }

  async head(): Promise<string> {
    let head = ''
    while (!head.endsWith('\r\n\r\n')) head += (await this.#take(1)).toString('latin1')
    return head
  }

  /** The next frame of the server, which masks nothing. */
  async frame(): Promise<{ opcode: number; payload: Buffer }> {
    const [first = 0, second = 0] = await this.#take(2)
    assert.equal(second & 0x80, 0)
    const length = second === 126 ? (await this.#take(2)).readUInt16BE() : second
    assert.notEqual(second, 127)
    assert.equal(first & 0x70, 0, 'no extensions')
    return { opcode: first & 0x0f, payload: await this.#take(length) }
  }

  /** The next bytes of the link. */
  async read(length: number): Promise<Buffer> {
    while (this.#link.length < length) {
      const { opcode, payload } = await this.frame()
      assert.equal(opcode, BINARY)
      this.#link = Buffer.concat([this.#link, payload])
    }
    const bytes = this.#link.subarray(0, length)
    this.#link = this.#link.subarray(length)
    return bytes
  }
}

describe('a stranger who has read the page', { timeout: 20_000 }, () => {
  const { pem, context } = selfSigned()
  let serving: Promise<OnePortServer> | undefined
  after(async () => {
    await (await serving)?.[Symbol.asyncDispose]()
  })

  async function ask(request: string): Promise<{ visitor: Stranger; head: string }> {
    serving ??= onePortServer({ tls: async () => context })
    const { port } = await serving
    const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', ca: pem, ALPNProtocols: ['http/1.1'] })
    await once(socket, 'secureConnect')
    assert.equal(socket.alpnProtocol, 'http/1.1')
    const visitor = new Stranger(socket)
    const key = randomBytes(16).toString('base64')
    socket.write(`${request.replace('Key: ...', `Key: ${key}`).replaceAll('\n', '\r\n')}\r\n`)
    return { visitor, head: await visitor.head() }
  }

  async function upgraded(): Promise<Stranger> {
    const { visitor, head } = await ask(REQUEST)
    assert.match(head, /^HTTP\/1\.1 101 /)
    assert.match(head, /^sec-websocket-protocol: symport\r$/im)
    assert.doesNotMatch(head, /^sec-websocket-extensions:/im)
    return visitor
  }

  test('connects by wss, whatever the borders of messages and fragments', async () => {
    const visitor = await upgraded()
    const { socket } = visitor
    const noise = new NoiseHandshake({ suite: 'NNpsk0', initiator: true, prologue: PREAMBLE.NNpsk0, psk: PSK })
    const hello = Buffer.concat([PREAMBLE.NNpsk0, withLength(noise.write(payload1()))])
    for (const byte of hello.subarray(0, 10)) socket.write(masked(BINARY, Buffer.from([byte])))
    socket.write(masked(BINARY, Buffer.alloc(0)))
    socket.write(masked(BINARY, hello.subarray(10, 20), false))
    socket.write(masked(0, hello.subarray(20)))
    assert.deepEqual(await visitor.read(1), hex('01'))
    noise.read(await visitor.read((await visitor.read(2)).readUInt16BE()))
    const [toAcceptor, toDialler] = noise.split()
    socket.write(masked(BINARY, Buffer.concat(sealRecord(new RecordKeys(toAcceptor), frame(0x00, 0, u64(0))))))
    const length = await visitor.read(4)
    const record = Buffer.concat([length, await visitor.read(length.readUInt32BE())])
    const answer = Buffer.concat(openRecord(new RecordKeys(toDialler), record, 0, record.length - 4))
    assert.deepEqual(answer, frame(0x00, 0, u64(0)))
    socket.destroy()
  })

  test('is answered a ping, and its close frame', async () => {
    const visitor = await upgraded()
    visitor.socket.write(masked(PING, Buffer.from('here?')))
    assert.deepEqual(await visitor.frame(), { opcode: PONG, payload: Buffer.from('here?') })
    visitor.socket.write(masked(CLOSE, hex('03e8')))
    let last = await visitor.frame()
    // The acceptor may say that it refuses, before it ends.
    while (last.opcode === BINARY) last = await visitor.frame()
    assert.deepEqual(last, { opcode: CLOSE, payload: hex('03e8') })
    visitor.socket.destroy()
  })

  test('is told 1003 for text, and 1009 for a message above the bound that the page names', async () => {
    const talker = await upgraded()
    talker.socket.write(masked(TEXT, Buffer.from('hello')))
    assert.deepEqual(await talker.frame(), { opcode: CLOSE, payload: hex('03eb') })
    talker.socket.destroy()

    assert.match(SECTION, /receiver takes up to 131,072, in at most 1,024 fragments/)
    const shouter = await upgraded()
    shouter.socket.write(masked(BINARY, Buffer.alloc(65_535, 0xff), false))
    shouter.socket.write(masked(0, Buffer.alloc(65_535, 0xff), false))
    shouter.socket.write(masked(0, Buffer.alloc(3, 0xff)))
    assert.deepEqual(await shouter.frame(), { opcode: CLOSE, payload: hex('03f1') })
    shouter.socket.destroy()
  })

  test('finds the WebSocket at / with the subprotocol only, and not as a page of another site', async () => {
    const statusOf = async (request: string): Promise<string> => {
      const { visitor, head } = await ask(request)
      visitor.socket.destroy()
      return head.slice(9, 12)
    }
    const atRoot = REQUEST.replace('/symport HTTP', '/ HTTP')
    assert.equal(await statusOf(atRoot), '101')
    assert.equal(await statusOf(atRoot.replace(/^Sec-WebSocket-Protocol.*\n/m, '')), '404')
    assert.equal(await statusOf(REQUEST.replace(/^Sec-WebSocket-Protocol.*\n/m, '')), '101')
    assert.equal(await statusOf(`${REQUEST}Origin: https://evil.example\n`), '403')
  })
})
