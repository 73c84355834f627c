import type { MainConnection } from '../../../lib/core/index.ts'
import { codePairs } from '../contract/code.ts'
import { faultyPair } from './faulty-pair.ts'
import { hurry, turns, until } from './hurry.ts'

/** Run as a program of its own: a session loses links and ends, and it prints what then still keeps the process alive. */
const end = process.argv[2]
hurry()
const warnings: string[] = []
process.on('warning', ({ message }) => warnings.push(message))

const renewed: MainConnection[] = []
const pair = await faultyPair({ record: false, timeout: 500, onRenewed: (main) => renewed.push(main) })
const { network, dialling, accepting } = pair
const { opened, accepted } = await (await codePairs(accepting.proxy, dialling.code)).next()
opened.write('something')
accepted.resume()
// Attempts that fail at all stages, and links that are lost in all ways.
for (let offset = 0; offset < 130; offset += 5) network.arm((path) => path.cutAt('up', offset, 'rst'))
for (let resume = 0; resume < 40; resume++) {
  network.cut(resume % 2 === 0 ? 'fin' : 'rst')
  await until(() => network.paths.length > 1 + resume && dialling.proxy.main.linked, 'the next link')
  await turns(3)
}
if (end === 'no link') {
  network.block('refuse')
  network.cut('rst')
  await until(() => !dialling.proxy.main.linked && !accepting.proxy.main.linked, 'no link')
} else if (end === 'attempt') {
  network.block('hang')
  network.cut('rst')
  await until(() => !dialling.proxy.main.linked && !accepting.proxy.main.linked, 'no link')
  await turns(5)
} else if (end === 'renewed') {
  network.block('refuse')
  network.cut('rst')
  await until(() => !accepting.proxy.main.linked, 'no link')
  accepting.proxy.close()
  network.unblock()
  await until(() => renewed.length === 1, 'a new one')
  for (const main of renewed) main.close()
}
dialling.proxy.close()
accepting.proxy.close()
await Promise.all([dialling.proxy.closed, accepting.proxy.closed])
for (const other of pair.others) other.close()
network.unblock()
for (const path of network.paths) path.cut('rst')
await turns(100)
const resources = process.getActiveResourcesInfo().filter((kind) => !kind.endsWith('Wrap') && kind !== 'Immediate')
process.stdout.write(JSON.stringify({ resources, warnings }))
