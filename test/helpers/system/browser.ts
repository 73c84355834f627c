import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { WebSocket } from 'ws'
import { type Child, cleanEnvironment } from './child.ts'
import { eventually } from './net.ts'
import type { Stage } from './stage.ts'

const COMMAND_MS = 30_000

export interface BrowserOptions {
  /** As `--proxy-server` takes it, for every request, this machine's included. Default: none. */
  readonly proxy?: string
  /** Names that mean 127.0.0.1. */
  readonly hosts?: readonly string[]
  /** Certificates, in PEM, with which a server may be anybody. */
  readonly trusted?: readonly string[]
  /** CAs that it believes as those of the system; `certutil` of NSS is the program that tells it so. */
  readonly authorities?: { readonly certutil: string; readonly pems: readonly string[] }
}

interface Answer {
  id?: number
  sessionId?: string
  method?: string
  params?: Record<string, unknown>
  result?: Record<string, unknown>
  error?: { message: string }
}

/** The Chrome DevTools Protocol, as far as tests need it. */
class DevTools {
  readonly #socket: WebSocket
  readonly #waiting = new Map<number, (answer: Answer) => void>()
  readonly #handlers = new Set<(answer: Answer) => void>()
  #last = 0

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.on('message', (data) => this.#received(JSON.parse(String(data)) as Answer))
    socket.on('close', () => {
      for (const settle of this.#waiting.values()) settle({ error: { message: 'the browser has ended' } })
    })
  }

  static async connect(url: string): Promise<DevTools> {
    const socket = new WebSocket(url, { perMessageDeflate: false, handshakeTimeout: COMMAND_MS })
    await once(socket, 'open')
    socket.on('error', () => {})
    return new DevTools(socket)
  }

  #received(answer: Answer): void {
    if (answer.id !== undefined) this.#waiting.get(answer.id)?.(answer)
    else for (const handle of this.#handlers) handle(answer)
  }

  onEvent(handle: (answer: Answer) => void): void {
    this.#handlers.add(handle)
  }

  async send(method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> {
    const id = ++this.#last
    const answer = await new Promise<Answer>((resolve) => {
      const timer = setTimeout(() => resolve({ error: { message: `no answer in ${COMMAND_MS} ms` } }), COMMAND_MS)
      this.#waiting.set(id, (answer) => {
        clearTimeout(timer)
        resolve(answer)
      })
      const open = this.#socket.readyState === WebSocket.OPEN
      if (open) this.#socket.send(JSON.stringify({ id, method, params, sessionId }))
      else this.#waiting.get(id)?.({ error: { message: 'the browser has ended' } })
    })
    this.#waiting.delete(id)
    if (answer.error) throw new Error(`${method}: ${answer.error.message}`)
    return answer.result ?? {}
  }

  close(): void {
    this.#socket.terminate()
  }
}

/** A Chromium without a window. It is ended with the test. */
export class Browser {
  readonly child: Child
  readonly #tools: DevTools

  private constructor(child: Child, tools: DevTools) {
    this.child = child
    this.#tools = tools
  }

  static async start(stage: Stage, program: string, options: BrowserOptions = {}): Promise<Browser> {
    const home = stage.path(`browser-${crypto.randomUUID()}`)
    mkdirSync(home)
    // What it has started ends a moment after it, and may still write.
    stage.defer(() => rmSync(home, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }))
    const { proxy, hosts = [], trusted = [], authorities } = options
    if (authorities) await trust(stage, home, authorities)
    const flags = [
      ...['--headless', '--remote-debugging-port=0', `--user-data-dir=${home}/profile`, '--window-size=1000,800'],
      // Tests open nothing but pages of their own.
      ...['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-breakpad', '--mute-audio'],
      ...['--no-first-run', '--no-default-browser-check', '--disable-extensions', '--disable-component-update'],
      ...['--disable-background-networking', '--disable-sync', '--disable-default-apps', '--no-pings'],
      // Without "<-loopback>" it asks no proxy for this machine.
      ...(proxy === undefined ? ['--no-proxy-server'] : [`--proxy-server=${proxy}`, '--proxy-bypass-list=<-loopback>']),
      ...(hosts.length > 0 ? [`--host-resolver-rules=${hosts.map((host) => `MAP ${host} 127.0.0.1`).join(',')}`] : []),
      ...(trusted.length > 0 ? [`--ignore-certificate-errors-spki-list=${trusted.map(keyHash).join(',')}`] : []),
    ]
    const env = cleanEnvironment({ HOME: home, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home })
    const child = await stage.start(program, [...flags, 'about:blank'], { env })
    const pick = (line: string): string | undefined => /^DevTools listening on (ws:\S+)/.exec(line)?.[1]
    const tools = await DevTools.connect(await child.line(pick, '"DevTools listening on"', 0, 60_000))
    stage.defer(() => tools.close())
    return new Browser(child, tools)
  }

  /** A new page, when all that it needs has been loaded. */
  async open(url: string): Promise<Page> {
    const { targetId } = await this.#tools.send('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await this.#tools.send('Target.attachToTarget', { targetId, flatten: true })
    const page = new Page(this.#tools, String(sessionId))
    await page.open(url)
    return page
  }
}

/** As a person would, for Chromium on Linux: in the database of NSS below the home folder. */
async function trust(
  stage: Stage,
  home: string,
  { certutil, pems }: NonNullable<BrowserOptions['authorities']>,
): Promise<void> {
  const folder = `${home}/.pki/nssdb`
  mkdirSync(folder, { recursive: true })
  const database = ['-d', `sql:${folder}`]
  await stage.must(certutil, [...database, '-N', '--empty-password'])
  for (const [i, pem] of pems.entries()) {
    const file = `${home}/authority-${i}.pem`
    writeFileSync(file, pem)
    await stage.must(certutil, [...database, '-A', '-n', `authority ${i}`, '-t', 'C,,', '-i', file])
  }
}

/** The hash of a certificate's public key, as Chromium takes it. */
function keyHash(cert: string): string {
  const key = new X509Certificate(cert).publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(key).digest('base64')
}

export class Page {
  /** What the page has written to its console, and what it did not catch. */
  readonly said: string[] = []
  readonly #tools: DevTools
  readonly #session: string
  #loads = 0

  constructor(tools: DevTools, session: string) {
    this.#tools = tools
    this.#session = session
    tools.onEvent(({ sessionId, method, params }) => {
      if (sessionId !== session) return
      if (method === 'Page.loadEventFired') this.#loads++
      if (method === 'Runtime.consoleAPICalled' || method === 'Runtime.exceptionThrown') {
        this.said.push(JSON.stringify(params?.args ?? params?.exceptionDetails))
      }
    })
  }

  async send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    return await this.#tools.send(method, params, this.#session)
  }

  async open(url: string): Promise<void> {
    await this.send('Page.enable')
    await this.send('Runtime.enable')
    const before = this.#loads
    const { errorText } = await this.send('Page.navigate', { url })
    if (errorText !== undefined) throw new Error(`${url}: ${String(errorText)}`)
    await eventually(async () => {
      if (this.#loads === before) throw new Error(`${url} has not been loaded`)
    }, COMMAND_MS)
  }

  /** What an expression gives inside the page, a promise's value included. */
  async evaluate(expression: string): Promise<unknown> {
    const asked = { expression, awaitPromise: true, returnByValue: true }
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', asked)
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`)
    return typeof result === 'object' && result !== null && 'value' in result ? result.value : undefined
  }

  /** Waits until an expression gives something true, and gives that. */
  async until(expression: string, what: string, timeoutMs = 30_000): Promise<unknown> {
    return await eventually(async () => {
      const value = await this.evaluate(expression)
      if (!value) throw new Error(`not yet: ${what}; the page says:\n${this.said.slice(-20).join('\n')}`)
      return value
    }, timeoutMs)
  }

  /** A key with a letter on it, down and up. */
  async press(letter: string): Promise<void> {
    const key = {
      key: letter,
      code: `Key${letter.toUpperCase()}`,
      windowsVirtualKeyCode: letter.toUpperCase().charCodeAt(0),
    }
    await this.send('Input.dispatchKeyEvent', { type: 'keyDown', text: letter, ...key })
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...key })
  }

  /** The left button at a place of the window, in CSS pixels. */
  async click(x: number, y: number): Promise<void> {
    const at = { x, y, button: 'left', clickCount: 1 }
    await this.send('Input.dispatchMouseEvent', { type: 'mouseMoved', x, y })
    await this.send('Input.dispatchMouseEvent', { type: 'mousePressed', ...at })
    await this.send('Input.dispatchMouseEvent', { type: 'mouseReleased', ...at })
  }
}
