import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, ROOT, symportEnvironment } from '../helpers/system/symport.ts'

for (const app of ['server', 'node']) {
  test(`systemd finds no fault in symport-${app}.service`, { timeout: 60_000 }, async (t) => {
    const programs = requirePrograms(t, ['systemd-analyze'])
    if (programs === undefined) return
    const stage = new Stage(t)
    await stage.must(process.execPath, [CLI, 'launchers', stage.path('bin')], { env: symportEnvironment(stage) })
    // It also looks for the program that the unit starts.
    const unit = readFileSync(`${ROOT}supervisor/symport-${app}.service`, 'utf8')
    const path = stage.path(`symport-${app}.service`)
    writeFileSync(path, unit.replaceAll('/usr/lib/symport/', `${stage.path('bin')}/`))
    const said = await stage.must(programs['systemd-analyze'], ['verify', '--man=no', path])
    // It looks at the machine's own units, too.
    assert.deepEqual(
      said.split('\n').filter((line) => line.includes('symport')),
      [],
    )
    // 0 is no exposure at all, 100 a plain service of root's.
    await stage.must(programs['systemd-analyze'], ['security', '--offline=yes', '--threshold=20', path])
  })
}
