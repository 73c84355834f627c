// Puts the compiled command line into few files, in dist/apps/bundle: a good part of what a start takes is finding and
// reading a hundred modules. What is loaded later stays apart, and packages stay where they are. Nothing depends on it:
// where there is no bundle the command line runs from dist/apps/cli.
import { rmSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'

/** @param {string} dist the folder of the compiled files */
export async function bundle(dist) {
  const { rollup } = await import('@rollup/wasm-node')
  const dir = `${dist}/apps/bundle`
  rmSync(dir, { recursive: true, force: true })
  const built = await rollup({
    input: { main: `${dist}/apps/cli/main.js` },
    external: (id) => /^(?![./]|[A-Z]:)/.test(id),
    onwarn(warning) {
      // What the compiler makes of `using` and `await using` begins with this.
      if (warning.code !== 'THIS_IS_UNDEFINED') throw new Error(warning.message)
    },
  })
  await built.write({ dir, format: 'esm', entryFileNames: '[name].js', chunkFileNames: '[name]-[hash].js' })
  await built.close()
}

const [, started] = process.argv
if (started !== undefined && import.meta.url === pathToFileURL(started).href) {
  await bundle(fileURLToPath(new URL('../dist', import.meta.url)))
}
