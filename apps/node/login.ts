import * as v from 'valibot'
import { JsonFile } from '../../lib/store/json-file.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'
import { LOGIN_FILE, type Login } from './login-file.ts'

const text = v.pipe(v.string(), v.minLength(1), v.maxLength(4096))
const LOGIN: v.GenericSchema<unknown, Login | null> = v.nullable(
  v.object({
    server: text,
    id: v.optional(text),
    ca: v.optional(text),
    pin: v.optional(text),
    proxy: v.optional(text),
  }),
)

/** @throws ProxyError PROXY_ERR_STATE */
export async function readLogin(state: StateFolder): Promise<Login | undefined> {
  const { value } = await JsonFile.open(state, LOGIN_FILE, LOGIN, null)
  return value ?? undefined
}

/**
 * Takes the place of the one before.
 *
 * @throws ProxyError PROXY_ERR_STATE
 */
export async function keepLogin(state: StateFolder, { server, id, ca, pin, proxy }: Login): Promise<void> {
  const file = await JsonFile.open<Login | null>(state, LOGIN_FILE, LOGIN, null)
  await file.change({ server, id, ca, pin, proxy })
}
