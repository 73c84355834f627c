import { KEYS, keepScrypt } from './kept-scrypt.ts'

/** `node --import`. */
const folder = process.env[KEYS]
if (folder !== undefined) keepScrypt(folder)
