import { once } from 'node:events'
import { createReadStream, existsSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join, normalize } from 'node:path'
import { pipeline } from 'node:stream'
import type { Page } from './browser.ts'
import { type Child, cleanEnvironment } from './child.ts'
import { answers, eventually, freePort } from './net.ts'
import type { Stage } from './stage.ts'

/** Where Debian's package has it. */
const NOVNC = '/usr/share/novnc'
const SCREEN = { width: 640, height: 480 }
/** White, at the left upper corner of a screen that is black. */
const WINDOW = { width: 200, height: 150 }

export interface Screen {
  /** Where the VNC server is, on 127.0.0.1. */
  readonly port: number
  /** Prints a line for each event that the window gets. */
  readonly window: Child
}

/** A real VNC server, without a password, whose screen shows one window. */
export async function startScreen(stage: Stage, programs: { Xtigervnc: string; xev: string }): Promise<Screen> {
  const port = await freePort()
  const size = `${SCREEN.width}x${SCREEN.height}`
  const args = [
    ...['-displayfd', '3', '-nolisten', 'tcp', '-ac', '-br', '-geometry', size, '-depth', '24'],
    ...['-rfbport', String(port), '-localhost', '-SecurityTypes', 'None', '-AlwaysShared'],
  ]
  const server = await stage.start(programs.Xtigervnc, args, { third: true })
  const display = `:${await server.line((line) => /^(\d+)$/.exec(line)?.[1], 'its display')}`
  await eventually(async () => {
    if (!(await answers(port))) throw new Error(`nothing listens on ${port}:\n${server.tail()}`)
  })
  const place = ['-geometry', `${WINDOW.width}x${WINDOW.height}+0+0`, '-bw', '0']
  const window = await stage.start(programs.xev, place, { env: cleanEnvironment({ DISPLAY: display }) })
  await said(window, /^Expose event/, 'that the window can be seen')
  return { port, window }
}

/** A line that a program has printed, or will. */
function said(child: Child, pattern: RegExp, what: string, from = 0): Promise<string> {
  return child.line((line) => pattern.exec(line)?.[0], what, from)
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.json': 'application/json',
}

/** noVNC's own files, served as they are. Gives the port; `/vnc.html` is the page. */
export async function serveNovnc(stage: Stage): Promise<number> {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    const file = join(NOVNC, normalize(pathname))
    if (!existsSync(file)) {
      response.writeHead(404).end()
      return
    }
    response.setHeader('Content-Type', TYPES[extname(file)] ?? 'application/octet-stream')
    pipeline(createReadStream(file), response, () => {})
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stage.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** The query of the page that connects at once to a WebSocket. */
export function novncQuery(at: { host: string; port: number; path: string }): string {
  const query = { host: at.host, port: String(at.port), path: at.path, autoconnect: '1', reconnect: '0' }
  return new URLSearchParams(query).toString()
}

/** Waits until noVNC says that it is connected, and shows the screen. */
export async function screenShown(page: Page): Promise<void> {
  await page.until(`document.documentElement.classList.contains('noVNC_connected')`, 'noVNC is connected')
  const corner = pixel(WINDOW.width - 5, WINDOW.height - 5)
  const beside = pixel(WINDOW.width + 5, WINDOW.height + 5)
  const { width, height } = SCREEN
  await page.until(
    `(() => {
      const canvas = document.querySelector('#noVNC_container canvas')
      return canvas && canvas.width === ${width} && canvas.height === ${height} && ${corner} === '255,255,255' && ${beside} === '0,0,0'
    })()`,
    'noVNC shows the white window on the black screen',
  )
}

function pixel(x: number, y: number): string {
  return `canvas.getContext('2d').getImageData(${x}, ${y}, 1, 1).data.slice(0, 3).join()`
}

/** Clicks and types into the window, in the browser; gives when the window has got both, and what it got. */
export async function useScreen(page: Page, { window }: Screen): Promise<void> {
  const from = window.lines.length
  const place = await page.evaluate(
    `(() => { const { x, y } = document.querySelector('#noVNC_container canvas').getBoundingClientRect(); return [x, y] })()`,
  )
  if (!Array.isArray(place)) throw new Error('the canvas is nowhere')
  // It may begin between two pixels.
  const [x = 0, y = 0] = place.map((value) => Math.ceil(Number(value)))
  await page.click(x + 60, y + 40)
  await said(window, /^ButtonPress event/, 'the press of a button', from)
  await said(window, /root:\(60,40\)/, 'where it was pressed', from)
  await page.press('s')
  await said(window, /keysym 0x73, s/, 'the key that was pressed', from)
}
