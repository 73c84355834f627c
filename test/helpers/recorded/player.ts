import assert from 'node:assert/strict'
import { Frame } from '../../../lib/core/frame.ts'
import {
  Acceptor,
  connect,
  connectWithKey,
  type Link,
  type MainConnection,
  type SubConnection,
} from '../../../lib/core/index.ts'
import { rawPublicKey, x25519PublicKey } from '../../../lib/core/noise.ts'
import { Proxy } from '../../../lib/core/proxy.ts'
import { memoryPair } from '../../../lib/transports/memory.ts'
import { type Hands, PSK, rawAccept, rawDial, rawKeys, SHARED_KEY, STATIC_KEY } from '../../fuzz/hands.ts'
import { RawLink } from '../../fuzz/raw-link.ts'
import { codeDomain } from '../contract/code.ts'
import { eventually, soon } from '../contract/strays.ts'
import { frame, u64 } from '../core/bytes.ts'
import { echo } from '../core/echo-domain.ts'
import type { Act, Fixture, RecordedLink, Step } from './fixture.ts'
import { essence, framesOf, hexOf, joined, type SeenFrame } from './frames.ts'

/** An answer that has not come by then will not. */
const PATIENCE_MS = 3000
/** An ack takes 100 ms at most. */
const ACK_MS = 1000
const RAW = { Domain: 'raw', Addr: 'there' }

export interface PlayOptions {
  /** Makes the answers anew instead of comparing them. */
  readonly record?: boolean
  /** How long an answer may take, in ms. Default 3,000. */
  readonly patience?: number
}

/**
 * Plays the raw side of a recorded session against the present code. Each `real` step is compared.
 */
export async function play(fixture: Fixture, options: PlayOptions = {}): Promise<Fixture> {
  const { record = false, patience = PATIENCE_MS } = options
  const player = new Player(fixture, patience)
  try {
    const links: RecordedLink[] = []
    for (const [number, link] of fixture.links.entries()) links.push(await player.link(link, number, record))
    await player.finish()
    return { ...fixture, links }
  } finally {
    player.clear()
  }
}

class Player {
  readonly #fixture: Fixture
  readonly #patience: number
  readonly #code = codeDomain()
  /** Links that the real side dials. */
  readonly #dialled: Link[] = []
  readonly #acceptor = new Acceptor({ pskFor: async () => PSK, staticKey: STATIC_KEY, label: 'real' })
  readonly #unseen: SeenFrame[] = []
  #proxy: Proxy | undefined
  #sub: SubConnection | undefined
  #listener: { close(): Promise<void> } | undefined
  #link: RawLink | undefined
  #session: Buffer = Buffer.alloc(16)
  #secret: Buffer = Buffer.alloc(32)
  #greeted: SeenFrame | undefined
  #sent = 0
  #acked = 0
  #received = 0
  #syncs = 0

  constructor(fixture: Fixture, patience: number) {
    this.#fixture = fixture
    this.#patience = patience
  }

  async link(recorded: RecordedLink, number: number, record: boolean): Promise<RecordedLink> {
    this.#link?.cut('rst')
    await this.#link?.over
    this.#greeted = undefined
    const { link, main, hands, handshake } = await this.#shakeHands(recorded, number)
    this.#link = link
    link.useKeys(hands, (plain) => this.#onRecord(plain))
    if (this.#fixture.raw === 'acceptor') await this.#greeting()
    link.send(this.#bytes(recorded.hello.raw))
    const hello = await this.#greeting()
    if (!record) assert.equal(hexOf(hello), recorded.hello.real, 'the hello of the real side')
    if (number === 0) this.#proxy = new Proxy(await soon(main, 'the main connection'), { domains: [echo, this.#code] })
    const steps: Step[] = record ? await this.#answers() : []
    for (const step of recorded.steps) {
      if ('real' in step) {
        if (!record) await this.#expect(step.real)
        continue
      }
      await this.#do(step)
      if (record) steps.push(step, ...(await this.#answers()))
    }
    await this.#checkEnd()
    const greetings = { raw: recorded.hello.raw, real: hexOf(hello) }
    return { ...(handshake ? { handshake } : {}), hello: greetings, steps: record ? steps : recorded.steps }
  }

  /** The session ended in order, or it is ended now. */
  async finish(): Promise<void> {
    const proxy = this.#proxy
    if (!proxy) return
    if (proxy.state !== 'closed') proxy.close()
    this.#link?.link.destroy()
    await soon(proxy.closed, 'the end')
  }

  clear(): void {
    this.#link?.link.destroy()
    this.#proxy?.close()
    for (const link of this.#dialled) link.destroy()
  }

  // --- links ---

  async #shakeHands(recorded: RecordedLink, number: number) {
    const { suite, raw } = this.#fixture
    const pair = memoryPair()
    const [preamble, payload1, payload2] = recorded.handshake ?? []
    if (suite === 'key' || !preamble || !payload1 || !payload2) {
      const role = raw === 'dialler' ? 'acceptor' : 'dialler'
      const main = connectWithKey(pair.b, { key: SHARED_KEY, role, label: 'real' })
      const link = new RawLink(pair.a)
      const hands = await soon(rawKeys(link, raw, Buffer.alloc(32, 0x52)), 'random bytes')
      assert.ok(hands, 'the link ended in the handshake')
      return { link, main, hands, handshake: undefined }
    }
    if (raw === 'dialler') {
      const accepting = this.#acceptor.accept(pair.b)
      const link = new RawLink(pair.a)
      const hands = await soon(rawDial(link, suite, this.#bytes(payload1), this.#secret), 'message 2')
      assert.ok(hands, 'the handshake was refused')
      if (number === 0) this.#begun(hands)
      this.#equal(hands.payload, payload2, 'payload 2')
      return { link, main: accepting.then(({ main }) => main), hands, handshake: recorded.handshake }
    }
    const main = number === 0 ? this.#dial(suite) : Promise.resolve(undefined as never)
    await eventually(() => this.#dialled.length > 0, 'the real side did not dial', PATIENCE_MS)
    const dialled = this.#dialled.shift()
    assert.ok(dialled)
    const link = new RawLink(dialled)
    const dialler = await soon(rawAccept(link), 'message 1')
    assert.ok(dialler, 'the dialler left in the handshake')
    this.#equal(dialler.preamble, preamble, 'the preamble')
    this.#equal(dialler.payload, payload1, 'payload 1')
    if (number === 0) this.#session = Buffer.alloc(16, 0x5e)
    const { hands, bytes } = dialler.answer(this.#bytes(payload2), this.#secret)
    if (number === 0) this.#begun(hands)
    link.sendRaw(bytes)
    return { link, main, hands, handshake: recorded.handshake }
  }

  #begun(hands: Hands): void {
    this.#session = Buffer.from(hands.session)
    this.#secret = hands.secret
  }

  #dial(suite: 'NNpsk0' | 'NKpsk0'): Promise<MainConnection> {
    const dial = async (): Promise<Link> => {
      const pair = memoryPair()
      this.#dialled.push(pair.a)
      return pair.b
    }
    const secret = { name: '', suite, psk: PSK, serverKey: x25519PublicKey(rawPublicKey(STATIC_KEY)) }
    return connect(dial, { secret, label: 'real' })
  }

  // --- what comes ---

  #onRecord(plain: Buffer): void {
    const frames = framesOf(plain)
    const [first] = frames
    if (!first) return
    if (first.type === Frame.hello) {
      this.#greeted = first
    } else if (first.type > Frame.pong) {
      this.#received++
      this.#unseen.push(...frames)
    } else {
      for (const seen of frames) this.#onUncounted(seen)
    }
  }

  #onUncounted(seen: SeenFrame): void {
    if (seen.type === Frame.ack) this.#acked = Number(seen.payload.readBigUInt64BE())
    else if (seen.type === Frame.ping) this.#link?.send(frame(Frame.pong, 0, seen.payload))
    else if (seen.payload.equals(u64(this.#syncs))) this.#syncs++
    else this.#unseen.push(seen)
  }

  async #greeting(): Promise<SeenFrame> {
    await eventually(() => this.#greeted !== undefined, 'no hello', PATIENCE_MS)
    assert.ok(this.#greeted)
    return this.#greeted
  }

  async #expect(texts: readonly string[]): Promise<void> {
    const expected = texts.flatMap((text) => framesOf(this.#bytes(text))).map(essence)
    const seen = (): string[] => joined(this.#unseen).map(essence)
    const until = performance.now() + this.#patience
    const same = (): boolean => JSON.stringify(seen()) === JSON.stringify(expected)
    while (!same() && performance.now() < until) await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(seen(), expected)
    this.#unseen.length = 0
  }

  async #answers(): Promise<Step[]> {
    await this.#settled()
    const frames = joined(this.#unseen.splice(0))
    return frames.length > 0 ? [{ real: frames.map(hexOf) }] : []
  }

  /** Nothing more comes of what was done: the real side has dealt with it, and had time for more. */
  async #settled(): Promise<void> {
    for (let round = 0; round < 3 && !this.#link?.gone; round++) {
      const before = this.#syncs
      this.#link?.send(frame(Frame.ping, 0, u64(before)))
      await eventually(() => this.#syncs > before || (this.#link?.gone ?? true), 'no pong', PATIENCE_MS)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  /** Nothing came that was not recorded, and all that was sent is acknowledged. */
  async #checkEnd(): Promise<void> {
    await this.#settled()
    assert.deepEqual(joined(this.#unseen).map(hexOf), [])
    if (this.#link?.gone) return
    await eventually(() => this.#acked === this.#sent, `${this.#acked} of ${this.#sent} records acknowledged`, ACK_MS)
  }

  // --- what is done ---

  async #do(step: { readonly raw: readonly string[] } | { readonly act: Act }): Promise<void> {
    if ('act' in step) {
      await this.#act(step.act)
      return
    }
    const plain = Buffer.concat(step.raw.map((text) => this.#bytes(text)))
    if ((plain[0] ?? 0) > Frame.pong) this.#sent++
    this.#link?.send(plain)
  }

  async #act(act: Act): Promise<void> {
    const proxy = this.#proxy
    assert.ok(proxy, 'there is a Proxy')
    switch (act) {
      case 'open':
        this.#hold(await proxy.open({ to: RAW, from: '192.0.2.7:7' }))
        break
      case 'come':
        await eventually(() => this.#code.listening > 0, 'nobody listens')
        this.#hold(await this.#code.open('192.0.2.5:5'))
        break
      case 'write':
        this.#sub?.write('from here')
        break
      case 'end':
        this.#sub?.end()
        break
      case 'destroy':
        this.#sub?.destroy()
        break
      case 'listen':
        // Answered in a later step.
        proxy.newPeerListener({ Listen: RAW, Forward: { Domain: 'echo', Addr: 'x' } }).then(
          (listener) => {
            this.#listener = listener
          },
          () => {},
        )
        break
      case 'unlisten':
        await eventually(() => this.#listener !== undefined, 'the listener is not there')
        await this.#listener?.close()
        break
      case 'close':
        proxy.close()
    }
  }

  #hold(sub: SubConnection): void {
    this.#sub = sub.resume()
  }

  // --- hex ---

  #bytes(text: string): Buffer {
    return Buffer.concat(text.split(' ').map((word) => this.#word(word)))
  }

  #word(word: string): Buffer {
    if (word === 'session') return this.#session
    if (word === 'received') return u64(this.#received)
    if (word === 'received-1') {
      // From here on it counts as not received.
      this.#received--
      return u64(this.#received)
    }
    const bytes = Buffer.from(word, 'hex')
    assert.equal(bytes.length * 2, word.length, `not hex: ${word}`)
    return bytes
  }

  #equal(bytes: Buffer, text: string, what: string): void {
    assert.equal(bytes.toString('hex'), this.#bytes(text).toString('hex'), what)
  }
}
