import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Endpoint } from '../../lib/core/index.ts'
import { datagramEcho, visitor } from '../helpers/contract/datagrams.ts'
import { boundAt, coded, connectNode, start, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { Stage } from '../helpers/system/stage.ts'
import { spec } from '../helpers/system/symport.ts'

/** `udp://127.0.0.1:5353` */
function endpoint(url: string): Endpoint {
  assert.match(url, /^udp:\/\//)
  return { Domain: 'udp', Addr: url.slice('udp://'.length) }
}

async function echoed(url: string, text: string): Promise<void> {
  await using user = await visitor(endpoint(url))
  user.send(text)
  assert.equal(await user.text(`the answer of ${url}`, 5000), text)
}

describe('udp on the command line', { concurrency: 3 }, () => {
  test('a server and a node map it in each form, either side listening', async (t) => {
    const stage = new Stage(t)
    await using target = await datagramEcho()
    const { Addr } = target.endpoint
    const { server, at } = await startServer(stage, [
      ...['--listener', spec('udp://127.0.0.1:0', `udp://${Addr}`)],
      ...['--listener', `tcp://127.0.0.1:0/udp,tcp://${Addr}/udp`],
      ...['--listener', `0:${Addr}/udp`],
      ...['--peer_listener', `udp://127.0.0.1:0,udp://${Addr}`],
    ])
    await connectNode(stage, at)
    for (const number of [0, 1, 2, 3]) await echoed(await boundAt(server, number), `hello ${number}`)
  })

  test('symport forward takes it without a server', async (t) => {
    const stage = new Stage(t)
    await using target = await datagramEcho()
    const forward = await start(stage, ['forward', `udp://127.0.0.1:0,udp://${target.endpoint.Addr}`])
    await echoed(await boundAt(forward), 'hello')
  })

  test('a listener of datagrams with a target of bytes is one line and status 2', async (t) => {
    const stage = new Stage(t)
    for (const text of ['udp://:5353,tcp://127.0.0.1:53', spec('tcp://127.0.0.1:0', 'udp://127.0.0.1:53')]) {
      const { status, stderr } = await runHere(stage, ['forward', text])
      assert.equal(status, 2)
      assert.match(stderr, /^[^\n]*bad SPEC [^\n]* cannot be forwarded to [^\n]*$/)
    }
  })

  test('--allow and --allow-ports are about it as about tcp', async (t) => {
    const stage = new Stage(t)
    await using allowed = await datagramEcho()
    await using denied = await datagramEcho()
    const { server, at } = await startServer(stage, [
      ...['--listener', `udp://127.0.0.1:0,udp://${allowed.endpoint.Addr}`],
      ...['--listener', `udp://127.0.0.1:0,udp://${denied.endpoint.Addr}`],
      ...['--allow-ports', '1'],
    ])
    const node = await connectNode(stage, at, [
      ...['--allow', allowed.endpoint.Addr],
      ...['-R', `udp://127.0.0.1:0,udp://${allowed.endpoint.Addr}`],
    ])
    await echoed(await boundAt(server, 0), 'hello')
    await using user = await visitor(endpoint(await boundAt(server, 1)))
    user.send('hello')
    const refusal = await coded(node, 'PROXY_ERR_DIAL_DENIED')
    assert.equal(refusal.msg, `refused: udp://${denied.endpoint.Addr} is not allowed here (see --allow)`)
    const listen = await coded(server, 'PROXY_ERR_LISTEN_DENIED')
    assert.match(listen.msg, /listening on udp:\/\/127\.0\.0\.1:0 is not allowed here \(see --allow-ports\)$/)
    assert.equal(denied.got.length, 0)
  })
})
