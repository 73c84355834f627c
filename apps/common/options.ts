import { type DomainPlugin, type Pattern, parsePattern, parseSpec, type Spec, tcp, unix } from '../../lib/index.ts'
import type { ListFlag, StringFlag } from './flags.ts'
import { LOG_FLAGS } from './log.ts'
import { SECRET_FLAGS } from './secret.ts'

export const DEFAULT_DRAIN = 30_000

export const COMMON_FLAGS: readonly [
  ...typeof SECRET_FLAGS,
  StringFlag<'state'>,
  ListFlag<'allow'>,
  StringFlag<'drain-timeout'>,
  ...typeof LOG_FLAGS,
] = [
  ...SECRET_FLAGS,
  { name: 'state', kind: 'string', value: 'DIR', help: 'The folder for keys and secrets.' },
  {
    name: 'allow',
    kind: 'list',
    value: 'PATTERN',
    help: 'What the other side may have dialled here: HOST:PORT, CIDR:PORT-PORT, *.suffix:*, unix:/path.',
  },
  {
    name: 'drain-timeout',
    kind: 'string',
    value: 'TIME',
    help: 'How long open connections may take to finish at the end. Default: 30s.',
  },
  ...LOG_FLAGS,
]

/** Everything that can be listened on and forwarded to. A new domain is one more line. */
export function createDomains(): DomainPlugin[] {
  return [tcp(), unix()]
}

export function parseSpecs(texts: readonly string[], domains: readonly DomainPlugin[]): Spec[] {
  return texts.map((text) => parseSpec(text, { domains }))
}

export function parsePatterns(texts: readonly string[]): Pattern[] {
  return texts.map((text) => parsePattern(text))
}
