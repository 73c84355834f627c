import assert from 'node:assert/strict'
import { test } from 'node:test'
import mappings from '../../../../apps/cli/mappings.ts'
import nodes from '../../../../apps/cli/nodes.ts'
import reload from '../../../../apps/cli/reload.ts'
import status from '../../../../apps/cli/status.ts'
import type { Runnable } from '../../../../apps/common/command.ts'
import { serveAdmin } from '../../../helpers/admin/client.ts'
import { someMapping } from '../../../helpers/admin/fake-operations.ts'

const COMMANDS: Record<string, Runnable> = { mappings, nodes, reload, status }

test('what is wrong on a command line, and what the server refuses, is an error in plain words', async (t) => {
  const { folder, operations } = await serveAdmin(t)
  operations.mappingList.push(someMapping('9', { source: 'config' }))
  const cases: [code: string, message: RegExp, argv: string[]][] = [
    ['PROXY_ERR_USAGE', /^which node\? write: symport nodes add/, ['nodes', 'add']],
    ['PROXY_ERR_USAGE', /unknown command "nodes lst": did you mean "symport nodes list"\?/, ['nodes', 'lst']],
    ['PROXY_ERR_USAGE', /unknown flag --expire: did you mean --expires\?/, ['nodes', 'add', 'a', '--expire', '3d']],
    ['PROXY_ERR_USAGE', /unknown flag --expires/, ['nodes', 'remove', 'a', '--expires', '3d']],
    ['PROXY_ERR_USAGE', /^--expires: write 30d/, ['nodes', 'add', 'a', '--expires', '3']],
    ['PROXY_ERR_PATTERN', /bad ports/, ['nodes', 'add', 'a', '--listen', '99999']],
    ['PROXY_ERR_PATTERN', /bad pattern/, ['nodes', 'add', 'a', '--dial', 'nonsense']],
    ['PROXY_ERR_USAGE', /"id" has a space in it/, ['nodes', 'add', 'a b']],
    ['PROXY_ERR_USAGE', /^there are words behind the secret/, ['nodes', 'add', 'a', 'b', 'c']],
    ['PROXY_ERR_USAGE', /^one node at a time/, ['nodes', 'remove', 'a', 'b']],
    ['PROXY_ERR_SECRET', /the token is damaged/, ['nodes', 'add', 'a', 'symport_abc']],
    ['PROXY_ERR_USAGE', /^what maps to what\?/, ['mappings', 'add']],
    ['PROXY_ERR_SPEC', /bad SPEC/, ['mappings', 'add', 'nonsense']],
    ['PROXY_ERR_SPEC', /bad endpoint/, ['mappings', 'add', 'garbage', ':1']],
    ['PROXY_ERR_USAGE', /^--balance: write first/, ['mappings', 'add', ':1', ':2', '--balance', 'fair']],
    ['PROXY_ERR_USAGE', /^--wait: "5" is not a duration/, ['mappings', 'add', ':1', ':2', '--wait', '5']],
    ['PROXY_ERR_USAGE', /^--watch: at least 200ms/, ['status', '--watch', '1ms']],
    ['PROXY_ERR_USAGE', /nothing to do with "x"/, ['reload', 'x']],
    ['PROXY_ERR_NOT_FOUND', /^there is no node nobody$/, ['nodes', 'kick', 'nobody']],
    ['PROXY_ERR_READ_ONLY', /^mapping 9 comes from the configuration file/, ['mappings', 'remove', '9']],
    ['PROXY_ERR_NOT_FOUND', /^there is no mapping 8: did you mean 9\?$/, ['status', '--mapping', '8']],
  ]
  for (const [code, message, [name = '', ...argv]] of cases) {
    const run = COMMANDS[name]
    assert.ok(run, name)
    await assert.rejects(run([...argv, '--state', folder.path]), { code, message }, argv.join(' '))
  }
  assert.deepEqual(operations.nodes(), [])
  assert.equal(operations.mappings().length, 1)
})
