import assert from 'node:assert/strict'
import { createCipheriv, createHash, createHmac, generateKeyPairSync, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import {
  NoiseHandshake,
  type NoiseOptions,
  rawPublicKey,
  type Suite,
  x25519PrivateKey,
  x25519PublicKey,
} from '../../../lib/core/noise.ts'
import { hex } from '../../helpers/core/bytes.ts'
import { projectPath } from '../../helpers/core/project.ts'

interface Vector {
  source: string
  protocol_name: string
  init_prologue: string
  init_psks: [string]
  init_ephemeral: string
  init_remote_static?: string
  resp_prologue: string
  resp_psks: [string]
  resp_static?: string
  resp_ephemeral: string
  handshake_hash: string
  messages: { payload: string; ciphertext: string }[]
}

const { vectors }: { vectors: Vector[] } = JSON.parse(readFileSync(projectPath('test/fixtures/noise.json'), 'utf8'))
const SUITES: readonly Suite[] = ['NNpsk0', 'NKpsk0']

function sidesOf(vector: Vector, suite: Suite): { initiator: NoiseHandshake; responder: NoiseHandshake } {
  const initiator = new NoiseHandshake({
    suite,
    initiator: true,
    prologue: hex(vector.init_prologue),
    psk: hex(vector.init_psks[0]),
    static: vector.init_remote_static ? x25519PublicKey(hex(vector.init_remote_static)) : undefined,
    ephemeral: x25519PrivateKey(hex(vector.init_ephemeral)),
  })
  const responder = new NoiseHandshake({
    suite,
    initiator: false,
    prologue: hex(vector.resp_prologue),
    psk: hex(vector.resp_psks[0]),
    static: vector.resp_static ? x25519PrivateKey(hex(vector.resp_static)) : undefined,
    ephemeral: x25519PrivateKey(hex(vector.resp_ephemeral)),
  })
  return { initiator, responder }
}

/** Message 1 of NNpsk0 with an empty payload and any bytes for `e`: by hand, because no private key leads to some. */
function firstMessage(psk: Buffer, e: Buffer): Buffer {
  const mixHash = (hash: Buffer, data: Buffer): Buffer => createHash('sha256').update(hash).update(data).digest()
  const hkdf = (chain: Buffer, input: Buffer): [Buffer, Buffer, Buffer] => {
    const temp = createHmac('sha256', chain).update(input).digest()
    const one = createHmac('sha256', temp)
      .update(Buffer.from([1]))
      .digest()
    const two = createHmac('sha256', temp)
      .update(one)
      .update(Buffer.from([2]))
      .digest()
    return [
      one,
      two,
      createHmac('sha256', temp)
        .update(two)
        .update(Buffer.from([3]))
        .digest(),
    ]
  }
  const name = Buffer.from('Noise_NNpsk0_25519_AESGCM_SHA256')
  const [chain, pskHash] = hkdf(name, psk)
  const hash = mixHash(mixHash(mixHash(name, Buffer.alloc(0)), pskHash), e)
  const cipher = createCipheriv('aes-256-gcm', hkdf(chain, e)[1], Buffer.alloc(12)).setAAD(hash)
  return Buffer.concat([e, cipher.final(), cipher.getAuthTag()])
}

/** A transport message of Noise's AESGCM: 32 zero bits, then the counter as u64. */
function transport(key: Uint8Array, counter: number, payload: Uint8Array): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeBigUInt64BE(BigInt(counter), 4)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  return Buffer.concat([cipher.update(payload), cipher.final(), cipher.getAuthTag()])
}

for (const suite of SUITES) {
  const name = `Noise_${suite}_25519_AESGCM_SHA256`
  const found = vectors.filter((vector) => vector.protocol_name === name)

  test(`there is a published vector for ${name}`, () => {
    assert.equal(found.length, 1)
  })

  for (const vector of found) {
    test(`runs the ${vector.source} vector of ${name}: messages, payloads, hash and what follows`, () => {
      const { initiator, responder } = sidesOf(vector, suite)
      const [first, second, ...rest] = vector.messages
      assert.ok(first && second)
      assert.equal(initiator.write(hex(first.payload)).toString('hex'), first.ciphertext)
      assert.equal(responder.read(hex(first.ciphertext)).toString('hex'), first.payload)
      assert.equal(responder.write(hex(second.payload)).toString('hex'), second.ciphertext)
      assert.equal(initiator.read(hex(second.ciphertext)).toString('hex'), second.payload)
      assert.equal(initiator.hash.toString('hex'), vector.handshake_hash)
      assert.equal(responder.hash.toString('hex'), vector.handshake_hash)

      const keys = initiator.split()
      assert.deepEqual(responder.split(), keys)
      assert.equal(rest.length, 4)
      for (const [index, message] of rest.entries()) {
        const key = keys[index % 2]
        assert.ok(key)
        const sealed = transport(key, Math.floor(index / 2), hex(message.payload))
        assert.equal(sealed.toString('hex'), message.ciphertext)
      }
    })

    test(`${suite}: every flipped bit of either message is refused`, () => {
      const { messages } = vector
      for (const [index, message] of messages.slice(0, 2).entries()) {
        const bytes = hex(message.ciphertext)
        for (let at = 0; at < bytes.length; at++) {
          const changed = Buffer.from(bytes)
          changed.writeUInt8(changed.readUInt8(at) ^ (1 << (at % 8)), at)
          const { initiator, responder } = sidesOf(vector, suite)
          if (index === 0) {
            assert.throws(() => responder.read(changed), { code: 'PROXY_ERR_HANDSHAKE' }, `byte ${at}`)
          } else {
            initiator.write(hex(messages[0]?.payload ?? ''))
            assert.throws(() => initiator.read(changed), { code: 'PROXY_ERR_HANDSHAKE' }, `byte ${at}`)
          }
        }
      }
    })
  }

  const staticKey = generateKeyPairSync('x25519').privateKey
  const base = { suite, prologue: Buffer.from('prologue'), psk: Buffer.alloc(32, 1), static: staticKey }
  const pair = (changed: Partial<NoiseOptions> = {}): [NoiseHandshake, NoiseHandshake] => [
    new NoiseHandshake({ ...base, initiator: true }),
    new NoiseHandshake({ ...base, initiator: false, ...changed }),
  ]

  const changes: [string, Partial<NoiseOptions>][] = [
    ['another psk', { psk: Buffer.alloc(32, 2) }],
    ['another prologue', { prologue: Buffer.from('prologuf') }],
    ['a longer prologue', { prologue: Buffer.from('prologue\0') }],
    ['another suite', { suite: suite === 'NNpsk0' ? 'NKpsk0' : 'NNpsk0' }],
  ]
  if (suite === 'NKpsk0') changes.push(['another static key', { static: generateKeyPairSync('x25519').privateKey }])
  for (const [what, changed] of changes) {
    test(`${suite}: a responder with ${what} refuses message 1`, () => {
      const [initiator, responder] = pair(changed)
      const message = initiator.write(Buffer.from('hello'))
      assert.throws(() => responder.read(message), { name: 'ProxyError', code: 'PROXY_ERR_HANDSHAKE' })
    })
  }

  test(`${suite}: an initiator refuses a second message that was made for another handshake`, () => {
    const [initiator, responder] = pair()
    const [other, otherResponder] = pair()
    responder.read(initiator.write(Buffer.alloc(0)))
    otherResponder.read(other.write(Buffer.alloc(0)))
    const stranger = otherResponder.write(Buffer.alloc(0))
    assert.throws(() => initiator.read(stranger), { code: 'PROXY_ERR_HANDSHAKE' })
  })

  test(`${suite}: messages that are cut off are refused at every length`, () => {
    const [initiator] = pair()
    const message = initiator.write(Buffer.from('hello'))
    for (let length = 0; length < message.length; length++) {
      const [, responder] = pair()
      assert.throws(() => responder.read(message.subarray(0, length)), { code: 'PROXY_ERR_HANDSHAKE' }, `${length}`)
    }
  })

  test(`${suite}: points of low order are refused`, () => {
    // RFC 7748, section 6.1, and the list at cr.yp.to/ecdh.html: each gives an all-zero shared secret.
    const points = [
      '0000000000000000000000000000000000000000000000000000000000000000',
      '0100000000000000000000000000000000000000000000000000000000000000',
      'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
      '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
      'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
      'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
      'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    ]
    for (const point of points) {
      const message = Buffer.concat([hex(point), randomBytes(16)])
      const [initiator] = pair()
      initiator.write(Buffer.alloc(0))
      assert.throws(
        () => initiator.read(message),
        { code: 'PROXY_ERR_HANDSHAKE', message: 'a handshake with an unusable public key' },
        point,
      )
      if (suite === 'NNpsk0') continue
      const [, responder] = pair()
      assert.throws(
        () => responder.read(message),
        { code: 'PROXY_ERR_HANDSHAKE', message: 'a handshake with an unusable public key' },
        point,
      )
    }
  })

  test(`${suite}: two handshakes with the same psk share no key`, () => {
    const keys = [pair(), pair()].flatMap(([initiator, responder]) => {
      responder.read(initiator.write(Buffer.alloc(0)))
      initiator.read(responder.write(Buffer.alloc(0)))
      return initiator.split()
    })
    assert.equal(new Set(keys.map((key) => key.toString('hex'))).size, 4)
  })
}

test('an NNpsk0 responder answers nothing to a point of low order: ee is refused when it writes', () => {
  const psk = Buffer.alloc(32, 1)
  const responder = new NoiseHandshake({ suite: 'NNpsk0', initiator: false, prologue: Buffer.alloc(0), psk })
  // From somebody who knows the psk: the message itself opens.
  assert.equal(responder.read(firstMessage(psk, Buffer.alloc(32))).length, 0)
  assert.throws(() => responder.write(Buffer.alloc(0)), { code: 'PROXY_ERR_HANDSHAKE' })
})

test('NKpsk0 without a static key is a mistake of the caller', () => {
  const options = { suite: 'NKpsk0', initiator: true, prologue: Buffer.alloc(0), psk: Buffer.alloc(32) } as const
  assert.throws(() => new NoiseHandshake(options), TypeError)
})

test('a handshake that is written and read out of order is a mistake of the caller', () => {
  const options = { suite: 'NNpsk0', prologue: Buffer.alloc(0), psk: Buffer.alloc(32) } as const
  assert.throws(() => new NoiseHandshake({ ...options, initiator: false }).write(Buffer.alloc(0)), TypeError)
})

test('raw keys survive the way to a key object and back', () => {
  const [vector] = vectors.filter(({ resp_static }) => resp_static)
  assert.ok(vector?.resp_static && vector.init_remote_static)
  const secret = x25519PrivateKey(hex(vector.resp_static))
  assert.equal(rawPublicKey(secret).toString('hex'), vector.init_remote_static)
  assert.equal(rawPublicKey(x25519PublicKey(rawPublicKey(secret))).toString('hex'), vector.init_remote_static)
})
