// What `node --test` tells, for people who look rather than read: a line for each file, the whole of each failure when it
// happens, and at the very end, where a log that was cut still has it, the totals, the slowest files and what has failed.
import { readFileSync, writeFileSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { stripVTControlCharacters } from 'node:util'

/** What an earlier part of the run leaves there has failed too. */
const { TEST_FAILED } = process.env
/** Of what a file has printed, if it fails. */
const KEPT_LINES = 100
const SLOWEST = 10
/** With the line that counts the rest, two lines each: the end fits on a screen. */
const LISTED = 19

export default async function* report(events) {
  const run = new Run()
  for await (const event of events) yield run.take(event)
  yield run.end()
}

class Run {
  /** Files, and what they have printed. */
  #output = new Map()
  /** Files, and how long they took in ms. */
  #took = new Map()
  /** The tests around the next one, outermost first. */
  #around = []
  /** Files, and the names of their tests that have begun and not ended. */
  #running = new Map()
  #failed = earlier()
  #totals = new Map()

  /** @returns what to print */
  take({ type, data }) {
    const isFile = data.nesting === 0 && isNameOf(data)
    switch (type) {
      case 'test:stdout':
      case 'test:stderr':
        this.#printed(data.file).push(data.message)
        return ''
      case 'test:dequeue':
        if (!isFile) this.#begun(data.file).add(data.name)
        return ''
      case 'test:complete':
        if (isFile) return this.#fileDone(data)
        this.#begun(data.file).delete(data.name)
        return ''
      case 'test:start':
        this.#around.length = data.nesting
        this.#around.push(data.name)
        return ''
      case 'test:pass':
        return isFile && !data.skip ? this.#fail(data, 'has no tests') : ''
      case 'test:fail':
        return this.#failure(data, isFile)
      case 'test:diagnostic':
        return this.#diagnostic(data)
      default:
        return ''
    }
  }

  end() {
    const total = (name) => this.#totals.get(name) ?? 0
    const counts = ['tests', 'pass', 'fail', 'cancelled', 'skipped', 'todo'].map((name) => `${total(name)} ${name}`)
    const slowest = [...this.#took].sort(([, one], [, other]) => other - one).slice(0, SLOWEST)
    const lines = ['', `${counts.join(', ')} in ${seconds(total('duration_ms'))}; the slowest:`]
    for (const [file, ms] of slowest) lines.push(`  ${seconds(ms).padStart(7)}  ${short(file)}`)
    if (this.#failed.length > 0) {
      lines.push('', `failed: ${this.#failed.length}`)
      for (const { where, names, why } of this.#failed.slice(0, LISTED))
        lines.push(`  ${where}: ${names}`, `    ${why}`)
      if (this.#failed.length > LISTED) lines.push(`  and ${this.#failed.length - LISTED} more`)
    }
    if (TEST_FAILED) writeFileSync(TEST_FAILED, JSON.stringify(this.#failed))
    return `${lines.join('\n')}\n`
  }

  #printed(file) {
    return entry(this.#output, file && resolve(file), () => [])
  }

  #begun(file) {
    return entry(this.#running, file, () => new Set())
  }

  #fileDone({ file, details }) {
    this.#took.set(file, details.duration_ms)
    const line = `${details.passed ? 'ok    ' : 'FAILED'} ${seconds(details.duration_ms).padStart(7)}  ${short(file)}\n`
    const printed = this.#printed(file).join('').trimEnd().split('\n').slice(-KEPT_LINES).join('\n')
    if (details.passed || printed === '') return line
    return `${line}${`it has printed:\n${printed}`.replaceAll('\n', '\n  ')}\n`
  }

  #failure(data, isFile) {
    const { error } = data.details
    // Those inside were told; what is still to be done is nobody's failure.
    if (error.failureType === 'subtestsFailed' || isTrue(data.todo)) return ''
    if (!isFile) return this.#fail(data, messageOf(error))
    const running = [...this.#begun(data.file)].join(', ')
    const how = error.signal ? `ended by ${error.signal}` : `status ${error.exitCode ?? 'unknown'}`
    const ended = error.failureType === 'testTimeoutFailure' ? messageOf(error) : `the process has failed: ${how}`
    const said = lastWords(this.#printed(data.file))
    return this.#fail(data, [ended, running && `running: ${running}`, said].filter(Boolean).join('; '))
  }

  #fail(data, why) {
    const { name, nesting, file, details } = data
    // A file without tests is a mistake, which Node.js takes for success.
    process.exitCode = 1
    const isFile = isNameOf(data)
    const names = isFile ? 'the whole file' : [...this.#around.slice(0, nesting), name].join(' > ')
    const stack = details.error && !isFile ? stackOf(details.error) : ''
    const where = frameOf(stack) ?? short(file)
    this.#failed.push({ where, names: oneLine(names), why: oneLine(why) })
    return `${`FAILED ${where}: ${names}\n${stack || why}`.replaceAll('\n', '\n  ')}\n`
  }

  #diagnostic({ nesting, message }) {
    const [, name, value] = /^(\w+) ([\d.]+)$/.exec(message) ?? []
    if (nesting === 0 && name) {
      this.#totals.set(name, Number(value))
      return ''
    }
    return /error/i.test(message) ? `${message}\n` : ''
  }
}

/** A file has its own name: the whole path, or with later versions of Node.js what was asked for. Some events have none. */
function isNameOf({ name, file }) {
  return name !== undefined && file !== undefined && resolve(name) === file
}

function earlier() {
  try {
    return JSON.parse(readFileSync(TEST_FAILED ?? '', 'utf8'))
  } catch {
    return []
  }
}

function entry(map, key, make) {
  if (!map.has(key)) map.set(key, make())
  return map.get(key)
}

function isTrue(value) {
  return value !== undefined && value !== false
}

function messageOf(error) {
  const cause = error.cause ?? error
  return String(cause?.message ?? cause)
}

function stackOf(error) {
  const cause = error.cause ?? error
  const lines = stripVTControlCharacters(String(cause?.stack ?? cause)).split('\n')
  return lines.filter((line) => !/^\s+at .*(\bnode:|<anonymous>\)$)/.test(line)).join('\n')
}

/** The place in a test, as opposed to that in what tests have in common. */
function frameOf(stack) {
  const [, path, line] = /(?:file:\/\/)?(\/\S+\.test\.m?js):(\d+):\d+/.exec(stack) ?? []
  return path && `${short(path)}:${line}`
}

function lastWords(printed) {
  const lines = printed.join('').split('\n')
  return (
    lines.find((line) => /^(\w*Error\b|\w+ \[ERR_)/.test(line)) ?? lines.findLast((line) => line.trim() !== '') ?? ''
  )
}

function oneLine(text) {
  const line = stripVTControlCharacters(text).replace(/\s+/g, ' ').trim()
  return line.length > 240 ? `${line.slice(0, 240)}…` : line
}

function short(file) {
  return relative(process.cwd(), file)
}

function seconds(ms) {
  return `${(ms / 1000).toFixed(1)} s`
}
