/** In the state folder. */
export const LOGIN_FILE = 'login.json'

/** The server that commands of a node mean where none is named, as `symport login` was told. The secret lies apart. */
export interface Login {
  readonly server: string
  readonly id?: string | undefined
  readonly ca?: string | undefined
  readonly pin?: string | undefined
  readonly proxy?: string | undefined
}
