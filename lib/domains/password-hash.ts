/** What is kept of a password: what scrypt (RFC 7914) makes of it, and how. */
export interface PasswordHash {
  /** The cost is 2 to this. */
  readonly ln: number
  readonly r: number
  readonly p: number
  readonly salt: Buffer
  readonly hash: Buffer
}

const FORM = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d)\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})$/
/** What one check may take: bytes of memory, and these so many times over. */
const MOST_MEMORY = 64 * 1024 * 1024
const MOST_TURNS = 4

/** Of `$scrypt$ln=15,r=8,p=1$SALT$HASH`, both in base64 without `=`. Undefined if it is none, or costs too much. */
export function readPasswordHash(text: string): PasswordHash | undefined {
  const [, ln, r, p, salt = '', hash = ''] = FORM.exec(text) ?? []
  if (ln === undefined) return undefined
  const read = { ln: Number(ln), r: Number(r), p: Number(p) }
  const fits = read.ln >= 10 && read.r >= 1 && read.p >= 1 && read.p <= MOST_TURNS && memoryOf(read) <= MOST_MEMORY
  return fits ? { ...read, salt: Buffer.from(salt, 'base64'), hash: Buffer.from(hash, 'base64') } : undefined
}

export function formatPasswordHash({ ln, r, p, salt, hash }: PasswordHash): string {
  const [first, second] = [salt, hash].map((bytes) => bytes.toString('base64').replace(/=+$/, ''))
  return `$scrypt$ln=${ln},r=${r},p=${p}$${first}$${second}`
}

/** Bytes that scrypt needs. */
export function memoryOf({ ln, r }: Pick<PasswordHash, 'ln' | 'r'>): number {
  return 128 * 2 ** ln * r
}
