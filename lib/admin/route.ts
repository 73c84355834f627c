import type { Schema } from './schemas.ts'

/** One thing that the API can be asked, without the server that asks it. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  /** Below /api/v1; `:id` is a parameter. */
  readonly url: string
  readonly summary: string
  readonly tag: string
  readonly params?: Schema<unknown> | undefined
  readonly query?: Schema<unknown> | undefined
  readonly body?: Schema<unknown> | undefined
  /** What is answered; none is 204. */
  readonly answer?: Schema<unknown> | undefined
  readonly status?: number | undefined
  run(request: RouteRequest): Promise<unknown>
}

export interface RouteRequest {
  readonly params: unknown
  readonly query: unknown
  readonly body: unknown
  /** Who asks: `cli`, `api 192.0.2.1`. */
  readonly by: string
}
