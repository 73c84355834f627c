import { tcp } from '../../../lib/domains/tcp.ts'
import { MappingTable } from '../../../lib/hub/mapping-table.ts'
import { Pool } from '../../../lib/hub/pool.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'

/** Run as a program of its own: adds mappings without end, and prints the id of each one that is said to be kept. */
const signal = new AbortController().signal
const folder = new StateFolder(process.argv[2] ?? '')
const table = await MappingTable.open({ folder, domains: [tcp()], pool: new Pool(), signal })
await table.start()
for (let port = 1; ; port = (port % 60_000) + 1) {
  const { id } = await table.add({ listen: '127.0.0.1:0', forward: `:${port}`, enabled: false })
  process.stdout.write(`${id}\n`)
}
