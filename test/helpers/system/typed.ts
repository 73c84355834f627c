import { closeSync, openSync, writeSync } from 'node:fs'
import type { Child, ChildOptions } from './child.ts'
import type { Stage } from './stage.ts'

/** A program whose standard input a test types, line by line. It never ends by itself. */
export interface Typed {
  readonly child: Child
  type(line: string): void
}

let count = 0

export async function startTyped(
  stage: Stage,
  command: string,
  args: readonly string[],
  options: Omit<ChildOptions, 'stdin'> = {},
): Promise<Typed> {
  const pipe = stage.path(`typed-${++count}`)
  await stage.must('mkfifo', [pipe])
  // Open for both: neither side waits for the other one to open it.
  const file = openSync(pipe, 'r+')
  stage.defer(() => closeSync(file))
  const child = await stage.start(command, args, { ...options, stdin: file })
  return { child, type: (line) => void writeSync(file, `${line}\n`) }
}
