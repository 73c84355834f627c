import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import {
  beginCpace,
  type CpaceInputs,
  generator,
  generatorString,
  intermediateKey,
  prependLength,
  scalarMultVfy,
} from '../../../lib/hub/cpace.ts'
import { projectPath } from '../../helpers/core/project.ts'

// draft-irtf-cfrg-cpace, testvectors.md; the file names its source.
const vectors = JSON.parse(readFileSync(projectPath('test/fixtures/cpace-ristretto255.json'), 'utf8')) as {
  readonly generator: Readonly<Record<string, string>>
  readonly session: Readonly<Record<string, string>>
  readonly points: { readonly Valid: Readonly<Record<string, string>> } & Readonly<Record<string, unknown>>
}

function hex(text: unknown): Buffer {
  assert.ok(typeof text === 'string' && /^([0-9A-Fa-f]{2})+$/.test(text), `not hex: ${String(text)}`)
  return Buffer.from(text, 'hex')
}

function inputsOf(from: Readonly<Record<string, string>>): CpaceInputs {
  return { prs: hex(from.PRS), ci: hex(from.CI), sid: hex(from.sid) }
}

test('the generator string and its hash are those of the draft', () => {
  const { generator: wanted } = vectors
  const text = generatorString(inputsOf(wanted))
  assert.deepEqual(text, hex(wanted['generator_string(G.DSI,PRS,CI,sid,H.s_in_bytes)']))
  assert.deepEqual(createHash('sha512').update(text).digest(), hex(wanted['hash result']))
})

test('the generator is that of the draft', async () => {
  assert.deepEqual(await generator(inputsOf(vectors.generator)), hex(vectors.generator['encoded generator g']))
})

test('both ends of a session get the points, the common point and the key of the draft', async () => {
  const { session } = vectors
  const inputs = inputsOf(session)
  const a = await beginCpace(inputs, hex(session.ya))
  const b = await beginCpace(inputs, hex(session.yb))
  assert.deepEqual(a.point, hex(session.Ya))
  assert.deepEqual(b.point, hex(session.Yb))
  assert.deepEqual(a.common(b.point), hex(session.K))
  assert.deepEqual(b.common(a.point), hex(session.K))
  const shares = [
    { point: a.point, data: hex(session.ADa) },
    { point: b.point, data: hex(session.ADb) },
  ] as const
  assert.deepEqual(intermediateKey(inputs.sid, hex(session.K), ...shares), hex(session.ISK_IR))
  assert.notDeepEqual(intermediateKey(inputs.sid, hex(session.K), shares[1], shares[0]), hex(session.ISK_IR))
})

test('a valid point is multiplied as in the draft', async () => {
  const { Valid } = vectors.points
  assert.deepEqual(await scalarMultVfy(hex(Valid.s), hex(Valid.X)), hex(Valid['G.scalar_mult_vfy(s,X)']))
})

test('invalid points are refused: the two of the draft, and others', async () => {
  const { s } = vectors.points.Valid
  const bad = [
    hex(vectors.points['Invalid Y1']),
    hex(vectors.points['Invalid Y2']),
    Buffer.alloc(32, 0xff),
    // RFC 9496, appendix A.2: not canonical, negative, no square.
    hex('00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff'),
    hex('0100000000000000000000000000000000000000000000000000000000000000'),
    hex('26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371'),
    Buffer.alloc(0),
    Buffer.alloc(31),
    Buffer.alloc(33),
  ]
  for (const point of bad) {
    await assert.rejects(scalarMultVfy(hex(s), point), { code: 'PROXY_ERR_HANDSHAKE' }, point.toString('hex'))
  }
})

test('ends with another password, context or session have no point in common', async () => {
  const inputs: CpaceInputs = { prs: Buffer.from('a'), ci: Buffer.from('b'), sid: randomBytes(16) }
  const others: CpaceInputs[] = [
    { ...inputs, prs: Buffer.from('A') },
    { ...inputs, prs: Buffer.alloc(0) },
    { ...inputs, ci: Buffer.from('c') },
    { ...inputs, sid: randomBytes(16) },
  ]
  const a = await beginCpace(inputs)
  const same = await beginCpace(inputs)
  assert.deepEqual(a.common(same.point), same.common(a.point))
  for (const other of others) {
    const b = await beginCpace(other)
    assert.notDeepEqual(a.common(b.point), b.common(a.point))
  }
})

test('each end has a scalar of its own', async () => {
  const inputs: CpaceInputs = { prs: Buffer.from('a'), ci: Buffer.from('b'), sid: Buffer.alloc(16) }
  assert.notDeepEqual((await beginCpace(inputs)).point, (await beginCpace(inputs)).point)
})

test('lengths are written in groups of seven bits', () => {
  assert.deepEqual(prependLength(Buffer.alloc(0)), Buffer.from([0]))
  assert.deepEqual(prependLength(Buffer.alloc(127)).subarray(0, 1), Buffer.from([127]))
  assert.deepEqual(prependLength(Buffer.alloc(128)).subarray(0, 2), Buffer.from([0x80, 0x01]))
  assert.deepEqual(prependLength(Buffer.alloc(300)).subarray(0, 2), Buffer.from([0xac, 0x02]))
})
