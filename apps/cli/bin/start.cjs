'use strict'
// Old Node.js versions must be able to read this file, so that they can say which one is needed.
module.exports = function start(args) {
  var version = process.versions.node.split('.')
  var major = Number(version[0])
  var minor = Number(version[1])
  if (major < 20 || (major === 20 && minor < 19)) {
    console.error(`symport: Node.js ${process.versions.node} is too old: 20.19 or later is needed`)
    process.exit(2)
  }
  var v8 = require('v8')
  v8.setFlagsFromString('--max-semi-space-size=64')
  // What is on its way comes and goes by megabytes outside of the heap, and a heap of 10 MiB would be collected whole for
  // that, many times a second.
  v8.setFlagsFromString('--heap-growing-percent=300')
  // See lib/core/memory.ts; later versions have it without a flag, and may not know the flag.
  if (major < 22) v8.setFlagsFromString('--harmony-rab-gsab-transfer')
  // See tools/bundle.mjs; without the bundle it takes a little longer.
  import('../../../dist/apps/bundle/main.js')
    .catch((error) => {
      if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error
      return import('../../../dist/apps/cli/main.js')
    })
    .then((app) => app.main(args))
    .then(
      (status) => {
        process.exitCode = status
      },
      (error) => {
        console.error(
          `symport: ${error.code === 'ERR_MODULE_NOT_FOUND' ? 'not built: run "npm run build"' : error.stack}`,
        )
        process.exitCode = 1
      },
    )
}
