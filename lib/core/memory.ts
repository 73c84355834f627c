import { runInNewContext } from 'node:vm'

/** Below this a garbage collection is cheaper. */
const WORTH_IT = 4096

type Transfer = (this: ArrayBufferLike, length: number) => ArrayBuffer
let transfer: Transfer | undefined
let looked = false

/**
 * ECMAScript's `ArrayBuffer.prototype.transfer`. Node.js 20 has it behind the V8 flag `--harmony-rab-gsab-transfer`, which
 * shows in contexts that are made afterwards.
 */
function findTransfer(): Transfer | undefined {
  if (!looked) {
    looked = true
    const found: unknown = runInNewContext('ArrayBuffer.prototype.transfer')
    if (typeof found === 'function') transfer = found as Transfer
  }
  return transfer
}

/**
 * Gives the memory of a buffer back now, not at some garbage collection: the next buffer then is this one, still in the
 * processor's cache. `bytes` has no length afterwards, and neither has anything that
 * shares its memory; a buffer that is a part of a larger one is left alone.
 */
export function discard(bytes: Buffer): void {
  if (bytes.length < WORTH_IT || bytes.length !== bytes.buffer.byteLength) return
  findTransfer()?.call(bytes.buffer, 0)
}
