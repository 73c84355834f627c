// Records the sessions of test/fixtures/sessions that are not there yet, with the present code: npm run build, then
// node tools/record-sessions.mjs. What is there stays: see the README of that folder.
import { existsSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { FIXTURES } from '../dist/test/helpers/recorded/fixture.js'
import { play } from '../dist/test/helpers/recorded/player.js'
import { script } from '../dist/test/helpers/recorded/script.js'
import { recordWire } from '../dist/test/helpers/recorded/wire.js'

const FOLDER = fileURLToPath(new URL('../test/fixtures/sessions/', import.meta.url))

async function keep(name, record) {
  const file = `${FOLDER}${name}.json`
  if (existsSync(file)) {
    console.log(`${name}: is there`)
    return
  }
  writeFileSync(file, `${JSON.stringify(await record(), null, 1)}\n`)
  console.log(`${name}: recorded`)
}

for (const { name, suite, raw } of FIXTURES) await keep(name, () => play(script(suite, raw), { record: true }))
for (const suite of ['NNpsk0', 'NKpsk0']) await keep(`wire-${suite}`, () => recordWire(suite))
