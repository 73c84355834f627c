/** Where links come in. */
export interface LinkListener {
  /** Where it really listens, for people. */
  readonly address: string
  /** Stops listening; links that came in go on. */
  close(): Promise<void>
}
