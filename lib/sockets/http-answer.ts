import type { ClientRequest, IncomingMessage } from 'node:http'

/** The head of the answer to a request with this body. `ask` makes the request, perhaps once more. */
export async function responseOf(ask: () => ClientRequest, body: string | undefined): Promise<IncomingMessage> {
  const asking = ask()
  try {
    return await new Promise<IncomingMessage>((resolve, reject) => {
      asking.on('error', reject)
      asking.once('response', resolve)
      asking.end(body)
    })
  } catch (error) {
    // A connection that was kept may be closed by the other side at the very moment in which it is used again.
    const closed = error instanceof Error && 'code' in error && error.code === 'ECONNRESET'
    if (!asking.reusedSocket || !closed) throw error
    return await responseOf(ask, body)
  }
}

/** The body; undefined if it is longer than so many bytes, and then the connection is gone. */
export async function textOf(response: IncomingMessage, longest: number): Promise<string | undefined> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of response) {
    length += chunk.length
    if (length > longest) {
      response.destroy()
      return undefined
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
