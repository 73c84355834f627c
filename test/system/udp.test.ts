import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { eventually, freePort } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { listenerAddress, spec, startNode, startServer } from '../helpers/system/symport.ts'

/** Real programs that speak UDP, through a server and a node. */

/** TXT records of 3,600 bytes: too large for plain DNS, and for one packet of Ethernet. */
const TXT = Array.from({ length: 15 }, (_, n) => String.fromCharCode(97 + n).repeat(240))

function portOf(url: string): string {
  return /:(\d+)$/.exec(url)?.[1] ?? ''
}

test('dig asks a DNS server behind a node, also for what needs many packets, and 100 at once', {
  timeout: 90_000,
}, async (t) => {
  const programs = requirePrograms(t, ['dig', 'dnsmasq'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const port = String(await freePort())
  const records = Array.from({ length: 100 }, (_, n) => `host-record=host${n}.test,10.1.2.${n + 1}`)
  const lines = [
    ...['no-resolv', 'no-hosts', 'bind-interfaces', 'listen-address=127.0.0.1', `port=${port}`],
    ...['edns-packet-max=4096', ...TXT.map((text) => `txt-record=large.test,${text}`), ...records],
  ]
  writeFileSync(stage.path('dnsmasq.conf'), `${lines.join('\n')}\n`)
  const user = process.getuid?.() === 0 ? ['--user=root'] : []
  await stage.start(programs.dnsmasq, [
    ...['--keep-in-foreground', `--conf-file=${stage.path('dnsmasq.conf')}`, '--pid-file=', ...user],
  ])
  const server = await startServer(stage, ['--listener', spec('udp://127.0.0.1:0', `udp://127.0.0.1:${port}`)])
  await startNode(stage, server.address)
  const mapped = portOf(await listenerAddress(server.child))

  const dig = (...args: string[]): Promise<string> =>
    stage.must(programs.dig, ['@127.0.0.1', '-p', mapped, '+notcp', '+ignore', '+tries=3', '+time=3', ...args])
  assert.equal(await eventually(() => dig('+short', 'host7.test')), '10.1.2.8')

  const large = await dig('+bufsize=4096', '+nocookie', 'TXT', 'large.test')
  assert.match(large, /flags: qr(?! [a-z ]*\btc\b)/, 'it is not cut short')
  for (const text of TXT) assert.ok(large.includes(`"${text}"`))
  assert.ok(Number(/MSG SIZE {2}rcvd: (\d+)/.exec(large)?.[1]) > 3600)
  assert.match(large, /\(UDP\)/)

  const answers = await Promise.all(Array.from({ length: 100 }, (_, n) => dig('+short', `host${n}.test`)))
  assert.deepEqual(
    answers,
    Array.from({ length: 100 }, (_, n) => `10.1.2.${n + 1}`),
  )
})

/**
 * What iperf3 may ask for, of a MiB. The 208 KiB that sockets have hold 44 ms of 20 Mbit/s: whatever keeps iperf3 itself from
 * reading for that long, or lets a while's datagrams come at once, would count as the tunnel's loss.
 */
async function largestBuffer(): Promise<number> {
  const sizes = await Promise.all(
    ['rmem_max', 'wmem_max'].map(async (name) => Number(await readFile(`/proc/sys/net/core/${name}`, 'utf8'))),
  )
  return Math.min(1_048_576, ...sizes)
}

test('iperf3 -u sends 20 Mbit/s through a node, and gets as much, with less than 1 % lost', {
  timeout: 90_000,
}, async (t) => {
  const programs = requirePrograms(t, ['iperf3'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const target = await freePort()
  const iperf = await stage.start(programs.iperf3, ['-s', '-B', '127.0.0.1', '-p', String(target), '--forceflush'])
  await iperf.line((line) => /Server listening/.exec(line)?.[0], '"Server listening"')
  // Its control connection is TCP, on the same port.
  const port = await freePort()
  const server = await startServer(stage, [
    ...['--listener', spec(`tcp://127.0.0.1:${port}`, `tcp://127.0.0.1:${target}`)],
    ...['--listener', spec(`udp://127.0.0.1:${port}`, `udp://127.0.0.1:${target}`)],
  ])
  await startNode(stage, server.address)
  await listenerAddress(server.child, 1)
  const window = String(await largestBuffer())
  for (const direction of [[], ['--reverse']]) {
    const text = await stage.must(programs.iperf3, [
      ...['-c', '127.0.0.1', '-p', String(port), '-w', window],
      ...['-u', '-b', '20M', '-t', '8', '-l', '1200', '--json', ...direction],
    ])
    const { sum } = (JSON.parse(text) as { end: { sum: Record<string, number> } }).end
    const { packets = 0, lost_percent: lost = 100, bits_per_second: rate = 0 } = sum
    assert.ok(packets > 15_000, `${packets} packets`)
    assert.ok(rate > 19e6, `${rate} bit/s`)
    assert.ok(lost < 1, `${lost} % are lost`)
  }
})
