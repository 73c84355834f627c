import type { TestContext } from 'node:test'
import type { Child } from '../system/child.ts'
import { findProgram } from '../system/programs.ts'
import type { Stage } from '../system/stage.ts'
import { CLI, symportEnvironment } from '../system/symport.ts'

// Runs a program on a terminal of its own, types an answer when it asks, and copies what the terminal shows.
const ON_A_TERMINAL = `
import os, pty, sys
question, answer, command = sys.argv[1], sys.argv[2], sys.argv[3:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(command[0], command)
shown = b''
asked = False
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    if not data:
        break
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    shown += data
    if not asked and question.encode() in shown:
        asked = True
        os.write(terminal, answer.encode() + b'\\r')
_, status = os.waitpid(pid, 0)
sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
`

/** Runs `symport ARGS` on a terminal. Undefined, and the test skipped, where there is no Python to make one. */
export async function startOnTerminal(
  t: TestContext,
  stage: Stage,
  args: readonly string[],
  { question, answer }: { question: string; answer: string },
): Promise<Child | undefined> {
  const python = findProgram('python3')
  if (python === undefined || process.platform === 'win32') {
    t.skip('python3 is not installed: it makes the terminal')
    return undefined
  }
  const command = [process.execPath, CLI, ...args]
  return await stage.start(python, ['-c', ON_A_TERMINAL, question, answer, ...command], {
    env: symportEnvironment(stage, { TERM: 'xterm', NO_COLOR: '1' }),
    graceMs: 500,
  })
}
