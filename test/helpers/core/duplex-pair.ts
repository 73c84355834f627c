import { Duplex } from 'node:stream'

/** Two Node.js streams, each the far side of the other: what a library user brings. */
export function duplexPair(): [Duplex, Duplex] {
  const near = new Half()
  const far = new Half()
  near.far = far
  far.far = near
  return [near, far]
}

class Half extends Duplex {
  far: Half | undefined
  #taken: () => void = () => {}

  override _read(): void {
    const taken = this.#taken
    this.#taken = () => {}
    taken()
  }

  override _write(chunk: Buffer, _encoding: string, callback: () => void): void {
    const far = this.far
    if (!far || far.destroyed) callback()
    else if (far.push(chunk)) setImmediate(callback)
    else far.#taken = callback
  }

  override _final(callback: () => void): void {
    this.far?.push(null)
    callback()
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    const far = this.far
    setImmediate(() => far?.destroy())
    callback(error)
  }
}
