import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { watchForStrays } from '../helpers/contract/strays.ts'
import { projectPath } from '../helpers/core/project.ts'
import { FIXTURES, type Fixture } from '../helpers/recorded/fixture.ts'
import { essence, framesOf, joined } from '../helpers/recorded/frames.ts'
import { play } from '../helpers/recorded/player.ts'
import { makeWire, openWire, plaintexts, type Wire } from '../helpers/recorded/wire.ts'

/** What this version of the protocol says on the wire, kept as it was: peers out there speak it. */

const FOLDER = 'test/fixtures/sessions'
const SUITES = ['NNpsk0', 'NKpsk0'] as const
const MAX_BYTES = 16_384

watchForStrays()

function read(name: string): unknown {
  return JSON.parse(readFileSync(projectPath(`${FOLDER}/${name}.json`), 'utf8'))
}

describe('recorded sessions', { concurrency: true }, () => {
  for (const { name, suite, raw } of FIXTURES) {
    test(`${name}: the real side answers as it did`, async () => {
      const fixture = read(name) as Fixture
      assert.deepEqual([fixture.protocol, fixture.suite, fixture.raw], [1, suite, raw])
      await play(fixture)
    })

    test(`${name}: another answer would be noticed`, async () => {
      const fixture = read(name) as Fixture
      const [link] = fixture.links
      assert.ok(link)
      const at = link.steps.findIndex((step) => 'real' in step)
      assert.ok(at > 0)
      const steps = link.steps.map((step, index) =>
        index === at && 'real' in step ? { real: step.real.slice(1) } : step,
      )
      await assert.rejects(play({ ...fixture, links: [{ ...link, steps }] }, { patience: 100 }), {
        name: 'AssertionError',
      })
    })
  }

  test('the frames that are compared are all there are', () => {
    const types = { raw: new Set<number>(), real: new Set<number>() }
    for (const { name } of FIXTURES) {
      for (const link of (read(name) as Fixture).links) {
        for (const step of link.steps) {
          for (const side of ['raw', 'real'] as const) {
            const texts = side in step ? ((step as Record<string, readonly string[]>)[side] ?? []) : []
            for (const { type } of framesOf(Buffer.from(texts.join('').replaceAll(' ', ''), 'hex')))
              types[side].add(type)
          }
        }
      }
    }
    const counted = [0x04, 0x05, 0x10, 0x11, 0x12, 0x14, 0x15, 0x20, 0x21, 0x22, 0x23]
    // The raw side also pings, and gives credit; the real side answers the ping, and needs to give none for so little.
    assert.deepEqual([...types.raw].sort(), [0x02, ...counted, 0x13].sort())
    assert.deepEqual([...types.real].sort(), [0x03, ...counted].sort())
  })
})

describe('recorded bytes', () => {
  for (const suite of SUITES) {
    test(`the same keys and words give the same bytes (${suite})`, () => {
      const wire = read(`wire-${suite}`) as Wire
      assert.equal(wire.suite, suite)
      assert.deepEqual(makeWire(wire), wire)
    })

    test(`the bytes open to the same words (${suite})`, () => {
      const wire = read(`wire-${suite}`) as Wire
      const links = openWire(wire)
      assert.equal(links.length, 2)
      for (const [number, { payloads, records }] of links.entries()) {
        const link = wire.links[number]
        assert.ok(link)
        assert.deepEqual(payloads, [link.preamble, link.payload1, '01', link.payload2])
        assert.deepEqual(records, plaintexts(wire)[number])
      }
    })

    test(`a byte that is changed does not pass (${suite})`, () => {
      const wire = read(`wire-${suite}`) as Wire
      const [first, second] = wire.links
      assert.ok(first && second)
      for (const at of [8, 60, 200, second.toAcceptor.bytes.length - 1]) {
        const { bytes } = second.toAcceptor
        const changed = `${bytes.slice(0, at)}${bytes[at] === '0' ? '1' : '0'}${bytes.slice(at + 1)}`
        const link = { ...second, toAcceptor: { ...second.toAcceptor, bytes: changed } }
        const found = (): unknown => openWire({ ...wire, links: [first, link] })[1]?.payloads
        let payloads: unknown
        try {
          payloads = found()
        } catch {
          continue
        }
        assert.notDeepEqual(payloads, [link.preamble, link.payload1, '01', link.payload2], `at ${at}`)
      }
    })
  }
})

test('the folder holds these fixtures and no others, each a few KiB', () => {
  const names = [...FIXTURES.map(({ name }) => name), ...SUITES.map((suite) => `wire-${suite}`)]
  const files = readdirSync(projectPath(FOLDER)).filter((file) => file !== 'README.md')
  assert.deepEqual(files.sort(), names.map((name) => `${name}.json`).sort())
  for (const file of files) {
    assert.ok(readFileSync(projectPath(`${FOLDER}/${file}`)).length <= MAX_BYTES, file)
  }
})

test('data may be cut into frames anywhere, windows may be of any size, and words of any kind', () => {
  const frame = (text: string) => framesOf(Buffer.from(text.replaceAll(' ', ''), 'hex'))
  const data = frame('12 00000001 000001 61  12 00000001 000002 6263  12 00000003 000001 64')
  assert.deepEqual(joined(data).map(essence), ['12 1 616263', '12 3 64'])
  const same = (one: string, other: string): boolean =>
    essence(frame(one)[0] as never) === essence(frame(other)[0] as never)
  assert.ok(same('11 00000001 000004 00001000', '11 00000001 000004 00002000'))
  assert.ok(!same('11 00000001 000004 00001000', '11 00000001 000004 00000000'))
  const reason = (code: string, words: string, first = code.length): string => {
    const payload = Buffer.concat([Buffer.from([first]), Buffer.from(code + words)])
    return `15 00000001 ${payload.length.toString(16).padStart(6, '0')} ${payload.toString('hex')}`
  }
  assert.ok(same(reason('PROXY_ERR_X', 'one'), reason('PROXY_ERR_X', 'two')))
  assert.ok(!same(reason('PROXY_ERR_X', ''), reason('PROXY_ERR_Y', '')))
  assert.ok(!same(reason('PROXY_ERR_X', ''), reason('PROXY_ERR_X', '', 11 + 0x80)))
})
