import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { startDoorstep } from '../helpers/e2e/doorstep.ts'

test('many handshakes at once are no reason for Node.js to warn of a leak', async (t) => {
  const warnings: string[] = []
  const collect = ({ message }: Error): void => void warnings.push(message)
  process.on('warning', collect)
  t.after(() => process.off('warning', collect))
  await using door = await startDoorstep()
  for (let number = 0; number < 50; number++) door.knock()
  await turn()
  assert.deepEqual(warnings, [])
})
