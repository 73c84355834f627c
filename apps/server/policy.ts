import type { Policy } from '../../lib/core/index.ts'
import { parseWeb } from '../../lib/domains/web-address.ts'
import { type NameRules, type OwnNames, parseNamePattern } from '../../lib/policy/names.ts'
import { type PortRange, parsePortRanges } from '../../lib/policy/patterns.ts'
import { createPolicy } from '../../lib/policy/policy.ts'
import { wspPolicy } from '../../lib/policy/reach.ts'
import type { WspServer } from '../common/config.ts'
import type { PublicDomain } from '../common/domain.ts'
import { parsePatterns } from '../common/options.ts'

/** The flags that say what nodes may ask for. */
export interface AllowValues {
  readonly allow: readonly string[]
  readonly 'allow-ports': string | undefined
  readonly 'allow-names': readonly string[]
}

export interface PolicySurroundings {
  /** What of the web port is the server's own. */
  readonly own: OwnNames
  /** There if the server was started from a file of wsp. */
  readonly wsp: WspServer | undefined
  /** Below which name every node may have names, unless `--allow-names` says which. */
  readonly domain?: PublicDomain | undefined
}

/**
 * What nodes may ask for, beyond what is granted to one of them.
 *
 * @throws ProxyError PROXY_ERR_PATTERN
 */
export function policyOf(values: AllowValues, { own, wsp, domain }: PolicySurroundings): Policy {
  const listenPorts = values['allow-ports'] === undefined ? undefined : allowedPorts(values)
  const patterns = allowedNames(values, wsp ? undefined : domain).map((text) => parseNamePattern(text, parseWeb))
  const names: NameRules = { patterns: wsp && patterns.length === 0 ? ['any'] : patterns, read: parseWeb, own }
  if (wsp) {
    const allow = wspAllow(values, wsp)
    return wspPolicy({ allow: allow && parsePatterns(allow), listenPorts, names })
  }
  const dial = values.allow.length > 0 ? parsePatterns(values.allow) : 'none'
  return createPolicy({ dial, listenPorts: listenPorts ?? 'none', names })
}

/** @throws ProxyError PROXY_ERR_PATTERN */
export function allowedPorts(values: Pick<AllowValues, 'allow-ports'>): readonly PortRange[] {
  return values['allow-ports'] === undefined ? [] : parsePortRanges(values['allow-ports'])
}

/** What nodes as of wsp may dial; undefined: what wsp lets them. */
export function wspAllow({ allow }: Pick<AllowValues, 'allow'>, wsp: WspServer): readonly string[] | undefined {
  return allow.length > 0 ? allow : wsp.allow
}

/** What `--allow-names` comes to: a server that has a domain has it for the names below. */
export function allowedNames(
  values: Pick<AllowValues, 'allow-names'>,
  domain: PublicDomain | undefined,
): readonly string[] {
  return values['allow-names'].length > 0 || domain === undefined ? values['allow-names'] : [`*.${domain.host}`]
}

/** Whether any node may have a name of the web port without being granted one. */
export function givesNames(values: Pick<AllowValues, 'allow-names'>, wsp: WspServer | undefined): boolean {
  return wsp !== undefined || values['allow-names'].length > 0
}
