import assert from 'node:assert/strict'
import { createHash, createHmac, hkdfSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { contextOf, keysOf } from '../../../lib/hub/channel-handshake.ts'
import { beginCpace, type CpaceInputs, generator, generatorString, intermediateKey } from '../../../lib/hub/cpace.ts'

// The worked handshake of doc/channels.md. Messages and tags are put together here byte by byte, so that what the page
// shows does not depend on the code that it describes.

const PAGE = readFileSync(new URL('../../../../doc/channels.md', import.meta.url), 'utf8')

const counting = (from: number, length: number): Buffer => Buffer.from(Array.from({ length }, (_, i) => from + i))

/** `name   hex`, 32 bytes a line. */
function block(lines: Record<string, Uint8Array>): string {
  const rows = Object.entries(lines).flatMap(([name, value]) => {
    const parts =
      Buffer.from(value)
        .toString('hex')
        .match(/.{1,64}/g) ?? []
    return parts.map((part, index) => `${(index === 0 ? name : '').padEnd(28)}${part}`)
  })
  return ['```', ...rows, '```'].join('\n')
}

const sid = counting(0xa0, 16)
const inputs: CpaceInputs = { prs: Buffer.from('correct horse'), ci: contextOf('ssh'), sid }
/** Little-endian, below the order of the group. */
const scalars = [1, 0x21].map((from) => Buffer.concat([counting(from, 31), Buffer.from([0])])) as [Buffer, Buffer]

test('the handshake that doc/channels.md shows is computed again', async () => {
  const [joiner, offerer] = [await beginCpace(inputs, scalars[0]), await beginCpace(inputs, scalars[1])]
  const common = joiner.common(offerer.point)
  assert.deepEqual(offerer.common(joiner.point), common)
  const version = Buffer.from([1])
  const message1 = Buffer.concat([version, sid, joiner.point])
  const message2 = Buffer.concat([version, offerer.point])
  const shares = [joiner, offerer].map(({ point }) => ({ point, data: version })) as [never, never]
  const isk = intermediateKey(sid, common, ...shares)
  const derive = (info: string, length: number): Buffer => Buffer.from(hkdfSync('sha256', isk, sid, info, length))
  const tag = (who: string): Buffer =>
    createHmac('sha256', derive(`symport channel ${who} tag`, 32))
      .update(Buffer.concat([message1, message2]))
      .digest()
  const shown = block({
    password: inputs.prs,
    CI: inputs.ci,
    sid,
    'generator string, hashed': createHash('sha512').update(generatorString(inputs)).digest(),
    generator: await generator(inputs),
    "joiner's scalar": scalars[0],
    "offerer's scalar": scalars[1],
    'message 1': message1,
    'message 2': message2,
    K: common,
    ISK: isk,
    'message 3': tag('joiner'),
    'message 4': tag('offerer'),
    'key of the main connection': derive('symport channel main connection', 16),
  })
  assert.ok(PAGE.includes(shown), `doc/channels.md does not contain this block:\n\n${shown}\n`)

  const keys = keysOf(sid, common, joiner.point, offerer.point)
  assert.deepEqual([keys.joinerTag, keys.offererTag], [tag('joiner'), tag('offerer')])
  assert.deepEqual(keys.main, derive('symport channel main connection', 16))
})
