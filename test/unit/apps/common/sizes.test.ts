import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatSize, RATE_PATTERN, SIZE_PATTERN, toRate, toSize } from '../../../../apps/common/sizes.ts'

const SIZES: readonly (readonly [string, number])[] = [
  ['1', 1],
  ['500000', 500_000],
  ['1B', 1],
  ['500KB', 500_000],
  ['500kB', 500_000],
  ['100kb', 100_000],
  ['1mb', 1_000_000],
  ['500KiB', 512_000],
  ['1.5 MiB', 1_572_864],
  ['50GB', 50e9],
  ['1TB', 1e12],
  ['10Mbit', 1_250_000],
  ['1Gbit', 125e6],
  ['8bit', 1],
]

test('a size is bytes, or has a unit', () => {
  for (const [text, bytes] of SIZES) {
    assert.equal(toSize(text, '--quota'), bytes, text)
    assert.match(text, SIZE_PATTERN, 'what editors are told')
  }
})

test('a rate may say that it is for a second', () => {
  for (const [text, bytes] of [...SIZES, ['1MB/s', 1e6], ['10Mbps', 1_250_000], ['2 MiB/s', 2 ** 21]] as const) {
    assert.equal(toRate(text, '--limit-in'), bytes, text)
    assert.match(text, RATE_PATTERN, 'what editors are told')
  }
  assert.throws(() => toSize('1MB/s', '--quota'), { code: 'PROXY_ERR_USAGE' })
  assert.doesNotMatch('1MB/s', SIZE_PATTERN)
})

test('what is no size is refused in one line, with the unit that was meant', () => {
  const refused: readonly (readonly [string, RegExp])[] = [
    ['', /^--quota: "" is no size: write 500KB/],
    ['much', /^--quota: "much" is no size/],
    ['-1MB', /is no size/],
    ['1e9', /is no size/],
    ['1,5MB', /is no size/],
    ['5MiBB', /did you mean 5MiB\?/],
    ['5KIB', /did you mean 5KiB\?/],
    ['10Mb', /may be bytes or bits: write MB or Mbit/],
    ['1Gb', /write GB or Gbit/],
    ['0', /less than a byte/],
    ['99999999TB', /too large/],
    [`1${'0'.repeat(100_000)}`, /is no size/],
    ['1MB\u0000', /is no size/],
  ]
  for (const [text, message] of refused) {
    assert.throws(
      () => toSize(text, '--quota'),
      (error: Error & { code?: string }) => {
        assert.match(error.message, message)
        assert.ok(error.message.length < 200 && !error.message.includes('\n'))
        return error.code === 'PROXY_ERR_USAGE'
      },
    )
  }
})

test('a size is shown as short as it can be said, and reads the same', () => {
  for (const [text, shown] of [
    ['1', '1B'],
    ['999', '999B'],
    ['500KB', '500kB'],
    ['512KiB', '512KiB'],
    ['1500KB', '1.5MB'],
    ['50GB', '50GB'],
    ['10Mbit', '1.25MB'],
    ['1234567', '1.2MB'],
  ] as const) {
    assert.equal(formatSize(toSize(text, '')), shown)
    assert.ok(Math.abs(toSize(shown, '') / toSize(text, '') - 1) < 0.05)
  }
})
