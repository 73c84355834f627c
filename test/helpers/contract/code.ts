import {
  type DomainPlugin,
  type Endpoint,
  type ListenContext,
  type Listener,
  type Proxy,
  ProxyError,
  type SubConnection,
} from '../../../lib/core/index.ts'

export const CODE: Endpoint = { Domain: 'code', Addr: 'x' }

export interface CodeDomain extends DomainPlugin {
  /** What a user who connects does. The newest listener is used. */
  open(from?: string): Promise<SubConnection>
  readonly listening: number
}

/** A domain that is listened on by code: connections come in when a test says so. */
export function codeDomain(): CodeDomain {
  const contexts: ListenContext[] = []
  return {
    name: 'code',
    get listening() {
      return contexts.length
    },
    async listen(at, context): Promise<Listener> {
      contexts.push(context)
      const close = async (): Promise<void> => {
        const index = contexts.indexOf(context)
        if (index >= 0) contexts.splice(index, 1)
      }
      return { bound: at, close, [Symbol.asyncDispose]: close }
    },
    async open(from) {
      const context = contexts.at(-1)
      if (!context) throw new Error('nobody listens')
      const sub = await context.open({ from })
      sub.on('error', () => {})
      return sub
    },
  }
}

export interface Pairs {
  /** A new sub-connection: the end that opened it, and the end that code has accepted. */
  next(): Promise<{ opened: SubConnection; accepted: SubConnection }>
}

/** Sub-connections between two Proxies, held by code on both sides. `answers` accepts what `domain`'s side opens. */
export async function codePairs(answers: Proxy, domain: CodeDomain): Promise<Pairs> {
  const incoming = (await answers.accept(CODE))[Symbol.asyncIterator]()
  return {
    async next() {
      const [opened, result] = await Promise.all([domain.open(), incoming.next()])
      if (result.done) throw new Error('the listener is closed')
      result.value.on('error', () => {})
      return { opened, accepted: result.value }
    },
  }
}

/** Why a sub-connection ended, when it has; undefined for an orderly end. */
export async function endOf(sub: SubConnection): Promise<ProxyError | undefined> {
  if (!sub.closed) await new Promise<void>((resolve) => void sub.once('close', () => resolve()))
  const { errored } = sub
  if (errored && !(errored instanceof ProxyError)) throw errored
  return errored ?? undefined
}
