// Writes config.schema.json: the JSON Schema of configuration files, made of the one that `--config` checks them with.
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { toJsonSchema } from '@valibot/to-json-schema'

/** What the file holds, of `schemaOf` in apps/common/config-schema.ts. */
export function publishedSchema(schemaOf) {
  const definitions = {}
  const anyOf = ['server', 'node'].map((role) => hoist(convert(schemaOf(role)), definitions, true))
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'symport: configuration file',
    description: 'What symport server and symport node take as --config FILE, in TOML or JSON.',
    anyOf,
    definitions,
  }
}

function convert(schema) {
  const { $schema, definitions, $defs, ...rest } = toJsonSchema(schema, {
    typeMode: 'input',
    errorMode: 'ignore',
    overrideSchema({ valibotSchema, jsonSchema }) {
      if (valibotSchema.type === 'loose_object') return { ...jsonSchema, additionalProperties: false }
      if (valibotSchema.type !== 'lazy') return undefined
      const { options } = valibotSchema.getter
      return options.length === 1 ? convert(options[0]) : { anyOf: options.map(convert) }
    },
  })
  return rest
}

/** What has a title stands once, below `definitions`; empty descriptions go. */
function hoist(value, definitions, isRoot = false) {
  if (Array.isArray(value)) return value.map((item) => hoist(item, definitions))
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).filter(([key, inner]) => key !== 'description' || inner !== '')
  const whole = Object.fromEntries(entries.map(([key, inner]) => [key, hoist(inner, definitions)]))
  if (isRoot && whole.properties) {
    // The flag's own spelling. Underscores do for all dashes; editors are told of this one.
    whole.properties.peer_listener = whole.properties['peer-listener']
  }
  if (isRoot || typeof whole.title !== 'string') return whole
  definitions[whole.title] = whole
  return { $ref: `#/definitions/${whole.title}` }
}

const [, started] = process.argv
if (started !== undefined && import.meta.url === pathToFileURL(started).href) {
  const { schemaOf } = await import('../dist/apps/common/config-schema.js')
  const file = fileURLToPath(new URL('../config.schema.json', import.meta.url))
  writeFileSync(file, JSON.stringify(publishedSchema(schemaOf)))
  const biome = fileURLToPath(new URL('../node_modules/@biomejs/biome/bin/biome', import.meta.url))
  const { status } = spawnSync(process.execPath, [biome, 'format', '--write', file], { stdio: 'inherit' })
  process.exitCode = status ?? 1
}
