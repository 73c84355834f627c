import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Link } from '../../lib/core/index.ts'
import { type MemoryPair, memoryPair } from '../../lib/transports/memory.ts'
import { codePairs } from '../helpers/contract/code.ts'
import { watchForStrays } from '../helpers/contract/strays.ts'
import { resumingPair } from '../helpers/resume/faulty-pair.ts'
import { hurry, turns, until } from '../helpers/resume/hurry.ts'
import { Talk } from '../helpers/resume/streams.ts'

/** What many links leave behind: nothing. */

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

watchForStrays()
hurry()

for (const end of ['linked', 'no link', 'attempt', 'renewed']) {
  test(`no timer and no listener is left of a session that has had many links (its end: ${end})`, async () => {
    const script = fileURLToPath(new URL('../helpers/resume/lone-resume.js', import.meta.url))
    const { stdout } = await promisify(execFile)(process.execPath, [script, end], { timeout: 20_000 })
    assert.deepEqual(JSON.parse(stdout), { resources: [], warnings: [] })
  })
}

test('a session holds on to no link but its present one', async () => {
  const links: WeakRef<Link>[] = []
  let newest: MemoryPair | undefined
  let onLink: (link: Link) => void = () => {}
  const dial = async (): Promise<Link> => {
    newest = memoryPair()
    links.push(new WeakRef(newest.a), new WeakRef(newest.b))
    onLink(newest.b)
    return newest.a
  }
  const listen = (callback: (link: Link) => void): void => {
    onLink = callback
  }
  await using pair = await resumingPair({ dial, listen })
  const { opened, accepted } = await (await codePairs(pair.accepting.proxy, pair.dialling.code)).next()
  const [near, far] = [new Talk(opened, 1, 2), new Talk(accepted, 2, 1)]
  for (let resume = 1; resume <= 40; resume++) {
    newest?.cut(resume % 2 === 0 ? 'fin' : 'rst')
    await Promise.all([near.say(2000), far.say(2000)])
    await Promise.all([near.hear(resume * 2000), far.hear(resume * 2000)])
  }
  await until(() => pair.dialling.states.length === 80, 'all resumes')
  await turns(50)
  // What a WeakRef was made of is held until its turn is over, and that is longer than a turn of the event loop.
  const alive = async (): Promise<number> => {
    await new Promise((resolve) => setTimeout(resolve, 20))
    collect()
    return links.filter((link) => link.deref()).length
  }
  assert.equal(links.length, 82)
  let held = await alive()
  for (let tries = 0; tries < 10 && held > 4; tries++) held = await alive()
  assert.ok(held <= 4, `${held} link ends are still held`)
})
