import { fileURLToPath } from 'node:url'

const MAIN = fileURLToPath(new URL('./names-main.js', import.meta.url))

/** The environment of a program that knows HOST. */
export const KNOWS_HOST: NodeJS.ProcessEnv = { NODE_OPTIONS: `--import=${MAIN}` }
/** 127.0.0.1 for those programs, and nothing for all others: whoever gets there has had it looked up by one of them. */
export const HOST = 'www.there.test'
