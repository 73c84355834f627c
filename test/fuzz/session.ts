import { Frame } from '../../lib/core/frame.ts'
import type { Role } from '../../lib/core/handshake.ts'
import {
  Acceptor,
  connect,
  connectWithKey,
  type Link,
  type MainConnection,
  type MainOptions,
} from '../../lib/core/index.ts'
import { rawPublicKey, type Suite, x25519PublicKey } from '../../lib/core/noise.ts'
import { type MemoryOptions, memoryPair } from '../../lib/transports/memory.ts'
import { frame, u64 } from '../helpers/core/bytes.ts'
import {
  firstPayload,
  type Hands,
  PSK,
  rawAccept,
  rawDial,
  rawKeys,
  SHARED_KEY,
  STATIC_KEY,
  secondPayload,
} from './hands.ts'
import { Model, type Piece, type Types } from './model.ts'
import { encode, mutateBytes, mutateFrame, mutateGently, walk } from './mutations.ts'
import type { Witness } from './oracle.ts'
import type { Random } from './random.ts'
import { RawLink } from './raw-link.ts'
import { Subject } from './subject.ts'

/** What a run has done so far. */
export interface Tally extends Types {
  sessions: number
  frames: number
  mutated: number
  /** Links of sessions that were tried again, and those of them that were taken. */
  resumes: number
  resumed: number
  handshakes: number
}

/** How long anything may take that a peer waits for, in ms. */
const PATIENCE = 10_000
const NEW_SESSION = Buffer.alloc(16)
const MAX_STEPS = 250
const PUBLIC_KEY = x25519PublicKey(rawPublicKey(STATIC_KEY))
/** Bounds of the real side that a session of this length can meet. */
const MAINS: readonly MainOptions[] = [
  { resumeTimeout: 450 },
  {
    resumeTimeout: 450,
    limits: { keptBytes: 20_000, windowBytes: 100_000, subConnections: 20, pendingOpens: 3, listeners: 3 },
  },
  { resumeTimeout: 300, keepalive: { idle: 60, timeout: 60 } },
]

/** The real side that accepts: one for all sessions of a run, so that what it forgets to forget adds up. */
export function acceptors(): readonly Acceptor[] {
  return MAINS.map(
    (main) =>
      new Acceptor({
        ...main,
        pskFor: async (name) => (name === '' ? PSK : undefined),
        staticKey: STATIC_KEY,
        timeout: 1000,
      }),
  )
}

export interface Surroundings {
  readonly witness: Witness
  readonly tally: Tally
  readonly acceptors: readonly Acceptor[]
}

/** Resolves as `promise` does, or with undefined when it takes longer than anything may. */
async function within<T>(promise: Promise<T>, ms: number = PATIENCE): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

const KNOWN: ReadonlySet<number> = new Set(Object.values(Frame))
const helloFrame = (payload: Uint8Array): Buffer => frame(Frame.hello, 0, payload)
const pingFrame = (payload: Uint8Array): Buffer => frame(Frame.ping, 0, payload)
const isCounted = (plain: Buffer): boolean => plain[0] === Frame.hello || (plain[0] ?? 0) > Frame.pong

/** One session of a raw side, which holds the keys and does what it likes, with a real one. */
export class FuzzedSession {
  readonly #around: Surroundings
  readonly #random: Random
  /** The raw side's. */
  readonly #role: Role
  readonly #suite: Suite | 'key'
  readonly #model: Model
  readonly #mainOptions: MainOptions
  readonly #acceptor: Acceptor | undefined
  /** How many frames are changed, and how many of these so that the session may survive it. */
  readonly #rate: number
  readonly #gentleness: number
  #link: RawLink | undefined
  #subject: Subject | undefined
  #renewed: MainConnection | undefined
  #session: Buffer = NEW_SESSION
  #secret: Buffer = NEW_SESSION
  #epoch = 0
  /** Counted records that were sent, all of them; what the real side has acknowledged, by ack or hello. */
  readonly #sent: Buffer[] = []
  #acked = 0
  /** The number of the next counted record that comes, and those that came, by their numbers. */
  #received = 0
  /** What was acknowledged to the real side, whether it had come or not. */
  #told = 0
  readonly #seen: Buffer[] = []
  #greeted = false
  /** Whether the hello of the present link was a bad one. */
  #lied = false
  #pong: Buffer | undefined
  readonly #notify: (() => void)[] = []
  /** Links that a real dialler has dialled. */
  readonly #dialled: Link[] = []
  /** The last records, for whoever has to find out. */
  readonly trace: string[] = []

  constructor(around: Surroundings, random: Random) {
    this.#around = around
    this.#random = random
    this.#role = random.pick(['dialler', 'acceptor'])
    this.#suite = random.pick(['key', 'key', 'key', 'NNpsk0', 'NNpsk0', 'NKpsk0'])
    const kind = random.pick([0, 0, 0, 0, 1, 1, 2])
    this.#mainOptions = MAINS[kind] ?? {}
    this.#acceptor = around.acceptors[kind]
    this.#rate = random.pick([0.2, 0.6, 0.8, 0.95, 1])
    this.#gentleness = random.pick([0.5, 0.9, 0.98, 0.99])
    this.#model = new Model(this.#role, () => this.#received, around.tally)
  }

  async run(): Promise<void> {
    this.#around.tally.sessions++
    const main = await this.#begin()
    if (!main) return
    void main.closed.then(() => this.#changed())
    await this.#until(() => this.#greeted)
    const subject = new Subject(main, this.#around.witness)
    this.#subject = subject
    for (let step = this.#random.between(1, MAX_STEPS); step > 0 && !main.reason; step--) {
      if (!this.#link || this.#link.gone) {
        if (this.#suite === 'key' || this.#random.chance(0.1) || !(await this.#goOn(main))) break
      }
      await this.#step(subject)
    }
    await this.#finish(subject)
  }

  // --- the first link ---

  /** Undefined where the real side has not taken it; it has said why then. */
  async #begin(): Promise<MainConnection | undefined> {
    const { link, real } = this.#connect()
    const main = real.catch((error) => void this.#around.witness.check(error, 'a handshake'))
    const hands = await this.#shakeHands(link, firstPayload(NEW_SESSION, 0))
    if (hands) {
      this.#use(link, hands)
      this.#session = Buffer.from(hands.session)
      this.#secret = hands.secret
      if (this.#role === 'acceptor') await this.#until(() => this.#greeted)
      link.send(this.#random.chance(0.05) ? this.#badHello(0) : helloFrame(u64(0)))
    }
    const taken = await within(main)
    if (!taken) link.link.destroy()
    return taken ?? undefined
  }

  #memory(): MemoryOptions {
    const fragment = this.#random.pick([0, 0, 0, 0, 2000, 20_000])
    return { ...(fragment > 0 ? { fragment } : {}), capacity: this.#random.pick([1000, 65_536, 262_144]) }
  }

  #connect(): { link: RawLink; real: Promise<MainConnection> } {
    const pair = memoryPair(this.#memory())
    const options = this.#mainOptions
    if (this.#suite === 'key') {
      const role = this.#role === 'dialler' ? 'acceptor' : 'dialler'
      return {
        link: new RawLink(pair.a),
        real: connectWithKey(pair.b, { ...options, key: SHARED_KEY, role, timeout: 1000 }),
      }
    }
    if (this.#role === 'dialler') return { link: new RawLink(pair.a), real: this.#knock(pair.b) }
    let first: Link | undefined = pair.b
    const dial = async (): Promise<Link> => {
      const link = first
      first = undefined
      if (link) return link
      const next = memoryPair(this.#memory())
      this.#dialled.push(next.a)
      this.#changed()
      return next.b
    }
    const secret = { name: '', suite: this.#suite, psk: PSK, serverKey: PUBLIC_KEY }
    const onRenewed = (main: MainConnection): void => {
      this.#renewed = main
      this.#changed()
    }
    return { link: new RawLink(pair.a), real: connect(dial, { ...options, secret, timeout: 1000, onRenewed }) }
  }

  async #knock(link: Link): Promise<MainConnection> {
    if (!this.#acceptor) throw new TypeError('nobody accepts')
    return (await this.#acceptor.accept(link)).main
  }

  async #shakeHands(link: RawLink, payload: Buffer): Promise<Hands | undefined> {
    if (this.#suite === 'key') return await rawKeys(link, this.#role, this.#random.bytes(32))
    if (this.#role === 'dialler') return await rawDial(link, this.#suite, payload)
    const dialler = await rawAccept(link)
    const answer = dialler?.answer(secondPayload(this.#random.bytes(16), 0))
    if (answer) link.sendRaw(answer.bytes)
    return answer?.hands
  }

  #use(link: RawLink, hands: Hands): void {
    this.#link = link
    this.#greeted = false
    link.useKeys(hands, (plain) => this.#onRecord(link, plain))
    void link.over.then(() => {
      if (link.fault) this.#fault(`a record that does not open: ${link.fault}`)
      this.#changed()
    })
  }

  // --- what comes ---

  #onRecord(link: RawLink, plain: Buffer): void {
    if (link !== this.#link) return
    const types: number[] = []
    const whole = walk(plain, (type) => types.push(type))
    if (!whole || types.some((type) => !KNOWN.has(type))) {
      this.#fault(`a record that is not well-formed: ${plain.toString('hex')}`)
    }
    if (!this.#greeted) {
      this.#greeted = true
      if (types.length !== 1 || (types[0] !== Frame.hello && types[0] !== Frame.goaway)) {
        this.#fault(`a first record of the types ${types}`)
      }
      if (types[0] === Frame.hello) this.#onHello(plain)
    } else if (isCounted(plain)) {
      this.#onCounted(plain, types)
    } else {
      if (types.some((type) => type > Frame.pong)) this.#fault(`an uncounted record with the types ${types}`)
      walk(plain, (type, _id, payload) => {
        if (type === Frame.pong) this.#pong = Buffer.from(payload)
        if (type === Frame.ack) this.#onAck(Number(payload.readBigUInt64BE()))
      })
    }
    this.#changed()
  }

  #onCounted(plain: Buffer, types: readonly number[]): void {
    if (types.some((type) => type <= Frame.pong)) this.#fault(`a counted record with the types ${types}`)
    const number = this.#received++
    const before = this.#seen[number]
    if (before) {
      // Whoever says an impossible number cannot tell the number of the goaway that answers it.
      const last = this.#lied && types.includes(Frame.goaway)
      if (!before.equals(plain) && !last) this.#fault(`record ${number} was sent again as another one`)
      return
    }
    this.#seen[number] = Buffer.from(plain)
    walk(plain, (type, id, payload) => {
      const fault = this.#model.received(type, id, payload)
      if (fault) this.#fault(fault)
    })
  }

  #onHello(plain: Buffer): void {
    this.#onAck(plain.length >= 16 ? Number(plain.readBigUInt64BE(8)) : -1)
  }

  #onAck(expected: number): void {
    if (expected < this.#acked || expected > this.#sent.length) {
      this.#fault(`an acknowledgement of ${expected}, outside ${this.#acked} to ${this.#sent.length}`)
    }
    this.#acked = expected
  }

  #tell(expected: number): void {
    if (expected > this.#told) this.#told = expected
  }

  #fault(what: string): void {
    this.#around.witness.fault(`the real side sent ${what}`)
  }

  #changed(): void {
    for (const resolve of this.#notify.splice(0)) resolve()
  }

  /** Resolves with true when it holds, with false when the link, the session or the patience ends before. */
  async #until(holds: () => boolean, needsLink = true): Promise<boolean> {
    const over = (): boolean => (needsLink && (this.#link?.gone ?? true)) || this.#subject?.main.reason !== undefined
    let late = false
    let moved = this.#moved
    const timer = setInterval(() => {
      late = this.#moved === moved
      moved = this.#moved
      if (late) this.#changed()
    }, PATIENCE)
    while (!holds() && !over() && !late) await new Promise<void>((resolve) => this.#notify.push(resolve))
    clearInterval(timer)
    if (late && !holds()) this.#around.witness.fault(`nothing happened within ${PATIENCE} ms: ${this.#described}`)
    return holds()
  }

  /** Grows as long as bytes move: much of them in small pieces takes its time. */
  get #moved(): number {
    return this.#link ? this.#link.total - this.#link.link.pending : 0
  }

  /** For whoever has to find out. */
  get #described(): string {
    const main = this.#subject?.main
    const real = main ? `${main.linked ? 'with' : 'without'} a link, ${main.reason?.code ?? 'alive'}` : 'not there'
    const link = !this.#link ? 'no link' : this.#link.gone ? 'a link that is gone' : 'a link'
    return `${this.#suite}, raw ${this.#role} with ${link}; real side ${real}. Last sent: ${this.trace.join(' ')}`
  }

  // --- what is sent ---

  async #step(subject: Subject): Promise<void> {
    const random = this.#random
    switch (random.weighted({ record: 40, burst: 10, act: 25, sealed: 1, cut: 2, probe: 1 })) {
      case 'record':
        this.#sendRecord()
        await this.#sync()
        break
      case 'burst':
        for (let left = random.between(2, 8); left > 0; left--) this.#sendRecord()
        await this.#sync()
        break
      case 'act':
        subject.act(random)
        break
      case 'sealed':
        await this.#sendBroken()
        break
      case 'cut':
        // There is no way back for those that began with a key.
        if (this.#suite === 'key' && random.chance(0.9)) break
        this.#link?.cut(random.pick(['fin', 'rst']))
        await this.#link?.over
        break
      case 'probe':
        if (this.#suite !== 'key' && this.#role === 'dialler') await this.#probe(subject.main)
    }
  }

  #sendRecord(): void {
    const { tally } = this.#around
    const random = this.#random
    const change = (piece: Piece): readonly Piece[] => {
      tally.frames++
      if (!random.chance(this.#rate)) return [piece]
      tally.mutated++
      const gently = random.chance(this.#gentleness) ? mutateGently(random, piece, this.#model) : undefined
      return gently ?? mutateFrame(random, piece, this.#model)
    }
    const pieces = this.#model.record(random, change)
    if (random.chance((1 - this.#gentleness) / 20)) pieces.sort(() => random.int(3) - 1)
    if (random.chance((1 - this.#gentleness) / 30)) pieces.splice(random.int(pieces.length + 1), 0, this.#stranger())
    let plain: Buffer = Buffer.concat(pieces.map(encode))
    if (random.chance((1 - this.#gentleness) / 30)) plain = mutateBytes(random, plain)
    this.#send(plain)
  }

  /** A frame that has no business among others. */
  #stranger(): Piece {
    const type = this.#random.pick([Frame.hello, Frame.ack, Frame.ping, Frame.pong, Frame.goaway, Frame.open])
    return { type, id: 0, payload: Buffer.alloc(8) }
  }

  #send(plain: Buffer): void {
    const link = this.#link
    // An empty record is too short to be one, and a longer one is cut by the real side before it is whole.
    if (!link || plain.length === 0 || plain.length > 524_272) return
    this.trace.push(`${plain.toString('hex', 0, 80)}${plain.length > 80 ? '...' : ''}`)
    if (this.trace.length > 3) this.trace.shift()
    walk(plain, (type, id, payload) => {
      this.#model.left(type, id, payload)
      if (type === Frame.ack && payload.length === 8) this.#tell(Number(payload.readBigUInt64BE()))
    })
    if (isCounted(plain)) this.#sent.push(plain)
    link.send(plain)
  }

  /** Waits until the real side has dealt with all that was sent, or does so no more. */
  async #sync(): Promise<boolean> {
    const nonce = this.#random.bytes(8)
    this.#link?.send(pingFrame(nonce))
    return await this.#until(() => this.#pong?.equals(nonce) ?? false)
  }

  /** Something is wrong outside the seal, or with it. It costs the link, and nothing else. */
  async #sendBroken(): Promise<void> {
    const link = this.#link
    if (!link) return
    const random = this.#random
    const plain = Buffer.concat(this.#model.record(random, (piece) => [piece]).map(encode))
    const record = link.seal(plain)
    if (isCounted(plain)) this.#sent.push(plain)
    walk(plain, (type, id, payload) => this.#model.left(type, id, payload))
    const rest = link.seal(pingFrame(random.bytes(8)))
    switch (random.weighted({ bytes: 5, twice: 1, order: 1, noise: 1 })) {
      case 'bytes':
        link.sendRaw(mutateBytes(random, record))
        break
      case 'twice':
        link.sendRaw(Buffer.concat([record, record]))
        break
      case 'order':
        link.sendRaw(rest)
        break
      case 'noise':
        link.sendRaw(random.bytes(random.between(1, 5000)))
    }
    link.sendRaw(rest)
    // It may wait for the end of a long record: then it is the link that ends.
    await within(link.over, 20)
    link.cut(random.pick(['fin', 'rst']))
    await link.over
  }

  // --- going on with another link ---

  /** Answers whether there is a link again. */
  async #goOn(main: MainConnection): Promise<boolean> {
    for (let tries = 0; tries < 6 && !main.reason; tries++) {
      this.#around.tally.resumes++
      const going = this.#role === 'dialler' ? await this.#dialAgain(main) : await this.#acceptAgain(main)
      if (going) {
        this.#around.tally.resumed++
        return true
      }
    }
    return false
  }

  /** A hello that goes on: with the number of the next record that is expected, or with something worse. */
  #badHello(expected: number): Buffer {
    const random = this.#random
    const near = Math.max(0, expected + random.pick([-2, -1, 1, 2]))
    switch (random.weighted({ near: 4, far: 1, fields: 3, bytes: 3, more: 1, other: 1 })) {
      case 'near':
        return helloFrame(u64(near))
      case 'far':
        return helloFrame(u64(random.pick([0n, 2n ** 32n, 2n ** 53n, 2n ** 64n - 1n])))
      case 'fields': {
        const length = random.pick([0, 1, 64, 65, 95, 96, 97])
        const field = Buffer.concat([Buffer.from([random.int(4), 0, length]), random.bytes(length)])
        return helloFrame(Buffer.concat([u64(expected), random.chance(0.3) ? mutateBytes(random, field) : field]))
      }
      case 'bytes':
        return mutateBytes(random, helloFrame(u64(expected)))
      case 'more':
        return Buffer.concat([helloFrame(u64(expected)), pingFrame(random.bytes(8))])
      case 'other':
        return Buffer.concat(this.#model.record(random, (piece) => [piece]).map(encode))
    }
  }

  /** What a hello says about the next record; as a real side reads it, too. */
  #numberIn(hello: Buffer): number {
    return hello.length >= 16 ? Number(hello.readBigUInt64BE(8)) : 0
  }

  /** Sends a hello, and what the real side has not got; answers whether the link stands. */
  async #rejoin(link: RawLink, hands: Hands, honest: boolean, main: MainConnection): Promise<boolean> {
    const begun = performance.now()
    // What a mutated acknowledgement told may be more than 8 bytes hold as a number.
    const before = Math.min(Math.max(this.#received, this.#told), Number.MAX_SAFE_INTEGER)
    const hello = honest ? helloFrame(u64(before)) : this.#badHello(before)
    this.#lied = !honest
    this.#use(link, hands)
    if (this.#role === 'acceptor' && !(await this.#until(() => this.#greeted))) return false
    // What comes behind the real side's hello begins with this number.
    this.#received = this.#numberIn(hello)
    link.send(hello)
    if (!(await this.#until(() => this.#greeted))) {
      this.#received = before
      if (honest) await this.#blame(main, begun, 'an honest resume was not taken')
      return false
    }
    this.#tell(this.#received)
    if (this.#received > this.#seen.length) this.#model.blind = true
    for (const plain of this.#sent.splice(this.#acked)) {
      this.#send(!honest && this.#random.chance(0.1) ? mutateBytes(this.#random, plain) : plain)
    }
    const standing = await this.#sync()
    if (honest && !standing) await this.#blame(main, begun, 'an honest resume came to nothing')
    return standing
  }

  /** Unless there was no time, or the session has ended at this very moment. */
  async #blame(main: MainConnection, begun: number, what: string): Promise<void> {
    if (performance.now() - begun > 300 || this.#mainOptions.keepalive) return
    await new Promise((resolve) => setTimeout(resolve, 20))
    if (!main.reason) this.#around.witness.fault(`${what}: ${this.#described}`)
  }

  async #dialAgain(main: MainConnection): Promise<boolean> {
    const random = this.#random
    const begun = performance.now()
    const how = random.weighted({ honest: 6, hello: 3, payload: 2, silent: 1 })
    this.#epoch = main.epoch + (how === 'payload' ? random.pick([0, -1, 1, 7]) : random.pick([1, 1, 1, 5]))
    if (this.#epoch < 0 || this.#epoch > 0xffff_ffff) return false
    const payload = firstPayload(this.#session, this.#epoch)
    const link = this.#tryAgain()
    const changed = how === 'payload' && random.chance(0.7) ? mutateBytes(random, payload) : payload
    const hands = await this.#dialWith(link, changed)
    if (!hands || how === 'silent') {
      if (how === 'honest') await this.#blame(main, begun, 'an honest resume was refused')
      link.link.destroy()
      return false
    }
    if (!hands.resumed) {
      if (how === 'honest') await this.#blame(main, begun, 'an honest resume was answered by a new session')
      link.useKeys(hands, () => {})
      link.send(helloFrame(u64(0)))
      return false
    }
    return await this.#rejoin(link, hands, how === 'honest', main)
  }

  async #dialWith(link: RawLink, payload: Buffer): Promise<Hands | undefined> {
    if (this.#suite === 'key') return undefined
    return await rawDial(link, this.#suite, payload, this.#secret)
  }

  /** A new link to the acceptor. What comes of it is looked at, and a session that nobody wanted is closed. */
  #tryAgain(): RawLink {
    const { witness } = this.#around
    const pair = memoryPair(this.#memory())
    this.#acceptor?.accept(pair.b).then(
      ({ main, resumed }) => {
        if (resumed !== (main === this.#subject?.main)) witness.fault('a resume led to another session')
        if (main !== this.#subject?.main) new Subject(main, witness).proxy.close()
      },
      (error) => witness.check(error, 'a handshake that resumes'),
    )
    const link = new RawLink(pair.a)
    void link.over.then(() => link.link.destroy())
    return link
  }

  /** Somebody tries to take the session over and cannot finish: the link that it has must not notice. */
  async #probe(main: MainConnection): Promise<void> {
    const random = this.#random
    const link = this.#tryAgain()
    const payload = firstPayload(this.#session, Math.max(0, main.epoch + random.pick([-1, 0, 1, 2, 1000])))
    const hands = await this.#dialWith(link, random.chance(0.3) ? mutateBytes(random, payload) : payload)
    if (hands) {
      const hello = Buffer.concat([Buffer.from([0, 0, 0, 32]), random.bytes(32)])
      if (random.chance(0.7)) link.sendRaw(mutateBytes(random, hello))
    }
    link.cut(random.pick(['fin', 'rst']))
    const begun = performance.now()
    if (!(await this.#sync()))
      await this.#blame(main, begun, 'a resume that was not finished has cost a session its link')
  }

  async #acceptAgain(main: MainConnection): Promise<boolean> {
    if (!(await this.#until(() => this.#dialled.length > 0, false))) return false
    // What it gave up meanwhile is of no use.
    const next = this.#dialled.pop()
    for (const old of this.#dialled.splice(0)) old.destroy()
    if (!next) return false
    const random = this.#random
    const link = new RawLink(next)
    void link.over.then(() => link.link.destroy())
    const dialler = await rawAccept(link)
    if (!dialler) return false
    const epoch = dialler.payload.readUInt32BE(16)
    if (!this.#session.equals(dialler.payload.subarray(0, 16)) || epoch <= this.#epoch) {
      this.#around.witness.fault(
        `a resume that asks for the wrong session, or with epoch ${epoch} after ${this.#epoch}`,
      )
    }
    this.#epoch = epoch
    const how = random.weighted({
      honest: 8,
      hello: 3,
      refused: 0.3,
      cut: 1,
      noise: 1,
      bytes: 1,
      payload: 2,
      renewed: 1,
    })
    if (how === 'refused' || how === 'noise')
      link.sendRaw(how === 'refused' ? Buffer.from([0]) : random.bytes(random.int(200)))
    if (how === 'refused' || how === 'noise' || how === 'cut') {
      link.cut(random.pick(['fin', 'rst']))
      return false
    }
    const session = how === 'renewed' ? random.bytes(16) : this.#session
    const payload = secondPayload(session, how === 'renewed' ? 0 : 1)
    const { hands, bytes } = dialler.answer(how === 'payload' ? mutateBytes(random, payload) : payload, this.#secret)
    link.sendRaw(how === 'bytes' ? mutateBytes(random, bytes) : bytes)
    if (how === 'honest' || how === 'hello') return await this.#rejoin(link, hands, how === 'honest', main)
    if (how === 'renewed') await this.#renew(link, hands, main)
    else await within(link.over, 30)
    link.link.destroy()
    return false
  }

  /** The session is told to be unknown: a new one stands on the same link, and the old one is over. */
  async #renew(link: RawLink, hands: Hands, main: MainConnection): Promise<void> {
    link.useKeys(hands, () => {})
    link.send(helloFrame(u64(0)))
    await this.#until(() => this.#renewed !== undefined, false)
    const renewed = this.#renewed
    // It may have run out of time just before.
    if (!renewed && main.reason) return
    if (!renewed || !(await within(main.closed))) {
      this.#around.witness.fault('a session that the peer does not know any more has not ended')
      return
    }
    const subject = new Subject(renewed, this.#around.witness)
    subject.proxy.close()
    await this.#gone(subject)
  }

  // --- the end ---

  async #finish(subject: Subject): Promise<void> {
    const link = this.#link
    const how = this.#random.weighted({ goaway: 3, cut: 3, close: 3, drain: 1 })
    if (how === 'drain') subject.drain()
    if (how === 'close' || !link || link.gone) subject.proxy.close()
    else if (how === 'goaway') link.send(frame(Frame.goaway, 0, Buffer.from([0])))
    if (how !== 'drain' && link) {
      if (how === 'cut') link.cut(this.#random.pick(['fin', 'rst']))
      else await within(link.over, 50)
    }
    if (how === 'drain' && link) await within(link.over, 100)
    link?.link.destroy()
    await this.#gone(subject)
    for (const dialled of this.#dialled) dialled.destroy()
  }

  /** The session ends within its time, and nothing of it is left. */
  async #gone(subject: Subject): Promise<void> {
    const reason = await within(subject.main.closed)
    if (!reason) {
      this.#around.witness.fault(`a session that does not end: ${this.#described}`)
      return
    }
    await within(subject.proxy.closed)
    for (let turns = 0; turns < 300 && subject.left; turns++) {
      await new Promise((resolve) => (turns < 50 ? setImmediate(resolve) : setTimeout(resolve, 10)))
    }
    const { left } = subject
    if (left) this.#around.witness.fault(`after the end with ${reason.code}, ${left}: ${this.#described}`)
  }
}
