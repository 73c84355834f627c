import { type Credential, deriveCredential, ProxyError } from '../../lib/core/index.ts'
import { keepSecret, readSecret, secretFileFor } from '../../lib/store/secrets.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'
import { isLoopbackHost } from '../common/identity.ts'
import type { Place } from '../common/transports.ts'
import type { ServerPlan } from './plan.ts'

/** A plan that can be carried out. */
export interface ReadyPlan extends ServerPlan {
  readonly secret: string
  /** Under way: it takes longer than all else at a start. */
  readonly credential: Promise<Credential>
}

export interface FoundSecrets {
  readonly ready: readonly ReadyPlan[]
  /** Whether others could read one that was kept. */
  readonly exposed: boolean
}

/** Asks a person, without showing what is typed. Undefined where nobody can be asked. */
export type Ask = (question: string) => Promise<string | undefined>

/**
 * The secret of each server: what was given, what was kept for it, that of a server on this machine, or what a person
 * types, which is kept then.
 *
 * @throws ProxyError PROXY_ERR_SECRET if one is missing
 */
export async function findSecrets(plans: readonly ServerPlan[], state: StateFolder, ask: Ask): Promise<FoundSecrets> {
  const ready: ReadyPlan[] = []
  const typed = new Map<string, string>()
  let exposed = false
  // One after the other: a person answers one question at a time.
  for (const plan of plans) {
    const { place, secret, secretAdvice } = plan
    const kept = secret === undefined ? await keptSecret(state, place) : undefined
    exposed ||= kept?.exposed ?? false
    const known = secret ?? kept?.secret ?? typed.get(place.name)
    const found = known ?? (await ask(`Secret of ${place.name} ("symport uuid" on the server shows it): `))
    if (found === undefined) {
      throw new ProxyError('PROXY_ERR_SECRET', `the secret of ${place.name} is missing: ${secretAdvice}`)
    }
    if (known === undefined) typed.set(place.name, found)
    ready.push({ ...plan, secret: found, credential: derive(found, plan.name) })
  }
  for (const [name, secret] of typed) await keepSecret(state, secret, secretFileFor(name))
  return { ready, exposed }
}

/** Whoever connects hears of a failure. */
function derive(secret: string, name: string | undefined): Promise<Credential> {
  const credential = deriveCredential(secret, name)
  credential.catch(() => {})
  return credential
}

/** What was kept for this server, or the secret of a server on this machine. */
async function keptSecret(state: StateFolder, place: Place): Promise<{ secret: string; exposed: boolean } | undefined> {
  const kept = await readSecret(state, secretFileFor(place.name))
  if (kept) return kept
  return place.port === undefined || isLoopbackHost(place.host) ? await readSecret(state) : undefined
}
