/**
 * Text that nobody may see: in JSON it is left out, and elsewhere it is three stars. So it stays out of logs, the API and
 * what a peer is told, whoever passes it on.
 */
export class Hidden {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  reveal(): string {
    return this.#text
  }

  toString(): string {
    return '***'
  }

  toJSON(): undefined {
    return undefined
  }
}
