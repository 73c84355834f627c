import { Acceptor, connect, type MainConnection } from '../../lib/core/index.ts'
import { rawPublicKey, type Suite, x25519PublicKey } from '../../lib/core/noise.ts'
import { sealRecord } from '../../lib/core/record.ts'
import { memoryPair } from '../../lib/transports/memory.ts'
import { frame, u64 } from '../helpers/core/bytes.ts'
import { beginDial, firstPayload, PSK, rawAccept, STATIC_KEY, secondPayload } from './hands.ts'
import { mutateBytes } from './mutations.ts'
import type { Witness } from './oracle.ts'
import type { Random } from './random.ts'
import { RawLink } from './raw-link.ts'
import { Subject } from './subject.ts'

const PUBLIC_KEY = x25519PublicKey(rawPublicKey(STATIC_KEY))
const SUITES: readonly [Suite, Suite] = ['NNpsk0', 'NKpsk0']
const NEW_SESSION = Buffer.alloc(16)
/** Deadlines of the real side, in ms: most strangers end before, and some wait for it. */
const TIMEOUT = 150
const HELLO = frame(0, 0, u64(0))

/** An acceptor for handshakes only. */
export function doorkeeper(): Acceptor {
  const pskFor = async (name: string): Promise<Buffer | undefined> =>
    name === '' || name === 'office' ? PSK : undefined
  return new Acceptor({ pskFor, staticKey: STATIC_KEY, timeout: TIMEOUT, resumeTimeout: 300 })
}

/** One handshake in which something is wrong, at either door. */
export async function fuzzHandshake(witness: Witness, door: Acceptor, random: Random): Promise<void> {
  if (random.chance(0.6)) await knock(witness, door, random)
  else await answer(witness, random)
}

/** A main connection that was made in spite of it all. */
async function close(main: MainConnection | undefined, witness: Witness): Promise<void> {
  if (!main) return
  const { proxy } = new Subject(main, witness)
  proxy.close()
  await proxy.closed
}

// --- at the acceptor ---

function nameOf(random: Random): Buffer {
  return random.pick([Buffer.alloc(0), Buffer.alloc(0), Buffer.from('office'), Buffer.from('nobody'), random.bytes(64)])
}

/** A whole first message, and whether the acceptor has to refuse it. */
function firstMessage(random: Random): { bytes: Buffer; dialler: ReturnType<typeof beginDial>; wrong: boolean } {
  const suite = random.pick(SUITES)
  const honest = firstPayload(NEW_SESSION, 0)
  const kind = random.weighted({ bytes: 10, payload: 4, mixed: 3, secret: 1, name: 2, resume: 3 })
  const psk = kind === 'secret' ? random.bytes(32) : PSK
  const name = kind === 'name' ? nameOf(random) : Buffer.alloc(0)
  const asked = firstPayload(random.bytes(16), random.u32())
  const payload = kind === 'payload' ? mutateBytes(random, honest) : kind === 'resume' ? asked : honest
  const dialler = beginDial(suite, payload, { psk, name })
  const known = name.length === 0 || name.equals(Buffer.from('office'))
  if (kind === 'bytes' || kind === 'mixed') {
    const other = beginDial(random.pick(SUITES), honest)
    const at = random.int(dialler.bytes.length)
    const bytes =
      kind === 'bytes'
        ? mutateBytes(random, dialler.bytes)
        : Buffer.concat([dialler.bytes.subarray(0, at), other.bytes.subarray(at)])
    const same = bytes.subarray(0, dialler.bytes.length).equals(dialler.bytes)
    if (bytes.equals(other.bytes)) return { bytes, dialler: other, wrong: false }
    return { bytes, dialler, wrong: !same }
  }
  return { bytes: dialler.bytes, dialler, wrong: kind === 'secret' || !known || !isPayload(payload) }
}

/** Long enough, and with limits that are not 0. */
function isPayload(payload: Buffer): boolean {
  return payload.length >= 32 && payload.readUInt32BE(24) > 0 && payload.readUInt32BE(28) > 0
}

async function knock(witness: Witness, door: Acceptor, random: Random): Promise<void> {
  const { a, b } = memoryPair(random.chance(0.2) ? { fragment: random.between(1, 20) } : {})
  const link = new RawLink(a)
  const accepting = door.accept(b).catch((error) => void witness.check(error, 'a handshake at the acceptor'))
  const { bytes, dialler, wrong } = firstMessage(random)
  link.sendRaw(bytes)
  // Those who do not end their link meet the deadline.
  if (wrong && random.chance(0.95)) link.cut(random.chance(0.9) ? 'fin' : 'rst')
  const status = await link.read(1)
  if (wrong && status && status[0] !== 0) witness.fault(`a wrong handshake was answered: ${bytes.toString('hex')}`)
  const message = status?.[0] === 1 ? await link.readMessage() : undefined
  if (message && !wrong) greet(link, dialler.finish(message).send, random)
  const accepted = await accepting
  if (wrong && accepted) witness.fault(`a wrong handshake was taken: ${bytes.toString('hex')}`)
  await Promise.all([close(accepted?.main, witness), link.over])
  a.destroy()
}

/** Record 0, right or wrong, and then nothing. */
function greet(link: RawLink, send: ReturnType<ReturnType<typeof beginDial>['finish']>['send'], random: Random): void {
  const plain = random.chance(0.3) ? HELLO : mutateBytes(random, HELLO)
  const record = Buffer.concat(sealRecord(send, plain))
  link.sendRaw(random.chance(0.5) ? record : mutateBytes(random, record))
  if (random.chance(0.9)) link.cut(random.chance(0.7) ? 'fin' : 'rst')
}

// --- at the dialler ---

async function answer(witness: Witness, random: Random): Promise<void> {
  const { a, b } = memoryPair(random.chance(0.2) ? { fragment: random.between(1, 20) } : {})
  const link = new RawLink(b)
  const secret = { name: '', suite: random.pick(SUITES), psk: PSK, serverKey: PUBLIC_KEY }
  const dialling = connect(async () => a, { secret, timeout: TIMEOUT, resumeTimeout: 0 }).catch(
    (error) => void witness.check(error, 'a handshake at the dialler'),
  )
  const dialler = await rawAccept(link)
  if (!dialler) throw new Error('a dialler that says nothing')
  const honest = secondPayload(random.bytes(16), 0)
  const kind = random.weighted({ bytes: 10, payload: 4, refused: 1, noise: 1 })
  const payload = kind === 'payload' ? mutateBytes(random, honest) : honest
  const whole = dialler.answer(payload)
  const bytes =
    kind === 'bytes'
      ? mutateBytes(random, whole.bytes)
      : kind === 'refused'
        ? Buffer.from([0, ...random.bytes(random.int(5))])
        : kind === 'noise'
          ? random.bytes(random.int(300))
          : whole.bytes
  const wrong = !bytes.subarray(0, whole.bytes.length).equals(whole.bytes)
  link.sendRaw(bytes)
  if (!wrong) greet(link, whole.hands.send, random)
  else if (random.chance(0.9)) link.cut(random.chance(0.9) ? 'fin' : 'rst')
  const main = await dialling
  if (wrong && main) witness.fault(`a wrong answer was taken: ${bytes.toString('hex')}`)
  await Promise.all([close(main ?? undefined, witness), link.over])
  b.destroy()
}
