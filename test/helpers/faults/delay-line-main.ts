import { parseArgs } from 'node:util'
import { type DelayLineOptions, startDelayLine } from './delay-line.ts'

/**
 * A delay line as a program: `delay-line-main.js PORT [--host 127.0.0.1] [--delay MS] [--rate BITS] [--queue BYTES]`.
 * Prints `{"port":N}` and runs until its standard input ends.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    delay: { type: 'string' },
    rate: { type: 'string' },
    queue: { type: 'string' },
  },
})

function numberFrom(text: string | undefined, what: string): number {
  const value = Number(text)
  if (text === undefined || text === '' || !(value >= 0)) throw new Error(`${what}: a number, not ${text}`)
  return value
}

const options: DelayLineOptions = { target: { host: values.host, port: numberFrom(positionals[0], 'the target port') } }
if (values.delay !== undefined) options.delayMs = numberFrom(values.delay, '--delay')
if (values.rate !== undefined) options.bitsPerSecond = numberFrom(values.rate, '--rate')
if (values.queue !== undefined) options.queueBytes = numberFrom(values.queue, '--queue')

const line = await startDelayLine(options)
process.stdout.write(`${JSON.stringify({ port: line.port })}\n`)
process.stdin.resume()
process.stdin.once('close', () => void line.close())
