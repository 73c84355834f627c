// Puts the figures of test/bench/results.json, which `npm run bench` writes, into README.md, between the two bench markers.
import { readFileSync, writeFileSync } from 'node:fs'

const README = new URL('../README.md', import.meta.url)
const RESULTS = new URL('../test/bench/results.json', import.meta.url)
const MARKERS = /(<!-- bench -->\n).*?(<!-- \/bench -->)/s

function figure(value) {
  const magnitude = Math.abs(value)
  if (magnitude >= 1000) return Math.round(value).toLocaleString('en')
  return value.toFixed(magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : 2)
}

function cells(part, row) {
  return [
    part.id,
    row.what,
    row.symport === undefined ? '' : `${figure(row.symport)} ${row.unit}`,
    row.reference === undefined ? '' : `${figure(row.reference)} ${row.unit} (${row.against})`,
    row.ratio === undefined ? '' : row.ratio.toFixed(2),
    row.goal,
    row.met === undefined ? '' : row.met ? 'yes' : 'no',
  ]
}

function table({ command, node, cpu, ssh, parts }) {
  const head = ['', 'what', 'symport', 'compared with', 'ratio', 'goal', 'met']
  const rows = parts.flatMap((part) => part.rows.map((row) => cells(part, row)))
  const lines = [head, ['---', '---', '---:', '---:', '---:', '---', '---'], ...rows]
  const text = lines.map((line) => `| ${line.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`).join('\n')
  const rounds = [...new Set(parts.map((part) => part.rounds))].join(' or ')
  const machine = [`Node.js ${node.replace(/^v/, '')}`, `${cpu.cores} cores (${cpu.model})`, ...(ssh ? [ssh] : [])]
  const how = `Medians of ${rounds} rounds of \`${command}\`, in turn with what is compared, over loopback on one machine`
  const wss = parts.some((part) => part.rows.some((row) => row.goal === 'reported'))
  const over = wss ? ' What ends in wss goes through TLS and a WebSocket, the rest straight over TCP.' : ''
  return `${text}\n\n${how}: ${machine.join(', ')}. A ratio is the median of the rounds' ratios.${over}\n`
}

function read(file) {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    console.error('test/bench/results.json is missing: run "npm run bench" first')
    process.exit(1)
  }
}

const readme = readFileSync(README, 'utf8')
if (!MARKERS.test(readme)) {
  console.error('README.md has no <!-- bench --> ... <!-- /bench -->')
  process.exit(1)
}
const results = JSON.parse(read(RESULTS))
writeFileSync(
  README,
  readme.replace(MARKERS, (_all, begin, end) => `${begin}${table(results)}${end}`),
)
