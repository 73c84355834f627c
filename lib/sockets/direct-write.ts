import type { Socket } from 'node:net'
import { getSystemErrorName } from 'node:util'

/*
 * A `Socket` takes as long for its own bookkeeping of a small write as the system takes to write it. What it does in the end
 * is to ask its connection (`_handle`), and that is done here directly. Where a version of Node.js does not have it this
 * way, `directHandle` answers nothing, and the `Socket` is used as it is.
 */

/** What a `Socket` asks its connection to write with. */
interface WriteRequest {
  oncomplete: (this: WriteRequest, status: number) => void
  /** Nobody else keeps what waits from being collected. */
  chunks?: readonly Uint8Array[] | undefined
  done?: Done | undefined
  getAsyncId(): number
}

/** A connection of the system, as far as writing goes. Both answer 0 or a negative error number. */
export interface DirectHandle {
  writeBuffer(request: WriteRequest, bytes: Uint8Array): number
  writev(request: WriteRequest, chunks: readonly Uint8Array[], allAreBuffers: true): number
  readonly writeQueueSize: number
}

type Done = (error: Error | undefined) => void

/** What Node.js says of a request that no connection has begun to work on. */
const UNUSED = -1

let RequestClass: (new () => WriteRequest) | undefined
/** What the system takes at once needs no request of its own. */
let spare: WriteRequest | undefined

/**
 * The connection of `socket`, to be written to directly; nothing as long as that cannot be done. Afterwards nothing may be
 * written to `socket` itself: that could come before what waits here. Ending it is fine.
 */
export function directHandle(socket: Socket): DirectHandle | undefined {
  const handle = (socket as Socket & { _handle?: Partial<DirectHandle> | null })._handle
  if (!handle || socket.connecting || socket.writableLength > 0) return undefined
  if (typeof handle.writeBuffer !== 'function' || typeof handle.writev !== 'function') return undefined
  if (typeof handle.writeQueueSize !== 'number') return undefined
  if (RequestClass) return handle as DirectHandle
  // Nothing gives away the class of the requests, but the first request that comes by.
  const { writeBuffer } = handle
  handle.writeBuffer = (request, bytes) => {
    delete handle.writeBuffer
    const { constructor } = request
    if (typeof request.getAsyncId === 'function') RequestClass = constructor as new () => WriteRequest
    return writeBuffer.call(handle, request, bytes)
  }
  return undefined
}

function complete(this: WriteRequest, status: number): void {
  this.done?.(status < 0 ? writeError(status) : undefined)
}

/**
 * Answers whether something has to wait. Then `done` is called when it has gone or cannot go any more, and the chunks must
 * not be used again before.
 *
 * @throws Error as a `Socket` would emit it
 */
export function writeDirect(handle: DirectHandle, chunks: readonly Uint8Array[], done: Done): boolean {
  let request = spare
  if (!request) {
    if (!RequestClass) throw new TypeError('no socket has written yet')
    request = new RequestClass()
    request.oncomplete = complete
    spare = request
  }
  const [first] = chunks
  const status =
    chunks.length === 1 && first ? handle.writeBuffer(request, first) : handle.writev(request, chunks, true)
  if (status < 0) {
    spare = undefined
    throw writeError(status)
  }
  if (request.getAsyncId() === UNUSED) return false
  request.chunks = chunks
  request.done = done
  spare = undefined
  return true
}

function writeError(status: number): Error {
  const code = getSystemErrorName(status)
  return Object.assign(new Error(`write ${code}`), { code, errno: status, syscall: 'write' })
}
