import { writeFileSync } from 'node:fs'
import { type Child, cleanEnvironment } from './child.ts'
import { freePort } from './net.ts'
import type { Stage } from './stage.ts'

type Json = Record<string, unknown>

/** A Caddy on free ports of 127.0.0.1 that signs certificates itself, with the admin API. */
export class Caddy {
  readonly https: number
  readonly admin: string
  /** The root that it signs with, once it has. */
  readonly root: string
  readonly #stage: Stage
  readonly #program: string
  readonly #http: number
  #child: Child | undefined

  private constructor(stage: Stage, program: string, [http, https, admin]: readonly [number, number, number]) {
    this.#stage = stage
    this.#program = program
    this.#http = http
    this.https = https
    this.admin = `http://127.0.0.1:${admin}`
    this.root = stage.path('caddy', 'pki', 'authorities', 'local', 'root.crt')
  }

  static async make(stage: Stage, program: string): Promise<Caddy> {
    return new Caddy(stage, program, [await freePort(), await freePort(), await freePort()])
  }

  /** `routes` of a server `web`; without them there is none. */
  async start(routes?: readonly Json[]): Promise<void> {
    const servers = routes && { web: { listen: [`127.0.0.1:${this.https}`], routes } }
    const config = {
      admin: { listen: this.admin.slice('http://'.length), config: { persist: false } },
      apps: {
        http: { http_port: this.#http, https_port: this.https, ...(servers ? { servers } : {}) },
        tls: { automation: { policies: [{ issuers: [{ module: 'internal' }] }] } },
        pki: { certificate_authorities: { local: { install_trust: false } } },
      },
    }
    const file = this.#stage.path('caddy.json')
    writeFileSync(file, JSON.stringify(config))
    const { folder } = this.#stage
    const env = cleanEnvironment({ HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder })
    const child = await this.#stage.start(this.#program, ['run', '--config', file], { env, cwd: folder })
    this.#child = child
    const ready = (line: string): true | undefined =>
      line.includes('serving initial configuration') ? true : undefined
    await child.line(ready, 'that it is ready')
  }

  async stop(): Promise<void> {
    await this.#child?.stop()
  }

  async servers(): Promise<Record<string, { listen: string[]; routes: Json[] }>> {
    const response = await fetch(`${this.admin}/config/apps/http/servers`)
    if (!response.ok) throw new Error(`Caddy answers ${response.status}`)
    return ((await response.json()) ?? {}) as Awaited<ReturnType<Caddy['servers']>>
  }
}
