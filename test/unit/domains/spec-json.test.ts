import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { findJsonProblem, isUnquotedJson, readJsonSpec } from '../../../lib/domains/spec-json.ts'

test('finds the place where a text stops being JSON', () => {
  const at = (text: string) => findJsonProblem(text)?.offset
  assert.equal(at('{"a":1}'), undefined)
  assert.equal(at('{"a":1,}'), 7)
  assert.equal(at('{"a" 1}'), 5)
  assert.equal(at('{a:1}'), 1)
  assert.equal(at('{"a":1'), 6)
  assert.equal(at('{"a":1}}'), 7)
  assert.equal(at('{"a":tru}'), 5)
  assert.equal(at('{"a":"b'), 5)
  assert.equal(at('{"a":"\\x"}'), 6)
  assert.equal(at('["a"\n"b"]'), 5)
  assert.equal(at(''), 0)
})

test('takes and rejects exactly what JSON.parse does', () => {
  const accepts = (text: string): boolean => {
    try {
      JSON.parse(text)
      return true
    } catch {
      return false
    }
  }
  const agree = (text: string): void => assert.equal(findJsonProblem(text) === undefined, accepts(text), text)
  fc.assert(fc.property(fc.json(), agree))
  fc.assert(fc.property(fc.string({ unit: fc.constantFrom(...'{}[]",:\\ua01.e-\n \t'), maxLength: 12 }), agree), {
    numRuns: 2000,
  })
  fc.assert(
    fc.property(fc.json(), fc.nat(), fc.constantFrom('', '"', ',', '}', ' ', '0', '\\', '\u0001'), (json, n, char) => {
      const cut = n % (json.length + 1)
      agree(json.slice(0, cut) + char + json.slice(cut + 1))
    }),
    { numRuns: 1000 },
  )
})

test('tells JSON without quotes from other mistakes', () => {
  assert.equal(isUnquotedJson('{Listen:{Domain:tcp}}'), true)
  assert.equal(isUnquotedJson("'{Listen:{Domain:tcp,"), true)
  assert.equal(isUnquotedJson('{\\"Listen\\":{}}'), true)
  assert.equal(isUnquotedJson("{'Listen':{}}"), true)
  assert.equal(isUnquotedJson('{"Listen":{Domain:"tcp"}}'), false)
  assert.equal(isUnquotedJson('{}'), false)
  assert.equal(isUnquotedJson('8080:localhost:80'), false)
})

test('names keys that are unknown, missing or of the wrong kind', () => {
  const half = '{"Domain":"tcp","Addr":":1"}'
  const rejects = (json: string, message: RegExp): void =>
    assert.throws(() => readJsonSpec(json), { code: 'PROXY_ERR_SPEC', message })
  rejects(`{"Listen":${half},"Forward":${half},"listen":1}`, /unknown key "listen": did you mean "Listen"\?/)
  rejects(`{"Listen":${half},"Forward":{"Domain":"tcp","Adr":":1","Addr":":1"}}`, /"Forward.Adr": did you mean "Addr"/)
  rejects(`{"Listen":${half},"Forward":${half},"toString":1}`, /unknown key "toString"/)
  rejects(`{"Listen":${half},"Forward":${half},"__proto__":{}}`, /unknown key "__proto__"/)
  rejects(`{"Listen":${half}}`, /the key "Forward" is missing/)
  rejects(`{"Listen":${half},"Forward":{"Domain":"tcp"}}`, /the key "Forward.Addr" is missing/)
  rejects(`{"Listen":${half},"Forward":{"Domain":"tcp","Addr":80}}`, /Forward.Addr is not a string/)
  rejects(`{"Listen":${half},"Forward":":80"}`, /Forward is not an object/)
  rejects(`{"Listen":${half},"Forward":null}`, /Forward is not an object/)
  rejects(`{"Listen":${half},"Forward":${half},"Node":7}`, /Node is not a string/)
  rejects(`{"Listen":${half},"Forward":${half},"Node":""}`, /Node is empty/)
})
