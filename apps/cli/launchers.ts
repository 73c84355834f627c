import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ProxyError } from '../../lib/core/index.ts'
import { command, type Runnable } from '../common/command.ts'

const DEFAULT_FOLDER = '/usr/lib/symport'
const ENTRY = new URL('../../../apps/cli/bin/symport.cjs', import.meta.url)

const launchers: Runnable = command({
  usage: 'symport launchers [DIR]',
  summary: `Writes executables called "server" and "node" into a folder off the PATH, for supervisor files. Default: ${DEFAULT_FOLDER}.`,
  flags: [],
  examples: ['symport launchers', 'symport launchers /opt/symport'],
  async run(_values, positionals) {
    if (positionals.length > 1 || positionals[0] === '')
      throw new ProxyError('PROXY_ERR_USAGE', 'launchers takes one folder')
    const folder = resolve(positionals[0] ?? DEFAULT_FOLDER)
    const onPath = (process.env.PATH ?? '').split(':').some((entry) => entry !== '' && resolve(entry) === folder)
    if (onPath) {
      throw new ProxyError('PROXY_ERR_USAGE', `${folder} is on the PATH: a "node" there would stand in for Node.js`)
    }
    const entry = fileURLToPath(ENTRY)
    try {
      await mkdir(folder, { recursive: true })
      for (const name of ['server', 'node']) {
        const file = join(folder, name)
        await writeFile(file, `#!/bin/sh\nexec ${quote(process.execPath)} ${quote(entry)} ${name} "$@"\n`)
        await chmod(file, 0o755)
        process.stdout.write(`${file}\n`)
      }
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      throw new ProxyError('PROXY_ERR_STATE', `cannot write ${folder}: ${why}`, { cause: error })
    }
    return 0
  },
})

export default launchers

function quote(path: string): string {
  return `'${path.replaceAll("'", `'\\''`)}'`
}
