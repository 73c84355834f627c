import { command, noPositionals, type Runnable } from '../common/command.ts'
import { OPERATOR_FLAGS, openServer, print, printJson, wantsJson } from '../common/operator.ts'

const reload: Runnable = command({
  usage: 'symport reload [flags]',
  summary:
    'Applies the changed configuration file of a server that runs. Connections that no change concerns go on; a bad file changes nothing.',
  flags: OPERATOR_FLAGS,
  examples: ['symport reload'],
  async run(values, positionals) {
    noPositionals(positionals)
    const report = await (await openServer(values)).reload()
    if (wantsJson(values)) {
      printJson(report)
      return 0
    }
    if (report.changes.length + report.restart.length === 0) print('nothing has changed')
    for (const change of report.changes) print(change)
    for (const change of report.restart) print(`needs a restart: ${change}`)
    return 0
  },
})

export default reload
