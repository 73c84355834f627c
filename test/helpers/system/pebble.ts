import { X509Certificate } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { connect as connectTls } from 'node:tls'
import { Identity } from '../transports/authority.ts'
import { type Child, cleanEnvironment } from './child.ts'
import { eventually, freePort } from './net.ts'
import type { Stage } from './stage.ts'

export interface PebbleOptions {
  readonly programs: { readonly pebble: string; readonly 'pebble-challtestsrv': string }
  /** Where it looks at names, by `http-01` and by `tls-alpn-01`. */
  readonly httpPort: number
  readonly tlsPort: number
  /** How long its certificates are good, in seconds. Default: 90 days. */
  readonly validity?: number
  /** Whom it asks for names, on this machine. Default: a server of its own, as `point` says. */
  readonly dns?: number
  /** Keys of accounts by their ids: it makes accounts for nobody else. */
  readonly accounts?: Readonly<Record<string, string>>
  /** Of a hundred nonces, how many it does not take. Default 5. */
  readonly badNonces?: number
}

/** A CA that speaks ACME, with a DNS of its own in which all names are 127.0.0.1. */
export class Pebble {
  readonly directory: string
  /** The certificate to believe when it is asked, as a file. */
  readonly ca: string
  /** The same as a text. */
  readonly ownCa: string
  readonly #child: Child
  readonly #management: number
  readonly #dns: number

  private constructor(
    child: Child,
    about: { ca: Identity; file: string; port: number; management: number; dns: number },
  ) {
    this.#child = child
    this.ownCa = about.ca.cert
    this.ca = about.file
    this.directory = `https://localhost:${about.port}/dir`
    this.#management = about.management
    this.#dns = about.dns
  }

  static async start(stage: Stage, options: PebbleOptions): Promise<Pebble> {
    const { programs, httpPort, tlsPort, accounts, validity = 90 * 86_400, badNonces = 5 } = options
    const [port, management, dns] = await Promise.all([freePort(), freePort(), freePort()])
    const names = options.dns ?? (await freePort())
    const ca = await Identity.make("Pebble's own", { names: ['localhost', '127.0.0.1'] })
    const [file, config] = [stage.path('pebble-ca.pem'), stage.path('pebble.json')]
    writeFileSync(file, ca.cert)
    writeFileSync(stage.path('pebble-key.pem'), ca.key, { mode: 0o600 })
    const pebble = {
      listenAddress: `127.0.0.1:${port}`,
      managementListenAddress: `127.0.0.1:${management}`,
      certificate: file,
      privateKey: stage.path('pebble-key.pem'),
      ...{ httpPort, tlsPort, ocspResponderURL: '', certificateValidityPeriod: validity },
      ...(accounts ? { externalAccountBindingRequired: true, externalAccountMACKeys: accounts } : {}),
    }
    writeFileSync(config, JSON.stringify({ pebble }))
    if (options.dns === undefined) {
      await stage.start(programs['pebble-challtestsrv'], [
        ...['-dns01', `127.0.0.1:${names}`, '-management', `127.0.0.1:${dns}`, '-defaultIPv6', ''],
        ...['-http01', '', '-https01', '', '-tlsalpn01', ''],
      ])
    }
    const env = cleanEnvironment({
      PEBBLE_VA_NOSLEEP: '1',
      PEBBLE_AUTHZREUSE: '0',
      PEBBLE_WFE_NONCEREJECT: `${badNonces}`,
    })
    const child = await stage.start(programs.pebble, ['-config', config, '-dnsserver', `127.0.0.1:${names}`], { env })
    const started = new Pebble(child, { ca, file, port, management, dns })
    await eventually(() => started.root())
    if (options.dns === undefined) await eventually(() => started.point('nobody.example.com', '127.0.0.1'))
    return started
  }

  /** The flags with which a server asks it. */
  get flags(): string[] {
    return ['--acme-email', 'admin@example.com', '--acme-directory', this.directory, '--acme-ca', this.ca]
  }

  /** Where names and records are set: `/set-txt` takes `{host, value}`. */
  get names(): string {
    return `http://127.0.0.1:${this.#dns}`
  }

  /** The root that it signs with, in PEM. */
  root(): Promise<string> {
    return new Promise((resolve, reject) => {
      const asking = request(`https://localhost:${this.#management}/roots/0`, { ca: this.ownCa, agent: false })
      asking.on('error', reject)
      asking.once('response', async (response) => {
        let text = ''
        for await (const chunk of response) text += chunk
        if (response.statusCode === 200) resolve(text)
        else reject(new Error(text))
      })
      asking.end()
    })
  }

  /** From now on this name is found at another address. */
  async point(host: string, address: string): Promise<void> {
    const body = JSON.stringify({ host, addresses: [address] })
    const { ok, status } = await fetch(`http://127.0.0.1:${this.#dns}/add-a`, { method: 'POST', body })
    if (!ok) throw new Error(`challtestsrv answers ${status}`)
  }

  /** How many orders were made in all. */
  get orders(): number {
    return this.#child.lines.filter((line) => line.includes('There are now ') && line.includes('orders in the db'))
      .length
  }

  /** Stops it: nobody is there to be asked. */
  async stop(): Promise<void> {
    await this.#child.stop()
  }
}

/** The certificate that somebody is shown who asks for a name. */
export async function shown(port: number, servername: string): Promise<X509Certificate> {
  return await new Promise((resolve, reject) => {
    const socket = connectTls({ port, host: '127.0.0.1', servername, rejectUnauthorized: false }, () => {
      resolve(new X509Certificate(socket.getPeerCertificate().raw))
      socket.destroy()
    })
    socket.on('error', reject)
  })
}
