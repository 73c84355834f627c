import forge from 'node-forge'

/**
 * Records once more, with node-forge's AES-128-GCM and HMAC in place of OpenSSL's, written from the protocol's text:
 * what both agree on is not a mistake that one library made on both sides.
 */

const binary = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1')

function hmac(key: Uint8Array, data: Uint8Array): Buffer {
  const mac = forge.hmac.create()
  mac.start('sha256', forge.util.createBuffer(binary(key)))
  mac.update(binary(data))
  return Buffer.from(mac.digest().getBytes(), 'latin1')
}

/** RFC 5869, for an output of at most 32 bytes. */
function expand(prk: Uint8Array, info: string, length: number): Buffer {
  return hmac(prk, Buffer.concat([Buffer.from(info), Buffer.from([1])])).subarray(0, length)
}

/** The chain key that a direction begins with. */
export function firstChain(secret: Uint8Array, salt: Uint8Array = Buffer.alloc(0)): Buffer {
  const prk = hmac(salt.length > 0 ? salt : Buffer.alloc(32), secret)
  return expand(prk, 'symport chain', 32)
}

export function nextChain(chain: Uint8Array): Buffer {
  return expand(chain, 'chain', 32)
}

export function recordKey(chain: Uint8Array): Buffer {
  return expand(chain, 'key', 16)
}

function nonceOf(number: number): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeBigUInt64BE(BigInt(number), 4)
  return nonce
}

export function forgeSeal(key: Uint8Array, number: number, plain: Uint8Array): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(plain.length + 16)
  const cipher = forge.cipher.createCipher('AES-GCM', binary(key))
  cipher.start({ iv: binary(nonceOf(number)), additionalData: binary(length), tagLength: 128 })
  cipher.update(forge.util.createBuffer(binary(plain)))
  cipher.finish()
  const sealed = cipher.output.getBytes() + cipher.mode.tag.getBytes()
  return Buffer.concat([length, Buffer.from(sealed, 'latin1')])
}

/** The plaintext, or undefined where the tag does not fit. */
export function forgeOpen(key: Uint8Array, number: number, record: Uint8Array): Buffer | undefined {
  const tag = forge.util.createBuffer(binary(record.subarray(-16)))
  const decipher = forge.cipher.createDecipher('AES-GCM', binary(key))
  const additionalData = binary(record.subarray(0, 4))
  decipher.start({ iv: binary(nonceOf(number)), additionalData, tagLength: 128, tag })
  decipher.update(forge.util.createBuffer(binary(record.subarray(4, -16))))
  return decipher.finish() ? Buffer.from(decipher.output.getBytes(), 'latin1') : undefined
}
