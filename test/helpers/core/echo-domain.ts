import { PassThrough } from 'node:stream'
import type { DomainPlugin } from '../../../lib/core/domain.ts'
import { ProxyError } from '../../../lib/core/errors.ts'

/** Forwarded to, it sends everything back; an address of `nowhere` cannot be reached. */
export const echo: DomainPlugin = {
  name: 'echo',
  async dial(to) {
    if (to.Addr === 'nowhere') throw new ProxyError('PROXY_ERR_DIAL_FAILED', 'nothing listens there')
    return new PassThrough()
  },
}
