import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../../fuzz/random.ts'
import { parseOptions, UsageError } from '../../soak/options.ts'
import { formatTable, judge } from '../../soak/report.ts'
import { median, type Point, shape, trend, windows } from '../../soak/statistics.ts'

const MIB = 1024 * 1024
const points = (values: readonly number[]): Point[] => values.map((value, at) => ({ at, value }))

test('the trend of a line is its slope, also with peaks on it', () => {
  const line = Array.from({ length: 40 }, (_, at) => 100 + 3 * at)
  assert.equal(trend(points(line)), 3)
  assert.equal(trend(points(line.map((value, at) => (at % 7 === 0 ? value + 5000 : value)))), 3)
  assert.equal(trend(points(line.map((value) => -value))), -3)
})

test('a level with peaks has no trend, and neither have fewer than two points', () => {
  assert.equal(trend(points(Array.from({ length: 40 }, (_, at) => (at % 5 === 0 ? 900 : 100)))), 0)
  assert.equal(trend([]), 0)
  assert.equal(trend(points([7])), 0)
  assert.equal(
    trend([
      { at: 1, value: 1 },
      { at: 1, value: 9 },
    ]),
    0,
  )
})

test('the median is the middle, or between the middle two', () => {
  assert.equal(median([9, 1, 5]), 5)
  assert.equal(median([1, 2, 3, 10]), 2.5)
  assert.ok(Number.isNaN(median([])))
})

test('windows are medians, in order of time', () => {
  const samples = [
    { at: 1.1, value: 5 },
    { at: 0.1, value: 1 },
    { at: 0.2, value: 3 },
    { at: 0.4, value: 1000 },
    { at: 1.2, value: 7 },
  ]
  assert.deepEqual(windows(samples, 0.5), [
    { at: 0.25, value: 3 },
    { at: 1.25, value: 6 },
  ])
})

test('what rises is not flat, and neither is what spreads; what wavers within its bounds is', () => {
  const bounds = { rise: 10, spread: 30 }
  assert.deepEqual(shape(points([50, 51, 50, 51, 50]), bounds), { rise: 0, spread: 1, flat: true })
  assert.equal(shape(points([50, 54, 58, 62, 66]), bounds).flat, false)
  assert.equal(shape(points([50, 50, 90, 50, 50]), bounds).flat, false)
  assert.equal(shape(points([90, 80, 70, 65, 62]), bounds).flat, true)
  assert.equal(shape([], bounds).flat, true)
})

/** Ten minutes of samples: a garbage collector's sawtooth, and something that grows by so many bytes a minute. */
function minutes(growth: number): { at: number; rss: number; handles: number }[] {
  const random = new Random(3)
  return Array.from({ length: 600 }, (_, second) => ({
    at: second / 60,
    rss: 90 * MIB + ((second * 3) % 20) * MIB + random.int(MIB) + (growth * second) / 60,
    handles: 25 + random.int(8),
  }))
}

test('a leak of 1 MiB a minute is found under the sawtooth of a garbage collector, which alone is none', () => {
  const steady = judge({ server: minutes(0), node: minutes(0) })
  assert.deepEqual(
    steady.map(({ flat }) => flat),
    [true, true, true, true],
    steady.map(({ text }) => text).join('\n'),
  )
  const leaking = judge({ server: minutes(MIB), node: minutes(0) })
  assert.deepEqual(
    leaking.map(({ flat }) => flat),
    [false, true, true, true],
    leaking.map(({ text }) => text).join('\n'),
  )
  assert.match(leaking[0]?.text ?? '', /^server, RSS: NOT FLAT; trend [89]\.\d MiB/)
})

test('the first minute may grow', () => {
  const warming = minutes(0).map((sample) => ({ ...sample, rss: sample.at < 1 ? sample.at * MIB : sample.rss }))
  assert.ok(judge({ server: warming, node: warming }).every(({ flat }) => flat))
})

test('the table has a line a minute', () => {
  const sample = { at: 0.5, rss: 80 * MIB, handles: 20 }
  const table = formatTable([{ connections: 1234, cuts: 17, errors: 0 }], { server: [sample], node: [sample] })
  assert.deepEqual(
    table.split('\n').map((line) => line.trim().split(/\s{2,}/)),
    [
      ['minute', 'connections', 'cuts', 'server RSS', 'fds', 'node RSS', 'fds', 'errors'],
      ['1', '1234', '17', '80.0 MiB', '20', '80.0 MiB', '20', '0'],
    ],
  )
})

test('a wrong command line of the soak is told', () => {
  assert.deepEqual(parseOptions(['--minutes', '3', '--seed', '5']), { help: false, minutes: 3, seed: 5 })
  assert.equal(parseOptions([]).minutes, 10)
  for (const args of [['--minutes', '1'], ['--minutes', 'x'], ['--seed', '-1'], ['--nothing'], ['3']]) {
    assert.throws(() => parseOptions(args), UsageError)
  }
})
