import { ProxyError } from '../../lib/core/index.ts'
import type { HostPort } from '../../lib/domains/address.ts'
import type { OnDuplicate } from '../../lib/hub/duplicates.ts'
import { parseAdminAddress } from '../common/admin-address.ts'
import { type Flag, notEmpty, type StringFlag } from '../common/flags.ts'

const ON_DUPLICATE: readonly OnDuplicate[] = ['allow', 'refuse', 'replace']

/** Who may connect, and who may look and change things while the server runs. */
export const OPERATOR_FLAGS: readonly [
  Flag & { readonly name: 'enrolled-only'; readonly kind: 'boolean' },
  StringFlag<'on-duplicate'>,
  StringFlag<'admin'>,
  StringFlag<'webhook'>,
] = [
  {
    name: 'enrolled-only',
    kind: 'boolean',
    help: 'Only nodes with credentials of their own may connect ("symport nodes add"); there is no shared secret.',
  },
  {
    name: 'on-duplicate',
    kind: 'string',
    value: 'RULE',
    help: 'When a second process connects as the same node: allow both, refuse it, or replace the first. Default: allow.',
  },
  {
    name: 'admin',
    kind: 'string',
    value: 'ADDR',
    help: 'Serve the API and /metrics here, for whoever has the token in the state folder: 127.0.0.1:9250. Default: on a Unix socket in that folder only.',
  },
  { name: 'webhook', kind: 'string', value: 'URL', help: 'Tell this URL when a node comes and goes.' },
]

export interface OperatorSettings {
  readonly onDuplicate: OnDuplicate | undefined
  readonly admin: HostPort | undefined
  readonly webhook: { readonly url: string } | undefined
}

/** @throws ProxyError PROXY_ERR_USAGE */
export function parseOperatorFlags(values: {
  'on-duplicate': string | undefined
  admin: string | undefined
  webhook: string | undefined
}): OperatorSettings {
  const rule = values['on-duplicate']
  const onDuplicate = ON_DUPLICATE.find((one) => one === rule)
  if (rule !== undefined && !onDuplicate) {
    throw usage(`--on-duplicate: ${JSON.stringify(rule.slice(0, 40))} is not one of ${ON_DUPLICATE.join(', ')}`)
  }
  const webhook = notEmpty(values.webhook, 'webhook')
  if (webhook !== undefined && !/^https?:$/.test(protocolOf(webhook))) {
    throw usage('--webhook: the URL begins with http:// or https://')
  }
  return {
    onDuplicate,
    admin: parseAdminAddress(values.admin),
    webhook: webhook === undefined ? undefined : { url: webhook },
  }
}

function protocolOf(url: string): string {
  return URL.canParse(url) ? new URL(url).protocol : ''
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
