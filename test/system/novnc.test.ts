import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startServer } from '../helpers/e2e/cli.ts'
import { startFaultRelay } from '../helpers/faults/fault-relay.ts'
import { Browser, type Page } from '../helpers/system/browser.ts'
import { makeCertificates, writeCertificates } from '../helpers/system/fronts.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { publish } from '../helpers/system/publish.ts'
import { Stage } from '../helpers/system/stage.ts'
import { novncQuery, screenShown, serveNovnc, startScreen, useScreen } from '../helpers/system/vnc.ts'

test('noVNC in a browser shows and uses the screen of a VNC server behind a node', { timeout: 120_000 }, async (t) => {
  const programs = requirePrograms(t, ['chromium', 'noVNC', 'Xtigervnc', 'xev'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const certificates = await makeCertificates()
  writeCertificates(stage, certificates)
  const screen = await startScreen(stage, programs)
  const pages = await serveNovnc(stage)
  const tls = ['--cert', stage.path('cert.pem'), '--key', stage.path('key.pem')]
  const { at } = await startServer(stage, ['--allow-names', '*', ...tls])
  const relay = await startFaultRelay({ target: at })
  stage.defer(() => relay.close())
  await publish(stage, { host: '127.0.0.1', port: relay.port }, [
    `tcp://127.0.0.1:${screen.port}?mode=path&value=vnc`,
    `tcp://127.0.0.1:${screen.port}?mode=domain&value=screen.example.com`,
    // So that the page and the WebSocket come from one place, as one would have it.
    `http://127.0.0.1:${pages}?mode=path&value=novnc`,
  ])
  const browser = await Browser.start(stage, programs.chromium, {
    hosts: ['screen.example.com'],
    trusted: [certificates.own.cert],
  })
  const uses = async (page: string, host: string, path: string): Promise<Page> => {
    const tab = await browser.open(`${page}/vnc.html?${novncQuery({ host, port: at.port, path })}`)
    await screenShown(tab)
    await useScreen(tab, screen)
    return tab
  }
  await t.test(
    "from the same place: the page is the node's, too; and it stays when the node loses its link",
    async () => {
      const tab = await uses(`http://127.0.0.1:${at.port}/novnc`, '127.0.0.1', 'vnc')
      assert.equal(relay.cut('rst'), 1)
      await useScreen(tab, screen)
      await screenShown(tab)
    },
  )
  await t.test('over TLS', async () => void (await uses(`https://127.0.0.1:${at.port}/novnc`, '127.0.0.1', 'vnc')))
  await t.test(
    "from elsewhere, as novnc.com's page is",
    async () => void (await uses(`http://localhost:${pages}`, '127.0.0.1', 'vnc')),
  )
  await t.test('under a name', async () => void (await uses(`http://localhost:${pages}`, 'screen.example.com', '')))
})
