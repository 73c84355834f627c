import assert from 'node:assert/strict'
import test from 'node:test'
import { ProxyError } from '../../../lib/core/errors.ts'

test('an error has a name, a code, a text and a cause', () => {
  const cause = new Error('why')
  const error = new ProxyError('PROXY_ERR_X', 'what', { cause })
  assert.ok(error instanceof Error)
  assert.equal(error.name, 'ProxyError')
  assert.equal(error.code, 'PROXY_ERR_X')
  assert.equal(error.message, 'what')
  assert.equal(error.cause, cause)
  assert.equal(error.retryable, false)
  assert.equal(new ProxyError('PROXY_ERR_X', 'what', { retryable: true }).retryable, true)
})

test('an error without a cause has no property of that name', () => {
  assert.equal('cause' in new ProxyError('PROXY_ERR_X', 'what'), false)
  assert.equal('cause' in new ProxyError('PROXY_ERR_X', 'what', { cause: undefined }), true)
})

test('from leaves a ProxyError as it is', () => {
  const error = new ProxyError('PROXY_ERR_X', 'what')
  assert.equal(ProxyError.from(error, 'PROXY_ERR_Y', 'other'), error)
})

test('from keeps any other error as the cause', () => {
  const cause = new TypeError('why')
  const error = ProxyError.from(cause, 'PROXY_ERR_Y')
  assert.equal(error.code, 'PROXY_ERR_Y')
  assert.equal(error.message, 'why')
  assert.equal(error.cause, cause)
  assert.equal(ProxyError.from(cause, 'PROXY_ERR_Y', 'plain words').message, 'plain words')
})

test('from takes whatever was thrown', () => {
  for (const thrown of ['text', 7, null, undefined, { a: 1 }]) {
    const error = ProxyError.from(thrown, 'PROXY_ERR_Y')
    assert.equal(error.message, String(thrown))
    assert.equal(error.cause, thrown)
  }
})
